"""What every bench does to time: cohorts that stay whole when a network fails, and words on how the machine behaved."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from hilo_nas.errors import HiloNasError, MeasurementError
from hilo_nas.evaluation import Evaluator, Time, Timing, run_task
from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import Measurement
from hilo_nas.measurement.rounds import judge_cohorts
from hilo_nas.report import build_cohort_frame

__all__ = ["advise", "ratio_fields", "speed_fields", "time_together"]


def time_together(evaluator: Evaluator, task: Time, emit: Emit) -> Timing:
    """Returns the speeds of networks that shared their rounds.

    Where some fail, which splits the cohort, the others are timed again, all together, so that they can be compared
    round by round. Where the reference fails, all have failed.

    Args:
        evaluator: Times them.
        task: The networks, 24 at most; the first is timed in the layout that the reference is to have.
        emit: Receives an event for each network and each round.
    """
    failures: dict[str, HiloNasError] = {}
    while True:
        try:
            timing = run_task(evaluator, task, emit)
        except HiloNasError as error:
            is_alone = len(task.entries) == 1 and not error.is_fatal
            if not is_alone and not isinstance(error, MeasurementError):
                raise
            emit(Notice(level="warning", text=str(error)))
            return Timing(failures=failures | dict.fromkeys(task.entries, error))
        failures |= timing.failures
        cohorts = {measurement.cohort for measurement in timing.measurements.values()}
        if len(cohorts) <= 1 or not timing.failures:
            return dataclasses.replace(timing, failures=failures)
        entries = {name: entrant for name, entrant in task.entries.items() if name not in failures}
        task = dataclasses.replace(task, entries=entries)
        emit(Notice(text=f"the other {len(entries)} are timed again, all together"))


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
