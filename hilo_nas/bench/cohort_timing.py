"""Timing shared by all benchmarks: cohorts that stay complete if a network fails, and advice about the machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from hilo_nas.errors import HiloNasError, MeasurementError
from hilo_nas.evaluation import Evaluator, Time, Timing, run_task
from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import Measurement
from hilo_nas.measurement.verdicts import judge_cohorts
from hilo_nas.report import build_cohort_frame

__all__ = ["advise", "ratio_fields", "speed_fields", "time_together"]


def time_together(evaluator: Evaluator, task: Time, emit: Emit) -> Timing:
    """Returns the speeds of networks that are timed in the same rounds.

    A failure splits the cohort. The remaining networks are then timed again together, so that they can be compared
    round by round. If the reference fails, all networks count as failed.

    Args:
        evaluator: Evaluator that times the networks.
        task: Up to 24 networks. The reference uses the memory layout of the first one.
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
        emit(Notice(text=f"timing the other {len(entries)} networks again, together"))


def advise(measurements: Iterable[Measurement]) -> list[str]:
    """Returns advice about the machine, as sentences.

    Each group of networks timed together (cohort) whose timing was not steady gives one sentence. Equal sentences
    appear once.
    """
    return list(dict.fromkeys(item.text for item in judge_cohorts(measurements) if item.verdict != "steady"))


def speed_fields(measurement: Measurement | None, key: str) -> dict[str, float | None]:
    """Returns images/s as `KEY` and its interval as `KEY_low` and `KEY_high`; all None without a measurement."""
    return {
        f"{key}{end}": None if measurement is None else getattr(measurement, f"images_per_s{end}")
        for end in ("", "_low", "_high")
    }


def ratio_fields(own: Measurement | None, base: Measurement | None, key: str) -> dict[str, Any]:
    """Returns the ratio of the speeds of `own` and `base`.

    `KEY` is the ratio, `KEY_low` and `KEY_high` its interval. `KEY_is_paired` is True if both shared their rounds. All
    are None if a measurement is missing.
    """
    found: dict[Any, Any] = {}
    if own is not None and base is not None:
        found = build_cohort_frame({"base": base, "own": own}).to_dict("records")[1]
    return {f"{key}{end}": found.get(f"ratio{end}") for end in ("", "_low", "_high")} | {
        f"{key}_is_paired": found.get("is_paired")
    }
