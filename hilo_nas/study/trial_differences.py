"""Differences between trials of one study: speed, value and architecture, with probabilities."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from hilo_nas.errors import NotFoundError
from hilo_nas.measurement.intervals import Z95, normal_above_zero
from hilo_nas.space import SearchSpace
from hilo_nas.study.comparison import Point
from hilo_nas.study.front import Front
from hilo_nas.study.states import TrialState

__all__ = ["TrialDifference", "compare_trials", "nearest_trials"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialDifference:
    """A trial compared with a base trial."""

    number: int
    speed_ratio: float
    """Images/s of the trial divided by those of the base."""
    faster_probability: float
    value_difference: float
    """Value of the trial minus that of the base, from the posteriors if there are any."""
    half_width: float
    """Half-width of the 95 % interval of the difference."""
    better_probability: float
    """Probability that the trial has the higher value."""
    knobs: tuple[str, ...]
    """Knobs with another value, such as `depths_3 4 -> 6`. Empty for a network outside the space."""


def compare_trials(front: Front, space: SearchSpace, base: int, others: Iterable[int]) -> list[TrialDifference]:
    """Returns the differences between trials and a base trial.

    Args:
        front: Front of the study.
        space: Space of the study.
        base: Number of the base trial.
        others: Numbers of the other trials.

    Raises:
        NotFoundError: A trial is not complete, did not train, or was not timed.
    """
    first = _find(front, base)
    return [_compare(first, _find(front, number), front.seed_noise, space) for number in others]


def nearest_trials(front: Front, number: int, *, at_most: int) -> list[int]:
    """Returns the complete trials that are nearest in log images/s and value, the nearest first.

    Both objectives are scaled by their ranges among the trials.

    Args:
        front: Front of the study.
        number: Number of the trial.
        at_most: Maximum number of trials.

    Raises:
        NotFoundError: The trial is not complete, did not train, or was not timed.
    """
    own = _find(front, number)
    points = [front.points[record.number] for record in front.candidates if record.number != number]
    speeds, values = ([get(point) for point in [own, *points]] for get in (_log_speed, _value))
    speed_range, value_range = (max(max(found) - min(found), 1e-12) for found in (speeds, values))

    def distance(point: Point) -> float:
        return math.hypot(
            (_log_speed(point) - _log_speed(own)) / speed_range, (_value(point) - _value(own)) / value_range
        )

    return [point.number for point in sorted(points, key=distance)[:at_most]]


def _find(front: Front, number: int) -> Point:
    if number not in front.points:
        record = front.by_number.get(number)
        known = "does not exist" if record is None else f"is {record.state}"
        if record is not None and record.state == TrialState.COMPLETE:
            known = "did not train, or was not timed in full"
        raise NotFoundError(f"a comparison needs complete trials that trained, but trial {number} {known}")
    return front.points[number]


def _compare(base: Point, own: Point, noise: float, space: SearchSpace) -> TrialDifference:
    difference = _value(own) - _value(base)
    error = math.hypot(own.value_error(noise), base.value_error(noise))
    return TrialDifference(
        number=own.number,
        speed_ratio=own.images_per_s / base.images_per_s,
        faster_probability=own.probability_faster(base),
        value_difference=difference,
        half_width=Z95 * error,
        better_probability=normal_above_zero(difference, error),
        knobs=_changed_knobs(base, own, space),
    )


def _changed_knobs(base: Point, own: Point, space: SearchSpace) -> tuple[str, ...]:
    before, after = base.record.params, own.record.params
    if before is None or after is None:
        return ()
    return tuple(
        f"{knob.param} {knob.choices[before[knob.param]]} -> {knob.choices[after[knob.param]]}"
        for knob in space.knobs
        if knob.param in before and knob.param in after and before[knob.param] != after[knob.param]
    )


def _log_speed(point: Point) -> float:
    return math.log(point.images_per_s)


def _value(point: Point) -> float:
    return point.likely_value
