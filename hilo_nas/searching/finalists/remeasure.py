"""Timing a study's networks again, side by side: its front before it is reported, or all of them under new facts.

New samples join the records, the newest first. A study stays on one kind of device under one software: where the
software, the driver, the protocol or the networks' form has changed, all networks are timed anew and the manifest says
so afterwards; for another device a new study is made, which takes over the scores.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence

from hilo_nas.clock import utc_now
from hilo_nas.errors import HiloNasError, OutOfMemoryError, UsageError
from hilo_nas.evaluation import DeviceReport, Evaluator, Inspect, evaluator_or_local, run_task
from hilo_nas.events import CohortTimed, Emit, Notice
from hilo_nas.measurement import Condition, DeviceIdentity, Measurement, kind_of_device
from hilo_nas.measurement.rounds import judge_cohort
from hilo_nas.searching.finalists.recalibration import renew_calibrations, violations_of
from hilo_nas.searching.opening.event_log import Journal
from hilo_nas.searching.opening.resume import differing_facts
from hilo_nas.searching.opening.study_lock import locked
from hilo_nas.searching.opening.study_setup import calibrate_all
from hilo_nas.searching.sampling.optuna_study import FITS, impute
from hilo_nas.searching.tasks.reasons import beyond, explain
from hilo_nas.searching.tasks.study_tasks import Resources, StudyTasks, time_together
from hilo_nas.space import LIMITS
from hilo_nas.study.calibration import read_timings
from hilo_nas.study.front import Front
from hilo_nas.study.local_settings import load_local, write_local
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy, new_study, open_study
from hilo_nas.study.transitions import interrupt, readmit, rule_out
from hilo_nas.text.commands import command
from hilo_nas.timing import TOGETHER
from hilo_nas.versions import versions

__all__ = ["RemeasureRequest", "run_remeasure", "time_again", "time_front"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemeasureRequest:
    """What is to be timed again."""

    study: str
    """A study's name or study."""
    device: str | None = None
    """Another device to time the whole study on; the study's own if left out."""
    into: str | None = None
    """Name of the study that is made for another device."""
    everything: bool = False
    """Whether all networks are timed, not only the front and those near it."""
    idle_timeout_s: float = 600.0
    timing_s: float | None = None
    """Seconds that each network is timed for at most."""


def run_remeasure(request: RemeasureRequest, emit: Emit, *, evaluator: Evaluator | None = None) -> StoredStudy:
    """Times a study's networks again and returns the study that holds the new samples.

    Args:
        request: What is to be timed again.
        emit: Told of the timing.
        evaluator: Who times; this machine if left out.

    Raises:
        NotFoundError: There is no such study.
        UsageError: It has no record of a timing, or its speeds were taken elsewhere, or the new study's name is taken.
        DeviceError: This machine does not have the device.
        StudyLockedError: A search is running in it.
        HiloNasError: The networks cannot be timed, or the disk cannot serve.
        KeyboardInterrupt: The user stopped it; what was timed before is as it was.
    """
    if request.timing_s is not None and not 0 < request.timing_s < math.inf:
        raise UsageError(f"seconds must be a number above 0, but got {request.timing_s:g}")
    source = open_study(request.study)
    manifest = source.manifest
    if manifest.speeds is not None:
        raise UsageError(
            f"the networks of study {source.name} were timed in study {manifest.speeds}. Time them again there, and "
            f"make a new study with --set study.speeds={manifest.speeds} --set study.reuse={source.name}."
        )
    if not any(_was_timed(record) for record in source.records):
        raise UsageError(f"study {source.name} has no timed network, so there is nothing to time again")
    name = request.device or manifest.objective.device
    kind_of_device(name)
    with evaluator_or_local(
        evaluator, source.logs_path, purpose=f"study {source.name}", idle_timeout_s=request.idle_timeout_s
    ) as evaluator:
        report = run_task(evaluator, Inspect(target=name), emit)
        if request.into is not None or _is_another(report.identity, manifest):
            return _time_elsewhere(request, source, manifest, report, evaluator, emit)
        resources = Resources(target=report.target, timing_s=request.timing_s)
        with locked(source), Journal(source.logs_path / "events.jsonl", emit) as journal:
            source = StoredStudy(source.path)
            manifest = source.manifest  # its total or its facts may have changed before the lock was ours
            facts = differing_facts(manifest, report, source.records, evaluator, journal)
            if facts:
                for fact, (stored, now) in facts.items():
                    journal(Notice(text=f"{fact} was {stored} and is {now}: all networks are timed again"))
                _time_anew(source, manifest, evaluator, resources, journal)
                source.write_csv_files()
                return source
            manifest = renew_calibrations(source, manifest, evaluator, resources, journal)
            if request.everything:
                records = [record for record in source.records if record.measurements]
                for condition in manifest.conditions:
                    time_again(source, manifest, records, condition, evaluator, resources, journal)
            else:
                time_front(source, manifest, evaluator, resources, journal, again=True)
            source.write_csv_files()
    return source


def time_front(
    study: StoredStudy,
    manifest: Manifest,
    evaluator: Evaluator,
    resources: Resources,
    emit: Emit,
    *,
    again: bool = False,
) -> None:
    """Times a study's front and the networks near it in the same rounds, unless that was done; the lock is held.

    The anchors and peers that they are compared with are among them, so that who beats whom is judged by rounds that
    all shared. As many as share their rounds: only a front that is longer than that, which is never cut, takes several
    cohorts.

    Args:
        study: The study.
        manifest: Its manifest.
        evaluator: Who times.
        resources: What the study's tasks refer to.
        emit: Told of the timing.
        again: Whether to do it even where they share their rounds already.
    """
    records = study.records
    references = [record for record in records if manifest.is_reference(record) and record.state == TrialState.COMPLETE]
    near = Front.from_records(records).near(at_most=TOGETHER - len(references))
    compared = [*near, *(record for record in references if record not in near)]
    cohorts = {record.measurement.cohort for record in compared if record.measurement}
    is_done = "" not in cohorts and len(cohorts) <= -(-len(compared) // TOGETHER)
    if not near or len(compared) < 2 or (is_done and not again):
        return
    time_again(study, manifest, compared, manifest.objective, evaluator, resources, emit)


def time_again(
    study: StoredStudy,
    manifest: Manifest,
    records: Sequence[TrialRecord],
    condition: Condition,
    evaluator: Evaluator,
    resources: Resources,
    emit: Emit,
) -> None:
    """Lets the new samples join the records; a network that can no longer be timed keeps what it has."""
    found = _time(records, condition, StudyTasks.of(manifest, resources), evaluator, emit)[0]
    timed = {record.number for record in records if record.key in found}
    latest = [
        _join(record, {condition.label(): found[record.key]}) if record.number in timed else record
        for record in study.records
    ]
    for record in read_timings(latest, manifest):
        if record.number in timed:
            study.write(_judged(record, manifest))


def _time_anew(study: StoredStudy, manifest: Manifest, evaluator: Evaluator, resources: Resources, emit: Emit) -> None:
    """Times every network that was ever timed, under every condition; the manifest follows once all are written."""
    calibrations = calibrate_all(manifest.conditions, evaluator, resources, emit)
    manifest = dataclasses.replace(manifest, calibrations=calibrations, versions=versions())
    records = [record for record in study.records if _was_timed(record)]
    timed, failures = _time_all(records, manifest, evaluator, resources, emit)
    for record in records:
        if record.key in failures:
            study.write(_failed(record, failures[record.key], records, manifest))
        elif record.key in timed:
            (joined,) = read_timings([_join(record, timed[record.key])], manifest)
            study.write(_judged(joined, manifest))
    study.write_manifest(manifest)


def _time_elsewhere(
    request: RemeasureRequest,
    source: StoredStudy,
    manifest: Manifest,
    report: DeviceReport,
    evaluator: Evaluator,
    emit: Emit,
) -> StoredStudy:
    """Makes a study for another device: the same networks and scores, timed there."""
    name = report.target.replace(":", "")
    target = StoredStudy(new_study(request.into or f"{source.name}-{name}").path)
    if target.exists:
        raise UsageError(
            f"the study for {report.target} would be {target.name}, but there is one of that name. Name another with "
            f"--study, or time that one again: {command('remeasure', target.address)}"
        )
    moved = [_on_device(condition, manifest.objective, report) for condition in manifest.conditions]
    conditions = tuple(dict.fromkeys(moved))
    anchors = {anchor.arch.key(): f"anchor:{anchor.name}" for anchor in manifest.space.anchors}
    resources = Resources(target=report.target, timing_s=request.timing_s)
    with locked(target), Journal(target.logs_path / "events.jsonl", emit) as journal:
        records = [
            record
            for record in source.records
            if _was_timed(record)
            and (record.is_measured or record.state == TrialState.TIMED or (record.is_peer and record.scores))
        ]
        manifest = dataclasses.replace(
            manifest,
            name=target.name,
            conditions=conditions,
            calibrations=calibrate_all(conditions, evaluator, resources, journal),
            limits=_limits_for(manifest, moved),
            versions=versions(),
            created_at=utc_now(),
            copied=0,
        )
        timed, failures = _time_all(records, manifest, evaluator, resources, journal)
        write_local(target.local_path, load_local(source.local_path).values)
        target.write_manifest(manifest)
        for record in records:
            if record.key in failures:
                timed_here = _failed(record, failures[record.key], records, manifest)
            elif record.key in timed:
                joined = _join(dataclasses.replace(record, measurements=()), timed[record.key])
                timed_here = _judged(read_timings([joined], manifest)[0], manifest)
            else:
                continue
            origin = record.origin if record.is_peer else f"reuse:{source.name}/{record.number}"
            origin = anchors.get(record.key, origin)
            target.write(dataclasses.replace(timed_here, origin=origin))
        target.write_csv_files()
    return target


def _is_another(identity: DeviceIdentity, manifest: Manifest) -> bool:
    """Whether a device is not the study's own: it is of another kind or model."""
    return (identity.kind, identity.model) != (manifest.device.kind, manifest.device.model)


def _on_device(condition: Condition, objective: Condition, report: DeviceReport) -> Condition:
    """A condition as another device has it; what it says of threads beside the objective stays."""
    kind, threads = report.identity.kind, report.threads
    if kind != "cpu":
        threads = None
    elif condition.threads != objective.threads:
        threads = condition.threads
    return dataclasses.replace(
        condition, device=kind, threads=threads, cuda_graph=condition.cuda_graph and kind == "cuda"
    )


def _was_timed(record: TrialRecord) -> bool:
    """Whether a trial came to be timed, though its network may not have fitted."""
    return bool(record.measurements) or FITS in record.violations


def _limits_for(manifest: Manifest, conditions: Sequence[Condition]) -> dict[str, float]:
    """The command line's limits under the labels that the conditions have on another device.

    Where two conditions are one there, the stricter of their limits holds.
    """
    labels = {old.label(): new.label() for old, new in zip(manifest.conditions, conditions, strict=True)}
    limits: dict[str, float] = {}
    for name, bound in manifest.limits.items():
        quantity, _, label = name.partition("@")
        label = labels.get(label, conditions[0].label())
        name = quantity if label == conditions[0].label() else f"{quantity}@{label}"
        stricter = max if LIMITS[quantity].is_floor else min
        limits[name] = stricter(bound, limits.get(name, bound))
    return limits


def _time_all(
    records: Sequence[TrialRecord], manifest: Manifest, evaluator: Evaluator, resources: Resources, emit: Emit
) -> tuple[dict[str, dict[str, Measurement]], dict[str, HiloNasError]]:
    """Returns each network's measurements by condition, and why some could not be timed, by key."""
    timed: dict[str, dict[str, Measurement]] = {}
    failures: dict[str, HiloNasError] = {}
    for condition in manifest.conditions:
        left = [record for record in records if record.key not in failures]
        found, missing = _time(left, condition, StudyTasks.of(manifest, resources), evaluator, emit)
        failures |= missing
        for key, measurement in found.items():
            timed.setdefault(key, {})[condition.label()] = measurement
    return {key: own for key, own in timed.items() if key not in failures}, failures


def _time(
    records: Sequence[TrialRecord], condition: Condition, tasks: StudyTasks, evaluator: Evaluator, emit: Emit
) -> tuple[Mapping[str, Measurement], Mapping[str, HiloNasError]]:
    start = time.monotonic()
    timing = time_together(evaluator, tasks.time([record.subject for record in records], condition), emit)
    if timing.measurements:
        judgement = judge_cohort(timing.measurements.values())
        emit(
            CohortTimed(
                networks=len(timing.measurements),
                condition=condition.label(),
                verdict=judgement.verdict,
                text=judgement.text,
                seconds=time.monotonic() - start,
            )
        )
    return timing.measurements, timing.failures


def _join(record: TrialRecord, found: Mapping[str, Measurement]) -> TrialRecord:
    """The record with its new measurements first."""
    return dataclasses.replace(record, measurements=(*found.values(), *record.measurements))


def _failed(
    record: TrialRecord, error: HiloNasError, records: Sequence[TrialRecord], manifest: Manifest
) -> TrialRecord:
    """The record of a network that cannot be timed under the new facts; under these, what it had is no speed."""
    record = dataclasses.replace(record, measurements=())
    if isinstance(error, OutOfMemoryError) and not record.is_peer:
        imputed = impute(records, chance_top1=manifest.chance)
        if record.scores:
            del imputed["value"]
        return rule_out(
            record,
            f"out of memory while timing: {error}",
            violations={**record.violations, FITS: 1.0},
            imputed={**imputed, **record.imputed},
        )
    return interrupt(record, str(error))


def _judged(record: TrialRecord, manifest: Manifest) -> TrialRecord:
    """The record in the state its values give: the winner must really keep its limits. Peers have none.

    Args:
        record: Its timings in the order in which they count.
        manifest: The study's.
    """
    if record.is_peer:
        return record
    limits, violations = manifest.limits_in_force, violations_of(record, manifest)
    record = dataclasses.replace(record, violations=violations)
    if not record.is_measured:
        return record
    if over := beyond(violations):
        return rule_out(record, f"{explain(over, record, limits)} (timed again)")
    return readmit(record, "it was timed again") if record.state == TrialState.INFEASIBLE else record
