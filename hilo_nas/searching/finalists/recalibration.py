"""Calibrations between searches: measured anew, replaced where they were wrong, and limits judged anew by them.

A calibration that was taken under load would otherwise last as long as its study, and every limit on images/s with it.
"""

from __future__ import annotations

import dataclasses
import math

from hilo_nas.evaluation import Evaluator, run_task
from hilo_nas.events import CalibrationChanged, CalibrationStarted, Emit
from hilo_nas.measurement import Calibration, Condition
from hilo_nas.measurement.intervals import Z95
from hilo_nas.measurement.rounds import judge_calibration
from hilo_nas.searching.tasks.reasons import beyond, explain
from hilo_nas.searching.tasks.study_tasks import Resources, calibration_of
from hilo_nas.space import KEPT_HARDLY, LIMITS, measured_chances, measured_violations
from hilo_nas.study.calibration import calibration_error
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.study.transitions import readmit, rule_out

__all__ = ["judge_limits_anew", "renew_calibrations", "violations_of"]


def renew_calibrations(
    study: StoredStudy, manifest: Manifest, evaluator: Evaluator, resources: Resources, emit: Emit
) -> Manifest:
    """Times the reference anew under each condition and returns the study's manifest with what had to change.

    A calibration is replaced where the new one is steady and the old value lies outside its 95 % interval. That changes
    how speeds are read and nothing else: no ratio, no hash, and not whether the study resumes. The lock is held.

    Raises:
        MeasurementError: The reference does not fit into memory.
    """
    changed: dict[str, Calibration] = {}
    for condition in manifest.conditions:
        label = condition.label()
        emit(CalibrationStarted(condition=label))
        old = manifest.calibrations[label]
        new = run_task(evaluator, calibration_of(condition, resources), emit).calibration
        assert new is not None, "nothing was timed beside the reference"
        if _replaces(new, old, condition):
            changed[label] = new
            emit(CalibrationChanged(condition=label, old_images_per_s=old.images_per_s, images_per_s=new.images_per_s))
    if changed:
        manifest = dataclasses.replace(manifest, calibrations={**manifest.calibrations, **changed})
        study.write_manifest(manifest)
    judge_limits_anew(study, manifest)  # also where a search was stopped between the two
    return manifest


def _replaces(new: Calibration, old: Calibration, condition: Condition) -> bool:
    if judge_calibration(new, threads=condition.threads).verdict != "steady":
        return False  # `calibrate` said so
    return abs(math.log(old.images_per_s / new.images_per_s)) > Z95 * calibration_error(new, threads=condition.threads)


def judge_limits_anew(study: StoredStudy, manifest: Manifest) -> None:
    """Brings trials into the state that their limits ask for by the calibrations in force.

    A network that was infeasible and keeps its limits after all is due again, with what was measured of it; one that
    was trained and now keeps a limit with less than 5 % becomes infeasible. What lies between stays as it is.
    """
    if not any(not LIMITS[name.partition("@")[0]].is_free for name in manifest.limits_in_force):
        return
    for record in study.records:
        judged = _judged_anew(record, manifest)
        if judged.state != record.state:
            study.write(judged)


def _judged_anew(record: TrialRecord, manifest: Manifest) -> TrialRecord:
    first = record.measurement
    if record.is_peer or not record.is_measured or first is None or not manifest.is_comparable(first):
        return record
    limits, violations = manifest.limits_in_force, violations_of(record, manifest)
    over = beyond(violations)
    if record.state == TrialState.INFEASIBLE:
        if over:
            return record
        return readmit(dataclasses.replace(record, violations=violations), "the reference was calibrated anew")
    chances = measured_chances(limits, record.measurements)
    surely = {name: value for name, value in over.items() if chances.get(name, 0.0) < KEPT_HARDLY}
    if not surely:
        return record
    reason = f"{explain(surely, record, limits)} (since the reference was calibrated anew)"
    return rule_out(record, reason, violations=violations)


def violations_of(record: TrialRecord, manifest: Manifest) -> dict[str, float]:
    """Returns the violations by a record's measurements, and by formulas as they are stored."""
    limits = manifest.limits_in_force
    free = [name for name in limits if LIMITS[name.partition("@")[0]].is_free and name in record.violations]
    return {**{name: record.violations[name] for name in free}, **measured_violations(limits, record.measurements)}
