"""Hard limits on a network: what may be limited, in which unit, and how far a value lies beyond.

A limit's name is that of its quantity, for the objective condition, or `QUANTITY@LABEL` for another condition's label.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from hilo_nas.measurement import Measurement
from hilo_nas.measurement.rounds import normal_above_zero

__all__ = [
    "KEPT_HARDLY",
    "KEPT_SURELY",
    "LIMITS",
    "Limit",
    "free_violations",
    "limit_text",
    "measured_chances",
    "measured_values",
    "measured_violations",
    "violation",
]

KEPT_HARDLY, KEPT_SURELY = 0.05, 0.95
"""Probabilities of keeping a limit below which a network breaks it, and from which it keeps it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limit:
    """One quantity that a space may limit."""

    is_floor: bool = False
    """Whether the limit is the least value allowed; otherwise it is the greatest."""
    is_free: bool = False
    """Whether a formula gives the value; otherwise the network must be timed."""
    means: str

    def text(self, name: str, value: float) -> str:
        """Returns the limit as a user reads it, for instance `images_per_s >= 900`."""
        return f"{name} {'>=' if self.is_floor else '<='} {value:g}"


LIMITS: dict[str, Limit] = {
    "params_m": Limit(is_free=True, means="million trainable parameters, at most"),
    "gmacs": Limit(is_free=True, means="billion multiply-adds at the timing size, at most"),
    "images_per_s": Limit(is_floor=True, means="measured images per second, at least"),
    "latency_ms": Limit(means="measured milliseconds per call (95th percentile of undisturbed rounds), at most"),
    "memory_mib": Limit(means="measured peak memory in MiB, at most"),
}


def limit_text(name: str, value: float) -> str:
    """Returns a limit as a user reads it, for instance `latency_ms <= 20 at cpu-b1-224px-fp32`."""
    quantity, _, label = name.partition("@")
    return LIMITS[quantity].text(quantity, value) + (f" at {label}" if label else "")


def violation(name: str, limit: float, value: float) -> float:
    """Returns the logarithm of how far the value lies beyond the limit: at most 0 is within, 0.1 about 10 % beyond."""
    beyond = math.log(max(value, 1e-12) / limit)
    return -beyond if LIMITS[name.partition("@")[0]].is_floor else beyond


def free_violations(limits: Mapping[str, float], *, parameters: int, macs: int) -> dict[str, float]:
    """Returns the violations of those limits that a formula decides."""
    values = {"params_m": parameters / 1e6, "gmacs": macs / 1e9}
    return {name: violation(name, limit, values[name]) for name, limit in limits.items() if name in values}


def measured_values(measurements: Sequence[Measurement]) -> dict[str, float | None]:
    """Returns what measurements say of the quantities that may be limited, by the limit's name; the first counts.

    Args:
        measurements: The objective condition's first, then the others'.
    """
    values: dict[str, float | None] = {}
    for measurement in measurements:
        at = f"@{measurement.condition.label()}" if measurement.condition != measurements[0].condition else ""
        for name, value in (
            ("images_per_s", measurement.images_per_s),
            ("latency_ms", measurement.latency_ms_p95),
            ("memory_mib", measurement.memory_mib),
        ):
            values.setdefault(f"{name}{at}", value)
    return values


def measured_violations(limits: Mapping[str, float], measurements: Sequence[Measurement]) -> dict[str, float]:
    """Returns the violations of those limits that measurements decide; memory that cannot be seen breaks none."""
    values = measured_values(measurements)
    found = {}
    for name, limit in limits.items():
        if name in values:
            value = values[name]
            found[name] = -1.0 if value is None else violation(name, limit, value)
    return found


def measured_chances(limits: Mapping[str, float], measurements: Sequence[Measurement]) -> dict[str, float]:
    """Returns the probability that a network keeps each of those limits that measurements decide.

    From the value and its error, as a normal distribution of the logarithm: for images/s the interval of the rounds and
    the calibration, for latency the interval of its 95th percentile. Memory does not vary.
    """
    violations, errors = measured_violations(limits, measurements), _errors(measurements)
    return {name: normal_above_zero(-beyond, errors[name]) for name, beyond in violations.items()}


def _errors(measurements: Sequence[Measurement]) -> dict[str, float]:
    """Relative standard errors, by the names of `measured_values`."""
    errors: dict[str, float] = {}
    for measurement in measurements:
        at = f"@{measurement.condition.label()}" if measurement.condition != measurements[0].condition else ""
        errors.setdefault(f"images_per_s{at}", measurement.images_per_s_error)
        errors.setdefault(f"latency_ms{at}", measurement.latency_error)
        errors.setdefault(f"memory_mib{at}", 0.0)
    return errors
