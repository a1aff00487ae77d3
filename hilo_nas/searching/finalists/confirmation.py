"""Confirmation of the front by trainings with additional seeds.

Some networks reach the front through a lucky score. Additional seeds show which networks belong there. A network that
drops off the front keeps its seeds and its record. Networks that move up are trained in turn, so every member of the
final front has the additional seeds. The first seed, whose score selected the network, stays in the mean. With N
additional seeds, 1 / (1 + N) of the bias due to this selection remains. The posteriors of the study decide which
networks near the front come first.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import deque
from collections.abc import Collection, Mapping, Sequence

from hilo_nas.errors import HiloNasError
from hilo_nas.evaluation import Evaluator, Score, Steps, drive
from hilo_nas.events import ConfirmationForeseen, Emit, Notice, SeedScored
from hilo_nas.measurement import devices_of
from hilo_nas.searching.forecast.study_forecast import build_source, forecast_study
from hilo_nas.searching.sampling.candidates import CandidateSource
from hilo_nas.searching.tasks.study_tasks import Resources, StudyTasks
from hilo_nas.study.front import Front
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.surrogate.trial_seconds import training_seconds

__all__ = ["confirm_front"]

_NETWORKS = 16
"""Maximum number of confirmed networks while networks near the front are added.

Additional seeds reveal more noise, so more networks become indistinguishable from the front. Without a bound, the
confirmation may cost more than the search.
"""


def confirm_front(
    study: StoredStudy,
    manifest: Manifest,
    evaluator: Evaluator,
    resources: Resources,
    emit: Emit,
    *,
    further_seeds: int,
) -> None:
    """Trains the front, nearby networks, anchors and baselines with additional seeds at the full budget.

    Each score is written to its record at once. The front may change with each score. The confirmation ends when every
    member of the current front, every anchor and every baseline has its seeds. Networks near the front are added until
    16 networks have their seeds. Existing scores are reused, also after an interrupted confirmation.

    Args:
        study: The study; this process holds its lock.
        manifest: Manifest of the study.
        evaluator: Runs the trainings.
        resources: Target device and references that the tasks use.
        emit: Receives `ConfirmationForeseen` before each round of trainings, and `SeedScored`.
        further_seeds: Number of seeds in addition to the first one.

    Raises:
        HiloNasError: The device, the data or the disk fails. A failed training only causes a warning and is repeated in
            the next call.
    """
    budget = manifest.plan.budgets[-1]
    failed: set[tuple[int, int]] = set()
    source = build_source(study.records, manifest)
    while True:
        records = {record.number: record for record in study.records}
        missing = {
            number: _missing_seeds(record, budget, manifest.seed, 1 + further_seeds)
            for number, record in records.items()
        }
        due = [
            (record.number, seed)
            for record in _candidates(
                manifest, _front(records, manifest, source), [n for n, seeds in missing.items() if not seeds]
            )
            for seed in missing[record.number]
            if (record.number, seed) not in failed
        ]
        if not due:
            break
        seconds = sum(training_seconds(records[number], budget) for number, _ in due)
        seconds /= len(devices_of(resources.target))
        emit(ConfirmationForeseen(networks=len({number for number, _ in due}), trainings=len(due), seconds=seconds))
        _train(due, records, failed, study, manifest, evaluator, resources, emit)
    left = [number for number in _front(records, manifest, source).ties if missing[number]]
    if left:
        text = f"{len(left)} networks tied with the front were not trained with additional seeds"
        emit(Notice(text=f"{text}: trials {', '.join(map(str, sorted(left)))}"))


def _front(records: Mapping[int, TrialRecord], manifest: Manifest, source: CandidateSource | None) -> Front:
    """Returns the front, with ties by the posteriors of these records."""
    found = forecast_study(list(records.values()), manifest, source)
    return Front.from_records(records.values(), believed=None if found is None else found.believed)


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
    """Trains networks, given by number, with seeds. Adds scores to `records` and failures to `failed`."""
    tasks, queue, done = StudyTasks.of(manifest, resources), deque(due), 0

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
            emit(Notice(level="warning", text=f"trial {number} could not be trained with seed {seed}: {error}"))
            return
        done += 1
        record, score = records[number], found.score
        records[number] = dataclasses.replace(
            record, scores=(*record.scores, score), seconds=record.seconds + score.seconds
        )
        study.write(records[number])
        emit(SeedScored(number=number, seed=seed, value=score.value, done=done, total=len(due), metric=score.metric))

    drive(
        lambda: steps(*queue.popleft()) if queue else None,
        evaluator,
        emit,
        at_once=evaluator.slots(Score.kind),
    )


def _candidates(manifest: Manifest, front: Front, confirmed: Collection[int]) -> list[TrialRecord]:
    """Returns the networks that should get additional seeds and lack them.

    These are members of the front, then anchors and baselines, then networks near the front up to the maximum number.

    Args:
        manifest: Manifest of the study.
        front: Front of the study.
        confirmed: Numbers of the networks that have their seeds.
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
    """Returns the seeds with which a network must still be trained.

    Seeds are counted upwards from the seed of the study. Scores that were copied from another study count too.
    """
    has = {score.seed for score in record.scores if score.images_seen == budget}
    free = (seed for seed in itertools.count(first) if seed not in has)
    return list(itertools.islice(free, max(wanted - len(has), 0)))
