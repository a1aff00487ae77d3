"""Comparison of the speeds of a target's devices, which must be equal."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from hilo_nas.errors import DeviceError
from hilo_nas.evaluation import Evaluator, run_task
from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import Calibration, Condition, devices_of
from hilo_nas.measurement.intervals import Z95
from hilo_nas.searching.tasks.study_tasks import Resources, calibration_of
from hilo_nas.study.calibration import calibration_error

__all__ = ["check_equal_speeds", "is_compared"]


def is_compared(condition: Condition, conditions: Sequence[Condition], resources: Resources) -> bool:
    """Returns True if a condition is the first one of its target, so its speeds decide whether the devices are equal.

    Args:
        condition: A condition of the study.
        conditions: All conditions of the study.
        resources: Targets of the study.
    """
    target = resources.target_of(condition)
    return condition == next(own for own in conditions if resources.target_of(own) == target)


def check_equal_speeds(
    condition: Condition, one: Calibration, evaluator: Evaluator, resources: Resources, emit: Emit
) -> Calibration:
    """Checks that all devices of a condition's target are equally fast, and returns the calibration to store.

    It is `one`, or a repeated one, of the first device. Does nothing with a single device.

    Times the reference on each device, one after the other. Two devices count as equal if the ratio of their speeds is
    within its 95 % interval around 1, which is at least 5.5 % wide on each side. A larger difference is timed again.

    Args:
        condition: Condition of the study.
        one: Calibration of the first device under this condition.
        evaluator: Times the reference.
        resources: Targets of the study.
        emit: Receives all events.

    Raises:
        DeviceError: A device is faster or slower than the first one.
        MeasurementError: The reference does not fit into memory.
    """
    first, *others = devices_of(resources.target_of(condition))
    if not others:
        return one

    def time_on(device: str) -> Calibration:
        task = calibration_of(condition, dataclasses.replace(resources, target=device, further={}))
        calibration = run_task(evaluator, task, emit).calibration
        assert calibration is not None, "the task must time only the reference"
        return calibration

    ratios = []
    for device in others:
        other = time_on(device)
        if differs := _differs(one, other, condition):
            one, other = time_on(first), time_on(device)
            differs = _differs(one, other, condition)
        if differs:
            raise DeviceError(
                f"the devices of a target must be equally fast, but {first} and {device} time the reference at "
                f"{one.images_per_s:,.0f} and {other.images_per_s:,.0f} images/s at {condition.label()}. Use one of "
                "them, or a study for each."
            )
        ratios.append(other.images_per_s / one.images_per_s)
    emit(Notice(text=_describe(first, others, ratios)))
    return one


def _differs(one: Calibration, other: Calibration, condition: Condition) -> bool:
    errors = [calibration_error(own, threads=condition.threads) for own in (one, other)]
    return abs(math.log(other.images_per_s / one.images_per_s)) > Z95 * math.hypot(*errors)


def _describe(first: str, others: Sequence[str], ratios: Sequence[float]) -> str:
    found = ", ".join(f"{device} {ratio - 1:+.1%}" for device, ratio in zip(others, ratios, strict=True))
    return f"the speed of the reference compared with {first}: {found}. The devices count as equal"
