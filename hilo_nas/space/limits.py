"""Hard limits on networks: the quantities with their units, and the violations of a limit.

The name of a limit is `QUANTITY` if it applies to the objective condition. For any other condition, the name is
`QUANTITY@LABEL`, with the label of the condition: `latency_ms@cpu-b1-224px-fp32`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from hilo_nas.measurement import Measurement
from hilo_nas.measurement.intervals import normal_above_zero

__all__ = [
    "KEPT_HARDLY",
    "KEPT_SURELY",
    "LIMITS",
    "Limit",
    "broken_limits",
    "free_violations",
    "limit_text",
    "measured_chances",
    "measured_values",
    "measured_violations",
    "violation",
]

KEPT_HARDLY, KEPT_SURELY = 0.05, 0.95
"""Probabilities of being within a limit. Below the first, a network violates the limit. From the second on, the network
is within the limit."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limit:
    """Quantity that can be limited, such as images/s."""

    is_floor: bool = False
    """True if the limit is a minimum, False if it is a maximum."""
    is_free: bool = False
    """True if a formula gives the value, False if the network must be timed."""
    means: str
    """Description of the quantity with its unit."""

    def text(self, name: str, value: float) -> str:
        """Returns the text of a limit, for example `images_per_s >= 900`."""
        return f"{name} {'>=' if self.is_floor else '<='} {value:g}"


LIMITS: dict[str, Limit] = {
    "params_m": Limit(is_free=True, means="maximum number of trainable parameters, in millions"),
    "gmacs": Limit(is_free=True, means="maximum number of multiply-adds at the timing image size, in billions"),
    "images_per_s": Limit(is_floor=True, means="minimum speed, in images per second"),
    "latency_ms": Limit(means="maximum latency per call (95th percentile of undisturbed rounds), in milliseconds"),
    "memory_mib": Limit(means="maximum peak memory, in MiB"),
}


def limit_text(name: str, value: float) -> str:
    """Returns the text of a limit with its condition, for example `latency_ms <= 20 at cpu-b1-224px-fp32`."""
    quantity, _, label = name.partition("@")
    return LIMITS[quantity].text(quantity, value) + (f" at {label}" if label else "")


def violation(name: str, limit: float, value: float) -> float:
    """Returns the logarithm of the factor by which a value violates a limit.

    A result of at most 0 is within the limit. A result of 0.1 is a violation of about 10 %.
    """
    excess = math.log(max(value, 1e-12) / limit)
    return -excess if LIMITS[name.partition("@")[0]].is_floor else excess


def free_violations(limits: Mapping[str, float], *, parameters: int, macs: int) -> dict[str, float]:
    """Returns the violations of the limits on parameters and multiply-adds, by the name of the limit."""
    values = {"params_m": parameters / 1e6, "gmacs": macs / 1e9}
    return {name: violation(name, limit, values[name]) for name, limit in limits.items() if name in values}


def measured_values(measurements: Sequence[Measurement]) -> dict[str, float | None]:
    """Returns the measured values of quantities that can be limited, by the name of the limit.

    The first measurement under each condition counts. A value is None if it cannot be measured on the device.

    Args:
        measurements: Measurements under the objective condition, followed by those under other conditions.
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


def broken_limits(violations: Mapping[str, float]) -> dict[str, float]:
    """Returns the violations above 0, by name of the limit."""
    return {name: value for name, value in violations.items() if value > 0}


def measured_violations(limits: Mapping[str, float], measurements: Sequence[Measurement]) -> dict[str, float]:
    """Returns the violations of the limits on measured quantities, by the name of the limit.

    If memory cannot be measured, it violates no limit.
    """
    values = measured_values(measurements)
    found = {}
    for name, limit in limits.items():
        if name in values:
            value = values[name]
            found[name] = -1.0 if value is None else violation(name, limit, value)
    return found


def measured_chances(limits: Mapping[str, float], measurements: Sequence[Measurement]) -> dict[str, float]:
    """Returns the probability that a network is within each limit on a measured quantity, by the name of the limit.

    The logarithm of the value is normally distributed. The error of images/s includes those of the rounds and of the
    calibration. The error of latency is that of its 95th percentile. Memory has no error.
    """
    violations, errors = measured_violations(limits, measurements), _errors(measurements)
    return {name: normal_above_zero(-excess, errors[name]) for name, excess in violations.items()}


def _errors(measurements: Sequence[Measurement]) -> dict[str, float]:
    """Returns the relative standard errors of `measured_values`, by the name of the limit."""
    errors: dict[str, float] = {}
    for measurement in measurements:
        at = f"@{measurement.condition.label()}" if measurement.condition != measurements[0].condition else ""
        errors.setdefault(f"images_per_s{at}", measurement.images_per_s_error)
        errors.setdefault(f"latency_ms{at}", measurement.latency_error)
        errors.setdefault(f"memory_mib{at}", 0.0)
    return errors
