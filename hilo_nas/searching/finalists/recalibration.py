"""Recalibration between searches: wrong calibrations are replaced, and limits are checked again.

Otherwise, a calibration under load would affect all limits on images/s for the lifetime of the study.
"""

from __future__ import annotations

import dataclasses
import math

from hilo_nas.evaluation import Evaluator, run_task
from hilo_nas.events import CalibrationChanged, CalibrationStarted, Emit
from hilo_nas.measurement import Calibration, Condition
from hilo_nas.measurement.intervals import Z95
from hilo_nas.measurement.verdicts import judge_calibration
from hilo_nas.searching.tasks.equal_devices import check_equal_speeds, is_compared
from hilo_nas.searching.tasks.reasons import explain_violations
from hilo_nas.searching.tasks.study_tasks import Resources, calibration_of
from hilo_nas.space import KEPT_HARDLY, LIMITS, broken_limits, measured_chances, measured_violations
from hilo_nas.study.calibration import calibration_error
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.study.transitions import readmit, rule_out

__all__ = ["free_violations_of", "recheck_limits", "update_calibrations", "violations_of"]


def update_calibrations(
    study: StoredStudy, manifest: Manifest, evaluator: Evaluator, resources: Resources, emit: Emit
) -> Manifest:
    """Times the reference again under each condition and returns the updated manifest.

    A calibration is replaced if the new one is steady and the old value is outside its 95 % interval. Only the images/s
    that are computed from the records change. The stored ratios and hashes stay the same, and the study can still be
    resumed. The caller must hold the study's lock.

    Raises:
        DeviceError: The devices of a target are not equally fast.
        MeasurementError: The reference does not fit into memory.
    """
    changed: dict[str, Calibration] = {}
    for condition in manifest.conditions:
        label = condition.label()
        emit(CalibrationStarted(condition=label))
        old = manifest.calibrations[label]
        new = run_task(evaluator, calibration_of(condition, resources), emit).calibration
        assert new is not None, "the task must time only the reference"
        if is_compared(condition, manifest.conditions, resources):
            new = check_equal_speeds(condition, new, evaluator, resources, emit)
        if _replaces(new, old, condition):
            changed[label] = new
            emit(CalibrationChanged(condition=label, old_images_per_s=old.images_per_s, images_per_s=new.images_per_s))
    if changed:
        manifest = dataclasses.replace(manifest, calibrations={**manifest.calibrations, **changed})
        study.write_manifest(manifest)
    recheck_limits(study, manifest)  # always, because an earlier search may have been killed before this step
    return manifest


def _replaces(new: Calibration, old: Calibration, condition: Condition) -> bool:
    if judge_calibration(new, threads=condition.threads).verdict != "steady":
        return False  # the timing has already reported it
    return abs(math.log(old.images_per_s / new.images_per_s)) > Z95 * calibration_error(new, threads=condition.threads)


def recheck_limits(study: StoredStudy, manifest: Manifest) -> None:
    """Updates the states of trials after a change of calibrations.

    An infeasible network that now meets its limits is feasible again (`readmit`) and keeps its measurements. A trained
    network becomes infeasible if the probability that it meets a limit is below 5 %. Other trials are not changed.
    """
    if not any(not LIMITS[name.partition("@")[0]].is_free for name in manifest.limits_in_force):
        return
    for record in study.records:
        judged = _recheck(record, manifest)
        if judged.state != record.state:
            study.write(judged)


def _recheck(record: TrialRecord, manifest: Manifest) -> TrialRecord:
    first = record.measurement
    if record.is_baseline or not record.is_measured or first is None or not manifest.is_comparable(first):
        return record
    limits, violations = manifest.limits_in_force, violations_of(record, manifest)
    over = broken_limits(violations)
    if record.state == TrialState.INFEASIBLE:
        if over:
            return record
        return readmit(dataclasses.replace(record, violations=violations), "the calibration has changed")
    chances = measured_chances(limits, record.measurements)
    certain = {name: value for name, value in over.items() if chances.get(name, 0.0) < KEPT_HARDLY}
    if not certain:
        return record
    reason = f"{explain_violations(certain, record, limits)} (since the calibration has changed)"
    return rule_out(record, reason, violations=violations)


def violations_of(record: TrialRecord, manifest: Manifest) -> dict[str, float]:
    """Returns the violation of each limit, by the name of the limit.

    For limits on measured quantities, it is computed from the record's measurements. For limits on params and MACs, it
    is the stored one.
    """
    measured = measured_violations(manifest.limits_in_force, record.measurements)
    return {**free_violations_of(record, manifest), **measured}


def free_violations_of(record: TrialRecord, manifest: Manifest) -> dict[str, float]:
    """Returns the stored violations of the limits on params and MACs, by the name of the limit."""
    limits = [name for name in manifest.limits_in_force if LIMITS[name.partition("@")[0]].is_free]
    return {name: record.violations[name] for name in limits if name in record.violations}
