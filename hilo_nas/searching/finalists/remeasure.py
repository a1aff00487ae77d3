"""Repeated timing of a study's networks in shared rounds: the front, or all networks.

New measurements are added to the records, newest first. A study keeps one kind of device and one software environment.
If the software, the driver, the timing protocol or the form of the networks has changed, all networks are timed again
and the manifest is updated. For another device, a new study with copies of the scores is created.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hilo_nas.clock import utc_now
from hilo_nas.errors import HiloNasError, OutOfMemoryError, UsageError
from hilo_nas.evaluation import DeviceReport, Evaluator, evaluator_or_local
from hilo_nas.events import CohortTimed, Emit, Notice
from hilo_nas.measurement import Condition, DeviceIdentity, Measurement, kind_of_device
from hilo_nas.measurement.verdicts import judge_cohort
from hilo_nas.searching.finalists.recalibration import free_violations_of, update_calibrations, violations_of
from hilo_nas.searching.finalists.stage_timing import time_stages
from hilo_nas.searching.opening.event_log import EventLog
from hilo_nas.searching.opening.resume import differing_facts
from hilo_nas.searching.opening.study_lock import locked
from hilo_nas.searching.opening.study_setup import calibrate_all
from hilo_nas.searching.sampling.optuna_study import impute
from hilo_nas.searching.tasks.reasons import explain_violations
from hilo_nas.searching.tasks.study_targets import find_objective, find_targets, further_devices, read_forms
from hilo_nas.searching.tasks.study_tasks import Resources, StudyTasks, time_together
from hilo_nas.space import LIMITS, broken_limits
from hilo_nas.study.calibration import read_timings
from hilo_nas.study.front import Front
from hilo_nas.study.further_conditions import first_per_target
from hilo_nas.study.local_settings import load_local, write_local
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import FITS, TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy, new_study, open_study
from hilo_nas.study.transitions import interrupt, readmit, rule_out
from hilo_nas.text.commands import command
from hilo_nas.timing import TOGETHER
from hilo_nas.versions import versions

__all__ = ["RemeasureRequest", "run_remeasure", "time_again", "time_front"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemeasureRequest:
    """Request to time networks of a study again."""

    study: str
    """Name or folder of the study."""
    device: str | None = None
    """Another device to time the whole study on; the study's device if left out."""
    into: str | None = None
    """Name of the new study for another device."""
    everything: bool = False
    """True to time all networks, False for the front and nearby networks."""
    idle_timeout_s: float = 600.0
    timing_s: float | None = None
    """Maximum seconds of timing per network."""


def run_remeasure(request: RemeasureRequest, emit: Emit, *, evaluator: Evaluator | None = None) -> StoredStudy:
    """Times networks of a study again and returns the study with the new measurements.

    Args:
        request: Study, device and extent of the timing.
        emit: Receives all events.
        evaluator: Times the networks; workers on this machine if left out.

    Raises:
        NotFoundError: The study does not exist.
        UsageError: The study has no timings, its timings are copies, or the name of the new study is taken.
        DeviceError: This machine does not have the device.
        StudyLockedError: A search is running in the study.
        HiloNasError: The networks cannot be timed, or the disk fails.
        KeyboardInterrupt: The user stopped the timing. Earlier timings are kept.
    """
    if request.timing_s is not None and not 0 < request.timing_s < math.inf:
        raise UsageError(f"seconds must be a number above 0, but got {request.timing_s:g}")
    source = open_study(request.study)
    manifest = source.manifest
    if manifest.speeds is not None:
        raise UsageError(
            f"the networks of study {source.name} were timed in study {manifest.speeds}. Time them again there, then "
            f"create a new study with --set study.speeds={manifest.speeds} --set study.reuse={source.name}."
        )
    if not any(_was_timed(record) for record in source.records):
        raise UsageError(f"study {source.name} must have a timed network, but has none. Resume its search first.")
    if request.device is not None:
        kind_of_device(request.device)
    with (
        _logs_of(source) as logs,
        evaluator_or_local(
            evaluator, logs, purpose=f"study {source.name}", idle_timeout_s=request.idle_timeout_s
        ) as evaluator,
    ):
        report = find_objective(manifest, request.device, evaluator, emit)
        if request.into is not None or _is_other_device(report.identity, manifest):
            return _remeasure_on_device(request, source, manifest, report, evaluator, emit)
        further = find_targets(manifest, report.target, evaluator, emit)
        resources = Resources(target=report.target, further=further_devices(further), timing_s=request.timing_s)
        with locked(source), EventLog(source.logs_path / "events.jsonl", emit) as event_log:
            source = StoredStudy(source.path)
            manifest = source.manifest  # it may have changed before this process got the lock
            read = functools.partial(read_forms, resources=resources, evaluator=evaluator, emit=event_log)
            facts = differing_facts(manifest, report.identity, further, source.records, read)
            if facts:
                for fact, (stored, now) in facts.items():
                    event_log(Notice(text=f"{fact} was {stored} and is {now}: all networks are timed again"))
                _remeasure_all(source, manifest, evaluator, resources, event_log)
                time_stages(source, source.manifest, evaluator, resources, event_log, again=True)
                source.write_csv_files()
                return source
            manifest = update_calibrations(source, manifest, evaluator, resources, event_log)
            if request.everything:
                records = [record for record in source.records if record.full_measurements]
                for condition in manifest.conditions:
                    time_again(source, manifest, records, condition, evaluator, resources, event_log)
            else:
                time_front(source, manifest, evaluator, resources, event_log, again=True)
            time_stages(source, manifest, evaluator, resources, event_log, again=True)
            source.write_csv_files()
    return source


@contextlib.contextmanager
def _logs_of(study: StoredStudy) -> Iterator[Path]:
    """Yields the folder for the output of the workers: a temporary one if the study is read-only."""
    if os.access(study.path, os.W_OK):
        yield study.logs_path
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)


def time_front(
    study: StoredStudy,
    manifest: Manifest,
    evaluator: Evaluator,
    resources: Resources,
    emit: Emit,
    *,
    again: bool = False,
) -> None:
    """Times the front of each target and nearby networks in shared rounds, unless they already share rounds.

    Anchors and baselines are included, so that comparisons use shared rounds. Nearby networks are added until one
    cohort is full. A front that is larger than a cohort is timed in several cohorts, because no member is left out.

    Args:
        study: The study; this process holds its lock.
        manifest: Manifest of the study.
        evaluator: Times the networks.
        resources: Target device and references that the tasks use.
        emit: Receives all events.
        again: True to repeat the timing even if the networks already share rounds.
    """
    for condition in first_per_target(manifest.conditions):
        _time_front(study, manifest, condition, evaluator, resources, emit, again=again)


def _time_front(
    study: StoredStudy,
    manifest: Manifest,
    condition: Condition,
    evaluator: Evaluator,
    resources: Resources,
    emit: Emit,
    *,
    again: bool,
) -> None:
    """Times the front under one condition (`time_front`)."""
    records, label = study.records, condition.label()
    references = [record for record in records if manifest.is_reference(record) and record.state == TrialState.COMPLETE]
    own = None if condition == manifest.objective else label
    near = Front.from_records(records, own).near(at_most=TOGETHER - len(references))
    compared = [*near, *(record for record in references if record not in near)]
    timed = [record.measurements_by_condition().get(label) for record in compared]
    cohorts = {measurement.cohort for measurement in timed if measurement}
    is_done = "" not in cohorts and len(cohorts) <= -(-len(compared) // TOGETHER)
    if not near or len(compared) < 2 or (is_done and not again):
        return
    time_again(study, manifest, compared, condition, evaluator, resources, emit)


def time_again(
    study: StoredStudy,
    manifest: Manifest,
    records: Sequence[TrialRecord],
    condition: Condition,
    evaluator: Evaluator,
    resources: Resources,
    emit: Emit,
) -> None:
    """Adds new measurements to records. A network that can no longer be timed keeps its old ones."""
    found = _time(records, condition, StudyTasks.of(manifest, resources), evaluator, emit)[0]
    timed = {record.number for record in records if record.key in found}
    latest = [
        _add_measurements(record, {condition.label(): found[record.key]}) if record.number in timed else record
        for record in study.records
    ]
    for record in read_timings(latest, manifest):
        if record.number in timed:
            study.write(_apply_limits(record, manifest))


def _remeasure_all(
    study: StoredStudy, manifest: Manifest, evaluator: Evaluator, resources: Resources, emit: Emit
) -> None:
    """Times every network that was timed in full, under every condition. The manifest is written after all records.

    Brief timings are discarded. The sampler chooses again which networks are timed before its next proposal.
    """
    calibrations = calibrate_all(manifest.conditions, evaluator, resources, emit)
    manifest = dataclasses.replace(manifest, calibrations=calibrations, versions=versions())
    records = [record for record in study.records if _was_timed(record)]
    timed, failures = _time_all(records, manifest, evaluator, resources, emit)
    for record in study.records:
        if record.is_timed_briefly:
            free = free_violations_of(record, manifest)
            study.write(dataclasses.replace(record, measurements=(), violations=free, sampler_memory={}))
    for record in records:
        if record.key in failures:
            study.write(_without_speed(record, failures[record.key], records, manifest))
        elif record.key in timed:
            (joined,) = read_timings([_add_measurements(record, timed[record.key])], manifest)
            study.write(_apply_limits(joined, manifest))
    study.write_manifest(manifest)


def _remeasure_on_device(
    request: RemeasureRequest,
    source: StoredStudy,
    manifest: Manifest,
    report: DeviceReport,
    evaluator: Evaluator,
    emit: Emit,
) -> StoredStudy:
    """Creates a study for another device: the same networks and scores, timed on that device.

    It has the conditions on the target of the objective, and leaves out those on further targets.
    """
    name = report.target.replace(":", "")
    target = StoredStudy(new_study(request.into or f"{source.name}-{name}").path)
    if target.exists:
        raise UsageError(
            f"the name of the study for {report.target} must be new, but {target.name} exists. Use another name with "
            f"--study, or time that study again: {command('remeasure', target.address)}"
        )
    own = [condition for condition in manifest.conditions if condition.shares_target(manifest.objective)]
    translated = [_on_device(condition, manifest.objective, report) for condition in own]
    conditions = tuple(dict.fromkeys(translated))
    anchors = {anchor.arch.key(): f"anchor:{anchor.name}" for anchor in manifest.space.anchors}
    resources = Resources(target=report.target, timing_s=request.timing_s)
    with locked(target), EventLog(target.logs_path / "events.jsonl", emit) as event_log:
        records = [
            record
            for record in source.records
            if _was_timed(record)
            and (record.is_measured or record.state == TrialState.TIMED or (record.is_baseline and record.scores))
        ]
        manifest = dataclasses.replace(
            manifest,
            name=target.name,
            conditions=conditions,
            calibrations=calibrate_all(conditions, evaluator, resources, event_log),
            limits=_limits_for(manifest, dict(zip(own, translated, strict=True))),
            versions=versions(),
            created_at=utc_now(),
            copied=0,
        )
        timed, failures = _time_all(records, manifest, evaluator, resources, event_log)
        write_local(target.local_path, load_local(source.local_path).values)
        target.write_manifest(manifest)
        for record in records:
            if record.key in failures:
                timed_here = _without_speed(record, failures[record.key], records, manifest)
            elif record.key in timed:
                joined = _add_measurements(dataclasses.replace(record, measurements=()), timed[record.key])
                timed_here = _apply_limits(read_timings([joined], manifest)[0], manifest)
            else:
                continue
            origin = record.origin if record.is_baseline else f"reuse:{source.name}/{record.number}"
            origin = anchors.get(record.key, origin)
            target.write(dataclasses.replace(timed_here, origin=origin))
        time_stages(target, manifest, evaluator, resources, event_log, again=True)
        target.write_csv_files()
    return target


def _is_other_device(identity: DeviceIdentity, manifest: Manifest) -> bool:
    """Returns True if the kind or model of the device differs from the study's."""
    return (identity.kind, identity.model) != (manifest.device.kind, manifest.device.model)


def _on_device(condition: Condition, objective: Condition, report: DeviceReport) -> Condition:
    """Returns a condition translated to another device. A thread count that differs from the objective's is kept."""
    kind, threads = report.identity.kind, report.threads
    if kind != "cpu":
        threads = None
    elif condition.threads != objective.threads:
        threads = condition.threads
    return dataclasses.replace(
        condition, device=kind, threads=threads, cuda_graph=condition.cuda_graph and kind == "cuda"
    )


def _was_timed(record: TrialRecord) -> bool:
    """Returns True if a trial was timed in full, including networks that did not fit into memory."""
    return bool(record.full_measurements) or FITS in record.violations


def _limits_for(manifest: Manifest, translated: Mapping[Condition, Condition]) -> dict[str, float]:
    """Returns the limits from the search settings, renamed for another device.

    `latency_ms@cpu-b1-224px-fp32` becomes `latency_ms@cuda-b1-224px-fp32`, for example. If two conditions become equal
    on that device, the stricter limit holds. Limits under conditions that are not translated are left out.
    """
    labels = {old.label(): new.label() for old, new in translated.items()}
    objective = translated[manifest.objective].label()
    limits: dict[str, float] = {}
    for name, bound in manifest.limits.items():
        quantity, _, label = name.partition("@")
        if label and label not in labels:
            continue
        label = labels.get(label, objective)
        name = quantity if label == objective else f"{quantity}@{label}"
        stricter = max if LIMITS[quantity].is_floor else min
        limits[name] = stricter(bound, limits.get(name, bound))
    return limits


def _time_all(
    records: Sequence[TrialRecord], manifest: Manifest, evaluator: Evaluator, resources: Resources, emit: Emit
) -> tuple[dict[str, dict[str, Measurement]], dict[str, HiloNasError]]:
    """Returns the measurements of each network by condition, and the errors of networks that failed, both by key."""
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


def _add_measurements(record: TrialRecord, found: Mapping[str, Measurement]) -> TrialRecord:
    """Returns the record with the new measurements (by condition) before its old ones."""
    return dataclasses.replace(record, measurements=(*found.values(), *record.measurements))


def _without_speed(
    record: TrialRecord, error: HiloNasError, records: Sequence[TrialRecord], manifest: Manifest
) -> TrialRecord:
    """Returns the record of a network that cannot be timed in the new environment, without its old measurements."""
    record = dataclasses.replace(record, measurements=())
    if isinstance(error, OutOfMemoryError) and not record.is_baseline:
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


def _apply_limits(record: TrialRecord, manifest: Manifest) -> TrialRecord:
    """Returns the record in the state that follows from its measurements and the limits. Baselines have no limits.

    Args:
        record: Record with its timings in order of precedence.
        manifest: Manifest of the study.
    """
    if record.is_baseline:
        return record
    limits, violations = manifest.limits_in_force, violations_of(record, manifest)
    record = dataclasses.replace(record, violations=violations)
    if not record.is_measured:
        return record
    if over := broken_limits(violations):
        return rule_out(record, f"{explain_violations(over, record, limits)} (timed again)")
    return readmit(record, "it was timed again") if record.state == TrialState.INFEASIBLE else record
