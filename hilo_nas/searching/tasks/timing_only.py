"""Timing without training: studies without a proxy, and the first part of a sweep.

Networks are timed in cohorts with shared rounds, one cohort at a time on each device. The timings of a cohort under a
condition are stored as soon as they are made.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence

from hilo_nas.arch.cost import count_cost
from hilo_nas.clock import utc_now
from hilo_nas.errors import UsageError
from hilo_nas.evaluation import Evaluator, Steps, Time, drive, run_steps
from hilo_nas.evaluation.named_networks import find_network
from hilo_nas.events import Emit, NetworksTimed, SearchFinished, SearchStarted
from hilo_nas.measurement import ProxyPlan
from hilo_nas.searching.configuration.resolve import RANDOM
from hilo_nas.searching.tasks.study_tasks import StudyTasks, describe_target, together
from hilo_nas.space import find_params, list_networks
from hilo_nas.study.calibration import read_timings, timings_under
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import Subject, TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.study.transitions import fail, mark_timed

__all__ = ["check_time_only", "time_networks", "time_only"]

_TOGETHER = 16


def check_time_only(
    plan: ProxyPlan, *, networks: Sequence[str], sampler: str | None, speeds: str | None, reuse: str | None
) -> None:
    """Checks settings that depend on whether a study has a proxy.

    Args:
        plan: Plan of the study.
        networks: Value of `search.networks`.
        sampler: Value of `search.sampler`.
        speeds: Value of `study.speeds`.
        reuse: Value of `study.reuse`.

    Raises:
        UsageError: A setting has no effect for this study, or a listed network is not an architecture. The message
            lists all faults.
        NotFoundError: A listed network does not exist.
    """
    if plan.declaration.gives_scores:
        if networks:
            raise UsageError("search.networks is only valid for a study without a proxy. Leave it out.")
        return
    faults = [
        f"{setting} has no effect without a proxy, because the networks are timed here. Leave it out."
        for setting, value in (("study.speeds", speeds), ("study.reuse", reuse))
        if value is not None
    ]
    if sampler not in (None, RANDOM):
        faults.append(f"search.sampler must be {RANDOM} without a proxy, but got {sampler!r}. Leave it out.")
    for name in networks:
        subject = find_network(name).subject
        if "arch" not in subject:
            faults.append(
                f"search.networks must be architectures, but got {name}. Name timm's networks in search.baselines."
            )
        if "img_size" in subject:
            faults.append(f"search.networks must use the study's image size, but got {name}. Leave out the size.")
    if faults:
        raise UsageError("\n".join(faults))


def time_only(
    study: StoredStudy,
    evaluator: Evaluator,
    tasks: StudyTasks,
    emit: Emit,
    *,
    networks: Sequence[str] = (),
    timeout_s: float | None = None,
) -> SearchFinished:
    """Times the networks of a study without a proxy: listed ones, baselines, anchors, and random ones.

    Random networks fill the study up to the manifest's `trials`. They meet the limits of the space on params and MACs,
    and depend only on the seed. Networks that have been timed are not timed again.

    Args:
        study: The study; this process holds its lock.
        evaluator: Times the networks.
        tasks: Builds the tasks.
        emit: Receives all events.
        networks: Names of listed networks, validated by `check_time_only`.
        timeout_s: Seconds after which no new cohort begins; None for no limit.

    Raises:
        HiloNasError: The device, the reference or the disk fails.
    """
    start, manifest = time.monotonic(), study.manifest
    for record in _listed(networks, study):
        study.write(record)
    done = sum(map(manifest.counts, study.records))
    emit(
        SearchStarted(
            study=study.name,
            done=done,
            total=manifest.trials,
            device=describe_target(manifest, tasks.resources.target),
            metric=manifest.plan.score_metric,
        )
    )
    due = _due(study)
    stopped_by = "total" if done + sum(not record.is_baseline for record in due) >= manifest.trials else "exhausted"
    groups, timed = deque(due[first : first + _TOGETHER] for first in range(0, len(due), _TOGETHER)), 0

    def begin_next() -> Steps[None] | None:
        nonlocal stopped_by
        if groups and timeout_s is not None and time.monotonic() - start >= timeout_s:
            stopped_by = "timeout"
            groups.clear()
        return time_group(groups.popleft()) if groups else None

    def time_group(group: Sequence[TrialRecord]) -> Steps[None]:
        nonlocal timed
        yield from _timing(group, study, tasks, emit)
        timed += len(group)
        emit(NetworksTimed(done=timed, total=len(due)))

    drive(begin_next, evaluator, emit, at_once=evaluator.slots(Time.kind))
    return SearchFinished(
        study=study.name,
        measured=sum(map(manifest.counts, study.records)),
        total=manifest.trials,
        stopped_by=stopped_by,
        seconds=time.monotonic() - start,
    )


def time_networks(
    records: Sequence[TrialRecord], study: StoredStudy, evaluator: Evaluator, tasks: StudyTasks, emit: Emit
) -> None:
    """Times networks in shared rounds under each condition of a study, and writes their records.

    A network that cannot be timed is stored as failed.

    Args:
        records: Records of the networks. They need not be stored yet.
        study: The study.
        evaluator: Times the networks.
        tasks: Builds the tasks.
        emit: Receives all events.

    Raises:
        HiloNasError: The device, the reference or the disk fails.
    """
    run_steps(evaluator, _timing(records, study, tasks, emit), emit)


def _timing(records: Sequence[TrialRecord], study: StoredStudy, tasks: StudyTasks, emit: Emit) -> Steps[None]:
    """Times networks in shared rounds and writes their records (`time_networks`).

    Timings are written after each condition. A network with a comparable timing under a condition is not timed again.
    """
    manifest, begun = study.manifest, utc_now()
    timed = {record.key: _with_cost(dataclasses.replace(record, started_at=begun), manifest) for record in records}
    for condition in manifest.conditions:
        start = time.monotonic()
        left = [record for record in timed.values() if not timings_under(record, condition, manifest)]
        timing = yield from together(tasks.time([record.subject for record in left], condition), emit)
        seconds = (time.monotonic() - start) / max(len(left), 1)
        for record in left:
            record = dataclasses.replace(record, seconds=record.seconds + seconds)
            if record.key in timing.failures:
                del timed[record.key]
                study.write(fail(record, str(timing.failures[record.key]), finished_at=utc_now()))
            else:
                timings = (timing.measurements[record.key], *record.measurements)
                (record,) = read_timings([dataclasses.replace(record, measurements=timings)], manifest)
                timed[record.key] = record
                if condition != manifest.conditions[-1]:
                    study.write(record)
    for record in timed.values():
        study.write(mark_timed(record, finished_at=utc_now()))


def _with_cost(record: TrialRecord, manifest: Manifest) -> TrialRecord:
    arch = record.subject.arch
    if arch is None:
        return record
    cost = count_cost(arch, manifest.objective.img_size, num_classes=manifest.data.num_classes)
    return dataclasses.replace(record, parameters=cost.parameters, macs=cost.macs)


def _listed(networks: Sequence[str], study: StoredStudy) -> Iterator[TrialRecord]:
    """Yields new records for the listed networks that the study does not contain."""
    known = {record.key for record in study.records}
    numbers = itertools.count(max((record.number for record in study.records), default=-1) + 1)
    for name in networks:
        subject = Subject.from_dict(find_network(name).subject)
        assert subject.arch is not None, "check_time_only must have been called"
        if subject.key not in known:
            known.add(subject.key)
            yield _waiting(next(numbers), subject, "listed", find_params(study.manifest.space, subject.arch))


def _due(study: StoredStudy) -> list[TrialRecord]:
    """Returns the records of the networks that must still be timed. New networks get the next trial numbers."""
    manifest, space = study.manifest, study.manifest.space
    due = [record for record in study.records if record.is_open and record.state != TrialState.TIMED]
    known = {record.key for record in study.records}
    numbers = itertools.count(max((record.number for record in study.records), default=-1) + 1)
    for baseline in manifest.baselines:
        subject = Subject(timm=baseline.removeprefix("timm:"))
        if subject.key not in known:
            due.append(_waiting(next(numbers), subject, f"baseline:{subject.timm}", None))
    left = manifest.trials - sum(map(manifest.counts, study.records)) - sum(not record.is_baseline for record in due)
    if left <= 0:
        return due
    new: dict[str, TrialRecord] = {}
    for anchor in space.anchors:
        if (subject := Subject(arch=anchor.arch)).key not in known:
            new.setdefault(subject.key, _waiting(0, subject, f"anchor:{anchor.name}", find_params(space, anchor.arch)))
    drawn = list_networks(
        space,
        img_size=manifest.objective.img_size,
        num_classes=manifest.data.num_classes,
        count=manifest.trials + len(known),
        seed=manifest.seed,
    )
    for arch, params in drawn:
        if (subject := Subject(arch=arch)).key not in known:
            new.setdefault(subject.key, _waiting(0, subject, RANDOM, params))
    chosen = itertools.islice(new.values(), left)
    return [*due, *(dataclasses.replace(record, number=next(numbers)) for record in chosen)]


def _waiting(number: int, subject: Subject, origin: str, params: dict[str, int] | None) -> TrialRecord:
    return TrialRecord(number=number, subject=subject, state=TrialState.WAITING, params=params, origin=origin)
