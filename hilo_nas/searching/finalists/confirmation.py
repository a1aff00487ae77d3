"""Lucky scores climb onto a front: further seeds say which networks belong there, and whom they beat.

A network that was dethroned by them keeps its seeds and its record; those that move up are trained in turn, so that no
front is left that stands on luck alone. The seed that brought a network there stays in its mean: of its luck, one part
in 1 + N is left.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Collection, Sequence

from hilo_nas.errors import HiloNasError
from hilo_nas.evaluation import Evaluator, Score, Steps, drive
from hilo_nas.events import ConfirmationForeseen, Emit, Notice, SeedScored
from hilo_nas.searching.tasks.study_tasks import Resources, StudyTasks
from hilo_nas.study.front import Front
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy

__all__ = ["confirm_front"]

_NETWORKS = 16
"""Networks up to which those near the front are trained beside its members. The more seeds tell of their noise, the
more networks cannot be told from a front; without a bound, a confirmation may cost more than its search."""


def confirm_front(
    study: StoredStudy,
    manifest: Manifest,
    evaluator: Evaluator,
    resources: Resources,
    emit: Emit,
    *,
    further_seeds: int,
) -> None:
    """Trains the front, whom it is compared with, and those hard to tell from it with further seeds at the full budget.

    Each score goes into its network's record at once. A front moves when its scores do, so this ends only when each
    member of the front of the moment, each anchor and each peer has its seeds, beside those near the front until 16
    networks have theirs. Scores that are there are not paid for again, also where another search was ended on the way.

    Args:
        study: The study's; this process holds its lock.
        manifest: The study's.
        evaluator: Who trains.
        resources: What the study's tasks refer to.
        emit: Takes `ConfirmationForeseen` before each round of trainings, and `SeedScored`.
        further_seeds: How many, beside the one that each network has.

    Raises:
        HiloNasError: The device, the data or the disk cannot serve; a training that fails is a warning, and is not
            tried again before the next call.
    """
    budget = manifest.plan.budgets[-1]
    failed: set[tuple[int, int]] = set()
    while True:
        records = {record.number: record for record in study.records}
        missing = {
            number: _missing_seeds(record, budget, manifest.seed, 1 + further_seeds)
            for number, record in records.items()
        }
        due = [
            (record.number, seed)
            for record in _candidates(
                manifest, Front.from_records(records.values()), [n for n, seeds in missing.items() if not seeds]
            )
            for seed in missing[record.number]
            if (record.number, seed) not in failed
        ]
        if not due:
            break
        seconds = sum(_training_seconds(records[number], budget) for number, _ in due)
        emit(ConfirmationForeseen(networks=len({number for number, _ in due}), trainings=len(due), seconds=seconds))
        _train(due, records, failed, study, manifest, evaluator, resources, emit)
    left = [number for number in Front.from_records(records.values()).ties if missing[number]]
    if left:
        text = f"{len(left)} networks that cannot be told from the front were not trained with further seeds"
        emit(Notice(text=f"{text}: trial {', '.join(map(str, sorted(left)))}"))


def _train(
    due: Sequence[tuple[int, int]],
    records: dict[int, TrialRecord],
    failed: set[tuple[int, int]],
    study: StoredStudy,
    manifest: Manifest,
    evaluator: Evaluator,
    resources: Resources,
    emit: Emit,
) -> None:
    """Trains networks, given by number, with seeds; what it finds goes into their records or joins the failed."""
    tasks, todo, done = StudyTasks.of(manifest, resources), deque(due), 0

    def steps(number: int, seed: int) -> Steps[None]:
        nonlocal done
        task = tasks.score(records[number].subject, seed, until=manifest.plan.budgets[-1])
        try:
            found = yield task
        except HiloNasError as error:
            if error.is_fatal:
                raise
            done += 1
            failed.add((number, seed))
            emit(Notice(level="warning", text=f"trial {number} could not be confirmed by seed {seed}: {error}"))
            return
        done += 1
        record, score = records[number], found.score
        records[number] = dataclasses.replace(
            record, scores=(*record.scores, score), seconds=record.seconds + score.seconds
        )
        study.write(records[number])
        emit(SeedScored(number=number, seed=seed, value=score.value, done=done, total=len(due), metric=score.metric))

    drive(
        lambda: steps(*todo.popleft()) if todo else None,
        evaluator,
        emit,
        at_once=evaluator.slots(Score.kind),
    )


def _candidates(manifest: Manifest, front: Front, confirmed: Collection[int]) -> list[TrialRecord]:
    """Returns who should have further seeds and has not.

    These are the members of the front, the anchors and peers that they are compared with, then those near the front
    while there is room.

    Args:
        manifest: The study's.
        front: The study's.
        confirmed: Numbers of those that have theirs.
    """
    references = [r for r in front.records if manifest.is_reference(r) and r.state == TrialState.COMPLETE]
    due = {record.number: record for record in [*front.members, *references] if record.number not in confirmed}
    near = [
        record
        for record in front.near(at_most=_NETWORKS)
        if record.number not in due and record.number not in confirmed
    ]
    return [*due.values(), *near[: max(_NETWORKS - len(confirmed) - len(due), 0)]]


def _missing_seeds(record: TrialRecord, budget: int, first: int, wanted: int) -> list[int]:
    """Returns the seeds, from the study's own upwards, that a network lacks; it may have others from another study."""
    has = {score.seed for score in record.scores if score.images_seen == budget}
    free = (seed for seed in itertools.count(first) if seed not in has)
    return list(itertools.islice(free, max(wanted - len(has), 0)))


def _training_seconds(record: TrialRecord, budget: int) -> float:
    """What a full training of the network took before, all legs together."""
    full = {score.seed for score in record.scores if score.images_seen == budget}
    return sum(score.seconds for score in record.scores if score.seed in full) / max(len(full), 1)
