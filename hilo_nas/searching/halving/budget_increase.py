"""A larger budget for a stored study: its networks become due again, from the rungs that they had reached."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable

from hilo_nas.errors import HiloNasError, NoCheckpointError, UsageError
from hilo_nas.evaluation import Evaluator, Score, Steps, drive
from hilo_nas.events import Emit, Notice
from hilo_nas.searching.configuration.rung_budgets import DEFAULT_RATIO
from hilo_nas.searching.halving.rung_training import Ladder
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.study.transitions import mark_raised

__all__ = ["climb_raised", "raise_budget", "raised"]

_STAYS = "stays at its rung after the budget was raised"


def raised(manifest: Manifest, images: int) -> Manifest:
    """Returns the manifest with a larger full budget; the old one becomes a rung, with others above it where they fit.

    Raises:
        UsageError: The budget is not larger, or the study's training cannot go on.
    """
    plan = manifest.plan
    if "proxy.raise_budget" not in plan.declaration.options:
        raise UsageError(
            f"the budget of a training alone can be raised, but study {manifest.name} is scored by {plan.proxy}"
        )
    if images <= plan.images:
        raise UsageError(f"the budget must be raised above {plan.images:,} images, but got {images:,}")
    rungs = [*plan.rungs, plan.images]
    # That of the first rungs, for the last one may lie at any budget that was asked for before.
    ratio = rungs[1] / rungs[0] if plan.rungs else DEFAULT_RATIO
    while (above := round(rungs[-1] * ratio)) < images:
        rungs.append(above)
    return dataclasses.replace(manifest, plan=dataclasses.replace(plan, images=images, rungs=tuple(rungs)))


def raise_budget(study: StoredStudy, manifest: Manifest, images: int) -> Manifest:
    """Raises a study's budget and returns its manifest; every trained network is due again, whatever kills this.

    The records are marked first: a mark without a raised budget is closed again by the next search as it was.

    Raises:
        UsageError: See `raised`.
        StorageError: The study cannot be written.
    """
    new = raised(manifest, images)
    for record in study.records:
        if record.state.is_scored and record.scores and record.measurements:
            study.write(mark_raised(record))
    study.write_manifest(new)
    return new


def climb_raised(
    study: StoredStudy,
    ladder: Ladder,
    write: Callable[[TrialRecord], None],
    prune: Callable[[], None],
    evaluator: Evaluator,
    emit: Emit,
    clock: Callable[[], float],
) -> None:
    """Trains on, rung by rung, what was due again when the budget was raised.

    Each network keeps its record, which gains scores. One without a checkpoint, or whose training fails, stays where it
    was.

    Args:
        study: The study.
        ladder: Says what to train.
        write: Writes a record of the study.
        prune: Gives up checkpoints that are not needed any more.
        evaluator: Trains.
        emit: Takes a warning for what stays behind.
        clock: Returns seconds.

    Raises:
        HiloNasError: The device, the data or the disk cannot serve; the rest is still due.
    """
    due = [record for record in study.records if record.is_raised]
    # The lowest rung first: who comes from there competes with those above.
    todo = deque(sorted(due, key=lambda record: max(score.images_seen for score in record.scores)))
    lost: list[int] = []

    def steps(number: int) -> Steps[None]:
        def current() -> TrialRecord:
            return study.front().by_number[number]

        start, reason = clock(), None
        try:
            yield from ladder.climb(current(), lambda: study.records, write, must_resume=True)
        except NoCheckpointError:
            reason = f"{_STAYS}: no checkpoint was kept"
            lost.append(number)
        except HiloNasError as error:
            if error.is_fatal:
                raise
            reason = f"{_STAYS}: {error}"
            emit(Notice(level="warning", text=f"trial {number} {reason}"))
        ended = ladder.end(current(), study.records)
        seconds = ended.seconds + clock() - start
        write(dataclasses.replace(ended, reason=reason or ended.reason, seconds=seconds))
        prune()

    drive(
        lambda: steps(todo.popleft().number) if todo else None,
        evaluator,
        emit,
        at_once=evaluator.slots(Score.kind),
    )
    if lost:
        text = f"{len(lost)} networks stay where they were: of their trainings no checkpoint was kept"
        emit(Notice(level="warning", text=text))
