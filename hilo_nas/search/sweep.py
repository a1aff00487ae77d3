"""A given list of networks, all timed and all trained: what a proxy is checked with, and what searches are replayed on.

No sampler and no stopping: the study that comes of it is a table. Networks are timed side by side; then as many are
trained at once as there is room for, each on its share of the cores: networks for small images leave a second thread
little to do.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hilo_nas.cost import count_cost
from hilo_nas.errors import DataError, DeviceError, HiloNasError, NotFoundError, StorageError, StudyMismatchError
from hilo_nas.events import Emit, Event, NetworksTimed, Notice, SeedScored
from hilo_nas.manifest import Manifest
from hilo_nas.measure import TUNED_ENVIRONMENT, Worker, claims_of, hold
from hilo_nas.measurement import ProxyPlan, ProxyScore
from hilo_nas.records import Subject, TrialRecord
from hilo_nas.search.checkpoints import Checkpoints
from hilo_nas.search.executors import LocalExecutor
from hilo_nas.search.holding import locked
from hilo_nas.search.journal import Journal
from hilo_nas.search.request import SearchRequest
from hilo_nas.search.resume import reopen
from hilo_nas.search.setting import Setting, local_of, set_up
from hilo_nas.space import SearchSpace
from hilo_nas.study import StudyFolder
from hilo_nas.versions import versions

__all__ = ["ALL", "Course", "Swept", "run_sweep"]

ALL = "all"
"""Stands for the sampler in the manifest of a study that a sweep made."""
_TIMED_TOGETHER = 16
_FOREVER_MIB = float("inf")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Swept:
    """A network of the list."""

    subject: Subject
    params: dict[str, int] | None
    origin: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Course:
    """One training that networks of the list are given; courses are gone through in their order."""

    seed: int
    images: int
    """Training images seen at its end; scored there and at each smaller budget of the plan."""
    networks: int
    """How many of the list, from its beginning."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Errand:
    number: int
    subject: Subject
    course: Course


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scored:
    errand: _Errand
    score: ProxyScore


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Ended:
    errand: _Errand | None
    """None where a worker has nothing left to do."""
    error: Exception | None = None


def run_sweep(
    request: SearchRequest,
    space: SearchSpace,
    folder: StudyFolder,
    networks: Sequence[Swept],
    plan: ProxyPlan,
    courses: Sequence[Course],
    emit: Emit,
    *,
    jobs: int,
) -> list[TrialRecord]:
    """Times and trains every network of the list and returns the records; goes on with what was begun.

    Args:
        request: Device, conditions and data.
        space: What the networks are of.
        folder: The study's.
        networks: The list; a longer one, with the stored one at its head, goes on with that.
        plan: The training's conditions and every budget at which it is scored.
        courses: The trainings.
        emit: Told of all of it.
        jobs: Trainings at once.

    Raises:
        StudyMismatchError: The stored study is of other networks, conditions or data.
        HiloNasError: The device, the data or the disk cannot serve. A network that cannot be trained is a warning.
    """
    with (
        locked(folder),
        Journal(folder.logs_path / "events.jsonl", emit) as journal,
        LocalExecutor(
            folder.logs_path,
            purpose=f"study {folder.name}",
            idle_timeout_s=request.idle_timeout_s,
            timing_s=request.timing_s,
        ) as executor,
    ):
        manifest, setting = _open(request, space, folder, len(networks), plan, executor, journal)
        records = _timed(folder, manifest, networks, executor, journal, request.timing_s)
        executor.close()
        todo = _errands(records, manifest, courses)
        claims = claims_of(executor.identity_of(setting.training_device, journal), timing=False)
        with hold(claims, f"training for study {folder.name}", journal):
            _train(folder, records, manifest, setting, todo, courses, journal, jobs, request.idle_timeout_s)
        return folder.load_records()


def _open(
    request: SearchRequest,
    space: SearchSpace,
    folder: StudyFolder,
    count: int,
    plan: ProxyPlan,
    executor: LocalExecutor,
    emit: Emit,
) -> tuple[Manifest, Setting]:
    if folder.exists:
        manifest = folder.load_manifest()
        if manifest.sampler != ALL:
            raise StudyMismatchError(
                f"study {folder.name} was made by a search, not by this command. Use another --study."
            )
        setting = reopen(request, folder, manifest, space, executor, emit)
    else:
        setting = set_up(request, space, executor, emit)
        manifest = Manifest(
            name=folder.name,
            space=space,
            conditions=setting.conditions,
            device=setting.device,
            calibrations=setting.calibrations,
            data=setting.data,
            plan=setting.plan,
            sampler=ALL,
            seed=0,
            trials=count,
            versions=versions(),
            created_at=_now(),
            eta=None,
        )
        folder.write_local(local_of(request))
    # The budgets may grow from one call to the next: a training without a horizon goes on.
    wider = dataclasses.replace(manifest.plan, images=plan.images, rungs=plan.rungs)
    manifest = dataclasses.replace(manifest, plan=wider, trials=count)
    folder.write_manifest(manifest)
    return manifest, dataclasses.replace(setting, plan=wider)


def _timed(
    folder: StudyFolder,
    manifest: Manifest,
    networks: Sequence[Swept],
    executor: LocalExecutor,
    emit: Emit,
    seconds_each: float | None,
) -> list[TrialRecord]:
    """Returns a record with its speed for each network that can be timed; those that cannot are infeasible."""
    records = folder.load_records()
    stored = [record.key for record in records]
    if stored != [network.subject.key for network in networks[: len(stored)]]:
        raise StudyMismatchError(
            f"study {folder.name} holds other networks than those asked for. Ask for the same (space, number, seed) or "
            "more, or use another --study."
        )
    condition, classes = manifest.objective, manifest.data.num_classes
    calibration = manifest.calibrations[condition.label()]
    for first in range(len(stored), len(networks), _TIMED_TOGETHER):
        group = networks[first : first + _TIMED_TOGETHER]
        subjects = {network.subject.key: network.subject for network in group}
        cohort = executor.measure_cohort(subjects, condition, calibration, classes, emit, seconds_each=seconds_each)
        for number, network in enumerate(group, start=first):
            measurement = cohort.measurements.get(network.subject.key)
            failure = cohort.failures.get(network.subject.key)
            cost = network.subject.arch and count_cost(network.subject.arch, condition.img_size, num_classes=classes)
            record = TrialRecord(
                number=number,
                subject=network.subject,
                state="running" if measurement else "failed",
                params=network.params,
                origin=network.origin,
                reason=None if failure is None else str(failure),
                parameters=cost.parameters if cost else None,
                macs=cost.macs if cost else None,
                measurements=() if measurement is None else (measurement,),
                started_at=_now(),
            )
            folder.write_record(record)
            records.append(record)
        emit(NetworksTimed(done=len(records), total=len(networks)))
    return records


def _errands(records: Sequence[TrialRecord], manifest: Manifest, courses: Sequence[Course]) -> deque[_Errand]:
    """Returns the trainings that are not done, course by course."""
    return deque(
        _Errand(number=record.number, subject=record.subject, course=course)
        for course in courses
        for record in records[: course.networks]
        if record.measurements and _missing(record, manifest, course)
    )


def _missing(record: TrialRecord, manifest: Manifest, course: Course) -> list[int]:
    """The budgets of a course that a network has no score for."""
    done = {score.images_seen for score in record.scores if score.seed == course.seed}
    wanted = [images for images in manifest.plan.budgets if images <= course.images]
    return [images for images in wanted if images > max(done, default=0)]


def _train(
    folder: StudyFolder,
    records: list[TrialRecord],
    manifest: Manifest,
    setting: Setting,
    todo: deque[_Errand],
    courses: Sequence[Course],
    emit: Emit,
    jobs: int,
    idle_timeout_s: float,
) -> None:
    """Runs the errands, several at once; every score is on disk before the next leg of its training is over."""
    total, done = len(todo), 0
    checkpoints = Checkpoints(folder.checkpoints_path, budget_mib=_FOREVER_MIB, seed=manifest.seed)
    news: queue.Queue[Event | _Scored | _Ended] = queue.Queue()
    jobs = max(1, min(jobs, total))
    threads = max(1, (os.cpu_count() or 1) // jobs)
    environment = {"OMP_WAIT_POLICY": TUNED_ENVIRONMENT["OMP_WAIT_POLICY"], "OMP_NUM_THREADS": str(threads)}
    workers = [
        Worker(
            f"training-{i}",
            folder.logs_path / f"training-{i}.log",
            idle_timeout_s=idle_timeout_s,
            environment=environment,
        )
        for i in range(jobs)
    ]

    def run(worker: Worker) -> None:
        """A thread's life: one training after the other, its news to the main thread, which alone writes."""
        while True:
            try:
                errand = todo.popleft()
            except IndexError:
                news.put(_Ended(errand=None))
                return
            try:
                path = checkpoints.path_of(errand.subject.key, errand.course.seed)
                for images in _missing(records[errand.number], manifest, errand.course):
                    score = _score(worker, errand, images, path, setting, news.put)
                    news.put(_Scored(errand=errand, score=score))
                if path is not None:
                    path.unlink(missing_ok=True)
                news.put(_Ended(errand=errand))
            except Exception as error:
                news.put(_Ended(errand=errand, error=error))

    running = [threading.Thread(target=run, args=(worker,), daemon=True) for worker in workers]
    try:
        for thread in running:
            thread.start()
        working = len(running)
        while working:
            item = news.get()
            if isinstance(item, Event):
                emit(item)
            elif isinstance(item, _Scored):
                record = records[item.errand.number]
                record = dataclasses.replace(record, scores=(*record.scores, item.score))
                records[record.number] = _closed(record, manifest, courses)
                folder.write_record(records[record.number])
            elif item.errand is None:
                working -= 1
            elif isinstance(item.error, HiloNasError) and not isinstance(
                item.error, DataError | DeviceError | StorageError | NotFoundError
            ):
                done += 1
                text = f"network {item.errand.number} with seed {item.errand.course.seed}: {item.error}"
                emit(Notice(level="warning", text=text))
            elif item.error is not None:
                raise item.error
            else:
                done += 1
                emit(_told(item.errand, records, done, total))
    finally:
        todo.clear()
        for worker in workers:
            worker.close()


def _score(
    worker: Worker, errand: _Errand, images: int, checkpoint: Path | None, setting: Setting, emit: Callable[[Any], None]
) -> ProxyScore:
    arguments: Mapping[str, Any] = {
        "subject": errand.subject.to_dict(),
        "plan": setting.plan.to_dict(),
        "data": setting.described,
        "seed": errand.course.seed,
        "device": setting.training_device,
        "until": images,
        "checkpoint": None if checkpoint is None else str(checkpoint.absolute()),
    }
    return ProxyScore.from_dict(worker.call("hilo_nas.proxy.train:run_training", arguments, emit))


def _closed(record: TrialRecord, manifest: Manifest, courses: Sequence[Course]) -> TrialRecord:
    """The record, complete where no course is left to it."""
    mine = [course for course in courses if record.number < course.networks]
    if any(_missing(record, manifest, course) for course in mine):
        return record
    seconds = sum(score.seconds for score in record.scores)
    return dataclasses.replace(record, state="complete", finished_at=_now(), seconds=seconds)


def _told(errand: _Errand, records: Sequence[TrialRecord], done: int, total: int) -> SeedScored:
    mine = [score for score in records[errand.number].scores if score.seed == errand.course.seed]
    best = max(mine, key=lambda score: score.images_seen)
    return SeedScored(number=errand.number, seed=errand.course.seed, proxy_top1=best.proxy_top1, done=done, total=total)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
