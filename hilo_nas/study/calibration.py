"""What a study's timings say when it is read: by the calibration in force, the better timing of a network first.

A record keeps the rounds as they were timed, and the network's speed over the reference's in them. That ratio times the
reference's calibrated speed gives images/s: a study whose calibration was replaced reads all its speeds by the new one.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from random import Random

from hilo_nas.measurement import Calibration, Measurement, find_contention
from hilo_nas.measurement.rounds import cohort_quality, fast_seconds
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord

__all__ = ["anchored", "calibration_error", "read_timings"]

_BETWEEN_CALIBRATIONS = 0.02
"""Relative standard error that a calibration has besides that of its rounds.

Between passes the absolute speed of a network varied by 1.4 % on a quiet machine and by 2.8 % on a bursty one (the mean
of the rounds, two shared CPU cores, `hilo-nas bench ruler`, report in benchmarks/).
"""
_RESAMPLES = 300


def calibration_error(calibration: Calibration, *, threads: int | None) -> float:
    """Returns the relative standard error of the reference's calibrated speed.

    That of its rounds, that between timings, and what others took of the cores that it needed.

    Args:
        calibration: The calibration.
        threads: Those of its condition.
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
    """Returns a measurement read by a calibration; without rounds it keeps the reference's speed that is stored."""
    has_rounds = measurement.call_seconds and measurement.reference_seconds
    return dataclasses.replace(
        measurement,
        reference_images_per_s=calibration.images_per_s if has_rounds else measurement.reference_images_per_s,
        calibration_error=calibration_error(calibration, threads=measurement.threads),
    )


def read_timings(records: Sequence[TrialRecord], manifest: Manifest) -> list[TrialRecord]:
    """Returns a study's records with their measurements by the calibrations in force, in the order in which they count.

    First those that the manifest stands for (condition, device, protocol), in the order of its conditions. Of several
    under one condition, first those in the form that was timed last; then the better verdict, judged for the whole
    cohort; then the more recent.
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
    # In a file the newest come first, but for what a search wrote again in the order read.
    newest_first = sorted(range(len(timed)), key=lambda i: timed[i].measured_at, reverse=True)
    forms: dict[int, str] = {}
    for i in newest_first:
        forms.setdefault(ranks[i], timed[i].form)

    def key(i: int) -> tuple[int, bool, int]:
        measurement, rank = timed[i], ranks[i]
        if rank == len(manifest.conditions):
            return rank, False, i  # as they lie in the file
        return rank, measurement.form != forms[rank], verdicts.get(measurement.cohort, 0)

    return dataclasses.replace(record, measurements=tuple(timed[i] for i in sorted(newest_first, key=key)))


def _cohort_qualities(records: Iterable[TrialRecord]) -> dict[str, int]:
    """The quality of each cohort that holds a timing of a network with several, judged as it was told when timed."""
    doubtful = {
        measurement.cohort for record in records if len(record.measurements) > 1 for measurement in record.measurements
    } - {""}  # of timings that name no cohort, each is alone
    members: dict[str, list[Measurement]] = {}
    for record in records:
        for measurement in record.measurements:
            if measurement.cohort in doubtful:
                members.setdefault(measurement.cohort, []).append(measurement)
    return {cohort: cohort_quality(timed) for cohort, timed in members.items()}
