"""Lucky scores climb onto a front: further seeds say which networks belong there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hilo_nas.errors import DataError, DeviceError, HiloNasError, StorageError, StudyMismatchError
from hilo_nas.events import ConfirmationForeseen, Emit, Notice, SeedScored
from hilo_nas.front import front_of, ties_of
from hilo_nas.manifest import Manifest
from hilo_nas.records import TrialRecord
from hilo_nas.search.executors import Executor
from hilo_nas.study import StudyFolder

__all__ = ["confirm_front"]


def confirm_front(
    folder: StudyFolder, manifest: Manifest, executor: Executor, emit: Emit, *, further_seeds: int
) -> None:
    """Trains the front, and all that cannot be told from it, with further seeds at the full budget.

    Each score goes into its network's record at once. A front moves when its scores do, so this ends only when everyone
    on the front of the moment or near it has its seeds; scores that are there are not paid for again.

    Args:
        folder: The study's; this process holds its lock.
        manifest: The study's.
        executor: Set up for the study.
        emit: Takes `ConfirmationForeseen` before each round of trainings, and `SeedScored`.
        further_seeds: How many, beside the study's own.

    Raises:
        HiloNasError: The device, the data or the disk cannot serve; a training that fails is a warning.
    """
    budget = manifest.plan.budgets[-1]
    failed: set[tuple[int, int]] = set()
    while True:
        records = {record.number: record for record in folder.load_records()}
        seeds = range(manifest.seed + 1, manifest.seed + 1 + further_seeds)
        due = [
            (record.number, seed)
            for record in _candidates(list(records.values()))
            for seed in seeds
            if seed not in _seeds_at(record, budget) and (record.number, seed) not in failed
        ]
        if not due:
            return
        seconds = sum(_training_seconds(records[number], manifest.seed) for number, _ in due)
        emit(ConfirmationForeseen(networks=len({number for number, _ in due}), trainings=len(due), seconds=seconds))
        for done, (number, seed) in enumerate(due, start=1):
            record = records[number]
            try:
                score = executor.score(record.subject, seed, emit, until=budget)
            except (DeviceError, DataError, StorageError, StudyMismatchError):
                raise
            except HiloNasError as error:
                failed.add((number, seed))
                emit(Notice(level="warning", text=f"trial {number} could not be confirmed by seed {seed}: {error}"))
                continue
            records[number] = dataclasses.replace(record, scores=(*record.scores, score))
            folder.write_record(records[number])
            emit(
                SeedScored(
                    number=number,
                    seed=seed,
                    proxy_top1=score.proxy_top1,
                    done=done,
                    total=len(due),
                    metric=score.metric,
                )
            )


def _candidates(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    by_number = {record.number: record for record in records}
    return [*front_of(records), *(by_number[number] for number in ties_of(records))]


def _seeds_at(record: TrialRecord, images: int) -> set[int]:
    return {score.seed for score in record.scores if score.images_seen == images}


def _training_seconds(record: TrialRecord, seed: int) -> float:
    """What the study's own training of the network took, all legs together."""
    return sum(score.seconds for score in record.scores if score.seed == seed)
