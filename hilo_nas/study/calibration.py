"""Timings of a study in images/s, computed with the current calibration when the study is read.

A record stores the rounds of each timing and the ratio of the network's speed to the reference's speed in these rounds.
Images/s are that ratio times the calibrated speed of the reference. When the calibration is replaced, all speeds of the
study follow the new one.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from random import Random

from hilo_nas.measurement import Calibration, Condition, Measurement, find_contention
from hilo_nas.measurement.rounds import fast_seconds
from hilo_nas.measurement.verdicts import cohort_quality
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord

__all__ = ["anchored", "calibration_error", "comparable_timings", "read_timings", "timings_under"]

_BETWEEN_CALIBRATIONS = 0.02
"""Relative standard error of a calibration in addition to the error of its rounds.

Between passes, the absolute speed of a network varied by 1.4 % on a quiet machine and by 2.8 % on a machine with bursts
of load (mean of the rounds, two shared CPU cores, `hilo-nas bench ruler`, report in benchmarks/).
"""
_RESAMPLES = 300


def calibration_error(calibration: Calibration, *, threads: int | None) -> float:
    """Returns the relative standard error of the reference's calibrated speed.

    It combines the error of the calibration's rounds, the variation between timings, and the error due to other
    processes that used the same cores.

    Args:
        calibration: The calibration.
        threads: Number of threads in the calibration's condition.
    """
    contention = find_contention(calibration.device_state, threads=threads, device=calibration.device)
    others = 0.0 if contention is None else contention.relative_error
    return math.hypot(_error_of_rounds(calibration.call_seconds), _BETWEEN_CALIBRATIONS, others)


@functools.lru_cache(maxsize=64)
def _error_of_rounds(rounds: Sequence[float]) -> float:
    random = Random(0)  # the same rounds always have the same error
    logs = [math.log(fast_seconds(random.choices(rounds, k=len(rounds)))) for _ in range(_RESAMPLES)]
    return statistics.pstdev(logs)


def anchored(measurement: Measurement, calibration: Calibration) -> Measurement:
    """Returns a copy of a measurement whose images/s are computed with the reference's speed in a calibration.

    A measurement without rounds keeps its stored reference speed.
    """
    has_rounds = measurement.call_seconds and measurement.reference_seconds
    return dataclasses.replace(
        measurement,
        reference_images_per_s=calibration.images_per_s if has_rounds else measurement.reference_images_per_s,
        calibration_error=calibration_error(calibration, threads=measurement.threads),
    )


def comparable_timings(record: TrialRecord, manifest: Manifest) -> tuple[Measurement, ...]:
    """Returns the measurements of a record that a study uses as its own, without the brief ones, in their order."""
    return tuple(own for own in record.full_measurements if manifest.is_comparable(own))


def timings_under(record: TrialRecord, condition: Condition, manifest: Manifest) -> int:
    """Returns the number of comparable timings of a record under a condition."""
    return sum(own.condition.label() == condition.label() for own in comparable_timings(record, manifest))


def read_timings(records: Sequence[TrialRecord], manifest: Manifest) -> list[TrialRecord]:
    """Returns a study's records with calibrated and sorted measurements.

    The first measurement of a record under a condition is the one that all results use. The sorting criteria, in
    decreasing priority, are:

    1. Measurements that match the manifest (condition, device, protocol) come first, in the order of its conditions.
    2. Under one condition, full measurements come before brief ones (`Measurement.is_preliminary`).
    3. Measurements in the most recently timed form come first.
    4. A measurement from a cohort of better quality comes first. Networks timed in the same rounds form a cohort.
    5. A more recent measurement comes first.
    """
    verdicts = _cohort_qualities(records)
    return [_read(record, manifest, verdicts) for record in records]


def _read(record: TrialRecord, manifest: Manifest, verdicts: Mapping[str, int]) -> TrialRecord:
    if not record.measurements:
        return record
    ranks = [manifest.rank_of(measurement) for measurement in record.measurements]
    timed = [
        anchored(measurement, manifest.calibrations[measurement.condition.label()])
        if rank < len(manifest.conditions)
        else measurement
        for measurement, rank in zip(record.measurements, ranks, strict=True)
    ]
    # A file usually lists the newest first. A search may have written them in the order of reading instead.
    newest_first = sorted(range(len(timed)), key=lambda i: timed[i].measured_at, reverse=True)
    forms: dict[tuple[int, bool], str] = {}
    for i in newest_first:
        forms.setdefault((ranks[i], timed[i].is_preliminary), timed[i].form)

    def key(i: int) -> tuple[int, bool, bool, int]:
        measurement, rank = timed[i], ranks[i]
        if rank == len(manifest.conditions):
            return rank, False, False, i  # the order of the file
        is_brief = measurement.is_preliminary
        return rank, is_brief, measurement.form != forms[rank, is_brief], verdicts.get(measurement.cohort, 0)

    return dataclasses.replace(record, measurements=tuple(timed[i] for i in sorted(newest_first, key=key)))


def _cohort_qualities(records: Iterable[TrialRecord]) -> dict[str, int]:
    """Returns a rank of the verdict on the machine (`cohort_quality`) per cohort, by the cohort's ID.

    Only cohorts of networks with several timings are ranked, because only they offer a choice.
    """
    needed = {
        measurement.cohort for record in records if len(record.measurements) > 1 for measurement in record.measurements
    } - {""}  # a timing without a cohort was timed alone
    members: dict[str, list[Measurement]] = {}
    for record in records:
        for measurement in record.measurements:
            if measurement.cohort in needed:
                members.setdefault(measurement.cohort, []).append(measurement)
    return {cohort: cohort_quality(timed) for cohort, timed in members.items()}
