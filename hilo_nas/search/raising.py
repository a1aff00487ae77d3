"""A larger budget for a stored study: its networks become due again, from the rungs that they had reached."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from hilo_nas.errors import HiloNasError, UsageError
from hilo_nas.events import Emit, Notice
from hilo_nas.manifest import Manifest
from hilo_nas.records import TrialRecord
from hilo_nas.search.checkpoints import Checkpoints
from hilo_nas.search.ladder import Ladder
from hilo_nas.search.request import DEFAULT_RATIO
from hilo_nas.study import StudyFolder
from hilo_nas.transitions import mark_raised

__all__ = ["climb_raised", "raise_budget", "raised"]

_STAYS = "stays at its rung after the budget was raised"


def raised(manifest: Manifest, images: int) -> Manifest:
    """Returns the manifest with a larger full budget; the old one becomes a rung, with others above it where they fit.

    Raises:
        UsageError: The budget is not larger, or the study's training cannot go on.
    """
    plan = manifest.plan
    if "raise_budget" not in plan.declaration.options:
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


def raise_budget(folder: StudyFolder, manifest: Manifest, images: int) -> Manifest:
    """Raises a study's budget and returns its manifest; every trained network is due again, whatever kills this.

    The records are marked first: a mark without a raised budget is closed again by the next search as it was.

    Raises:
        UsageError: See `raised`.
        StorageError: The study cannot be written.
    """
    new = raised(manifest, images)
    for record in folder.load_records():
        if record.state.is_scored and record.scores and record.measurements:
            folder.write_record(mark_raised(record))
    folder.write_manifest(new)
    return new


def climb_raised(
    records: list[TrialRecord],
    ladder: Ladder,
    checkpoints: Checkpoints,
    write: Callable[[TrialRecord], TrialRecord],
    emit: Emit,
    clock: Callable[[], float],
) -> None:
    """Trains on, rung by rung, what was due again when the budget was raised.

    Each network keeps its record, which gains scores. One without a checkpoint, or whose training fails, stays where it
    was.

    Args:
        records: The study's, changed in place.
        ladder: Trains.
        checkpoints: Where the trainings paused.
        write: Writes a record and returns it.
        emit: Takes a warning for what stays behind.
        clock: Returns seconds.

    Raises:
        HiloNasError: The device, the data or the disk cannot serve; the rest is still due.
    """
    due = [i for i, record in enumerate(records) if record.is_raised]
    lost = 0
    # The lowest rung first: who comes from there competes with those above.
    for i in sorted(due, key=lambda i: max(score.images_seen for score in records[i].scores)):
        record, start = records[i], clock()
        reason = None
        if not checkpoints.holds(record.key):
            reason, lost = f"{_STAYS}: no checkpoint was kept", lost + 1
        else:
            try:
                for scored in ladder.climb(record, records):
                    record = records[i] = write(scored)
            except HiloNasError as error:
                if error.is_fatal:
                    raise
                record, reason = records[i], f"{_STAYS}: {error}"
                emit(Notice(level="warning", text=f"trial {record.number} {reason}"))
        ended = ladder.end(record, records)
        seconds = record.seconds + clock() - start
        records[i] = write(dataclasses.replace(ended, reason=reason or ended.reason, seconds=seconds))
        checkpoints.prune(records, [checkpoints.path_of(other.key) for other in records if other.is_raised])
    if lost:
        text = f"{lost} networks stay where they were: of their trainings no checkpoint was kept"
        emit(Notice(level="warning", text=text))
