"""What every bench does to time: cohorts that stay whole when a network fails, and words on how the machine behaved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hilo_nas.errors import HiloNasError, MeasurementError
from hilo_nas.events import Emit, Notice
from hilo_nas.measure import Cohort, Entrant, Ruler
from hilo_nas.measurement import Calibration, Measurement
from hilo_nas.report import build_cohort_frame
from hilo_nas.rounds import judge_cohorts

__all__ = ["advise", "ratio_fields", "speed_fields", "time_together"]


def time_together(
    ruler: Ruler,
    entrants: Mapping[str, Entrant],
    emit: Emit,
    *,
    calibration: Calibration | None = None,
    reference: Mapping[str, Any] | None = None,
    seconds_each: float | None = None,
) -> Cohort:
    """Returns the speeds of networks that shared their rounds, as `Ruler.measure_cohort` does.

    Where some fail, which splits the cohort, the others are timed again, all together, so that they can be compared
    round by round. Where the reference fails, all have failed.

    Args:
        ruler: Times them.
        entrants: By name, 24 at most; the first is timed in the layout that the reference is to have.
        emit: Told of each network and each round.
        calibration: What anchors images/s; None takes the reference's speed in the cohort itself.
        reference: The subject that is the anchor; the ruler's own if left out.
        seconds_each: Seconds that each network is timed for at most.
    """
    failures: dict[str, HiloNasError] = {}
    while True:
        try:
            cohort = ruler.measure_cohort(
                entrants, emit, calibration=calibration, reference=reference, seconds_each=seconds_each
            )
        except MeasurementError as error:
            emit(Notice(level="warning", text=str(error)))
            return Cohort(measurements={}, failures=failures | dict.fromkeys(entrants, error))
        failures |= cohort.failures
        cohorts = {measurement.cohort for measurement in cohort.measurements.values()}
        if len(cohorts) <= 1 or not cohort.failures:
            return Cohort(measurements=cohort.measurements, failures=failures)
        entrants = {name: entrant for name, entrant in entrants.items() if name not in failures}
        emit(Notice(text=f"the other {len(entrants)} are timed again, all together"))


def advise(measurements: Iterable[Measurement]) -> list[str]:
    """Returns what to do about the machine, a sentence for each cohort that was not timed on a steady one."""
    return list(dict.fromkeys(item.text for item in judge_cohorts(measurements) if item.verdict != "steady"))


def speed_fields(measurement: Measurement | None, key: str) -> dict[str, float | None]:
    """Returns a network's images/s and the ends of its interval under `KEY`, `KEY_low` and `KEY_high`."""
    return {
        f"{key}{end}": None if measurement is None else getattr(measurement, f"images_per_s{end}")
        for end in ("", "_low", "_high")
    }


def ratio_fields(own: Measurement | None, base: Measurement | None, key: str) -> dict[str, Any]:
    """Returns how many times as fast as the other a network is, its interval, and whether both shared their rounds."""
    found: dict[Any, Any] = {}
    if own is not None and base is not None:
        found = build_cohort_frame({"base": base, "own": own}).to_dict("records")[1]
    return {f"{key}{end}": found.get(f"ratio{end}") for end in ("", "_low", "_high")} | {
        f"{key}_is_paired": found.get("is_paired")
    }
