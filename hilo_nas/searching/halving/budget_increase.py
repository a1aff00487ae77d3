"""Increase of the full budget of a stored study: training continues from the rungs that its networks reached."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable

from hilo_nas.errors import HiloNasError, NoCheckpointError, UsageError
from hilo_nas.evaluation import Evaluator, Score, Steps, drive
from hilo_nas.events import Emit, Notice
from hilo_nas.searching.configuration.rung_budgets import DEFAULT_RATIO
from hilo_nas.searching.halving.rung_training import RungTraining
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.study.transitions import mark_raised

__all__ = ["increase_budget", "train_to_larger_budget", "with_larger_budget"]

_STAYS_AT_RUNG = "stays at its rung after the budget was increased"


def with_larger_budget(manifest: Manifest, images: int) -> Manifest:
    """Returns the manifest with a larger full budget.

    The old full budget becomes a rung. More rungs are added between the old and the new budget if they fit.

    Raises:
        UsageError: The budget is not larger, or the study's proxy has no training budget.
    """
    plan = manifest.plan
    if "proxy.raise_budget" not in plan.declaration.options:
        raise UsageError(
            f"only the budget of a training can be increased, but study {manifest.name} uses proxy {plan.proxy}"
        )
    if images <= plan.images:
        raise UsageError(f"proxy.raise_budget must be above {plan.images:,} images, but got {images:,}")
    rungs = [*plan.rungs, plan.images]
    # Use the ratio of the first two rungs, because the last rung may be an arbitrary earlier budget.
    ratio = rungs[1] / rungs[0] if plan.rungs else DEFAULT_RATIO
    while (above := round(rungs[-1] * ratio)) < images:
        rungs.append(above)
    return dataclasses.replace(manifest, plan=dataclasses.replace(plan, images=images, rungs=tuple(rungs)))


def increase_budget(study: StoredStudy, manifest: Manifest, images: int) -> Manifest:
    """Increases the full budget of a study and returns its new manifest.

    All trained networks become due for more training. The records are marked before the manifest is written. If the
    process is killed in between, the next search restores the marked records.

    Raises:
        UsageError: The budget is not larger, or the study's proxy has no training budget.
        StorageError: The study cannot be written.
    """
    new = with_larger_budget(manifest, images)
    for record in study.records:
        if record.state.is_scored and record.scores and record.measurements:
            study.write(mark_raised(record))
    study.write_manifest(new)
    return new


def train_to_larger_budget(
    study: StoredStudy,
    rung_training: RungTraining,
    write: Callable[[TrialRecord], None],
    prune: Callable[[], None],
    evaluator: Evaluator,
    emit: Emit,
    clock: Callable[[], float],
) -> None:
    """Continues the trainings that are due after a budget increase, rung by rung.

    Each network keeps its record and gains scores. A network without a checkpoint stays at its rung, and so does a
    network whose training fails.

    Args:
        study: The study.
        rung_training: Trains networks from rung to rung.
        write: Writes a record to the study.
        prune: Discards checkpoints that are no longer needed.
        evaluator: Runs the trainings.
        emit: Receives events, including a warning for networks that stay at their rungs.
        clock: Returns the time in seconds.

    Raises:
        HiloNasError: The device, the data or the disk fails. The remaining networks stay due.
    """
    due = [record for record in study.records if record.is_raised]
    # Start with the lowest rung, because networks promoted from there compete at the higher rungs.
    todo = deque(sorted(due, key=lambda record: max(score.images_seen for score in record.scores)))
    lost: list[int] = []

    def steps(number: int) -> Steps[None]:
        def current() -> TrialRecord:
            return study.front().by_number[number]

        start, reason = clock(), None
        try:
            yield from rung_training.train(current(), lambda: study.records, write, must_resume=True)
        except NoCheckpointError:
            reason = f"{_STAYS_AT_RUNG}: no checkpoint was kept"
            lost.append(number)
        except HiloNasError as error:
            if error.is_fatal:
                raise
            reason = f"{_STAYS_AT_RUNG}: {error}"
            emit(Notice(level="warning", text=f"trial {number} {reason}"))
        ended = rung_training.finish(current(), study.records)
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
        text = f"{len(lost)} networks stay at their rungs, because no checkpoints of their trainings were kept"
        emit(Notice(level="warning", text=text))
