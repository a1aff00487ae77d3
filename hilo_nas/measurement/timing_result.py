"""Results of timings as plain values that can be stored as JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, TypedDict, TypeVar

from hilo_nas.errors import RecordError
from hilo_nas.measurement.condition import Condition, DeviceIdentity
from hilo_nas.measurement.contention import Contention, find_contention
from hilo_nas.measurement.fields import Count, NonNegative, Positive, Size, check_type, read_value
from hilo_nas.measurement.intervals import Z95
from hilo_nas.text.figures import is_wide

__all__ = ["LATENCY_PROTOCOL", "PROTOCOL", "VERDICTS", "Calibration", "Measurement"]

PROTOCOL = 2
"""Version of the throughput protocol. Measurements of different protocols are never compared."""

_BRACKETING_PROTOCOL = 1
"""Protocol with a block of the reference before and after each block of the network, so one more block in total."""

LATENCY_PROTOCOL = 2
"""Version of the latency protocol: 1 times up to 50 calls after the rounds, 2 times 200 or more inside them."""

VERDICTS = ("steady", "bursty", "throttled", "contended")
"""Verdicts on a machine during a timing, from best to worst. `measurement.verdicts.judge` selects one.

`steady`: nothing disturbed the timing. `bursty`: other work disturbed some rounds. `throttled`: the device slowed down.
`contended`: other processes used cores that the timing needed in every round.
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """Speed of the reference network on a study's device. It sets the scale of all images/s in the study."""

    reference: str
    """Name of the reference network, for example `timm:resnet18`."""
    images_per_s: Positive
    """Batch size over the mean of the fast rounds (`measurement.rounds.fast_seconds`). Protocol 1 used the median."""
    images_per_s_spread: NonNegative
    """Standard deviation of images/s between timed blocks of calls, estimated from the median absolute deviation."""
    call_seconds: tuple[Positive, ...]
    """Mean seconds per call of each timed block of calls."""
    steady: bool
    """True if the last blocks of the warm-up agreed before the timing started."""
    device: DeviceIdentity
    protocol: Count = PROTOCOL
    device_state: dict[str, Any] = dataclasses.field(default_factory=dict)
    """State of the device during the timing, as in `Measurement.device_state`."""

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Calibration:
        """Returns a calibration from the data of `to_plain`.

        Raises:
            RecordError: A field is wrong. The message lists all faults.
        """
        return _with_checked_state(read_value(cls, fields))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One network's throughput on one device under one condition."""

    condition: Condition
    device: DeviceIdentity
    ratio: Positive
    """Speed of the network relative to the reference in the same rounds (`measurement.rounds.ratio`). A slowdown of
    both cancels out. Protocol 1 used the median over the rounds."""
    ratio_spread: NonNegative
    """Standard deviation of the ratio between rounds, estimated as 1.4826 times the median absolute deviation."""
    reference_images_per_s: Positive
    """Calibrated speed of the reference, in images/s. When a study is read, its current calibration replaces this value
    (`hilo_nas.study.calibration.read_timings`)."""
    images_per_s_raw: Positive
    """Batch size over the median seconds per call, without calibration."""
    latency_ms_p50: Positive
    """Median raw time of one batch, over the single calls in undisturbed rounds (see `hilo_nas.measurement.latencies`).
    Latency protocol 1 used all single calls."""
    latency_ms_p95: Positive
    latency_ms_p99: Positive
    memory_mib: NonNegative | None
    """Peak memory of one call in MiB, including weights, from the device's allocator. None if it cannot be measured."""
    call_seconds: tuple[Positive, ...]
    """Mean seconds per call in each round, over a block of calls that takes at least 20 ms."""
    reference_seconds: tuple[Positive, ...]
    """Mean seconds per call of the reference network in each of the same rounds."""
    latency_seconds: tuple[Positive, ...]
    """Seconds of each single call. The device is synchronised after every call."""
    steady: bool
    """True if the last blocks of the warm-up agreed before the timing started."""
    warmup_calls: Count
    seconds: NonNegative
    """Duration of the whole measurement, including the construction of the network."""
    form: str
    """Name of the implementation of the network that was timed."""
    threads: Count
    """Number of torch's CPU threads."""
    environment: dict[str, str]
    """Thread, allocator and precision settings of the timing process."""
    versions: dict[str, str]
    measured_at: str
    """Time of the measurement: UTC, ISO 8601."""
    ratio_low: NonNegative | None = None
    """Lower end of the bootstrap 95 % interval of `ratio` over rounds. None for protocol 1."""
    ratio_high: Positive | None = None
    verdict: str | None = None
    """One of `VERDICTS`, from the version that made the timing. Use `verdicts.verdict_of` instead, which judges the
    stored rounds again. None for protocol 1."""
    cohort: str = ""
    """ID of the group of networks that were timed in the same rounds. Their `call_seconds` are paired by round."""
    beside: dict[str, tuple[Positive, ...]] = dataclasses.field(default_factory=dict)
    """Seconds per call of other networks in the same rounds, by key."""
    device_state: dict[str, Any] = dataclasses.field(default_factory=dict)
    """State of the device during the timing: CPU load, clocks, temperature, throttling, other processes."""
    protocol: Count = PROTOCOL
    is_preliminary: bool = False
    """True for a brief timing that only helps to choose the next network. A search times the network in full before it
    trains it, and the full timing replaces this one."""
    latency_rounds: tuple[Count, ...] = ()
    """Round of each value in `latency_seconds`, from 0. Empty for latency protocol 1, which timed after the rounds."""
    latency_ms_p95_low: NonNegative | None = None
    """Lower end of the bootstrap 95 % interval of `latency_ms_p95` over rounds. None for latency protocol 1."""
    latency_ms_p95_high: NonNegative | None = None
    latency_protocol: Count = 1
    """Version of the latency protocol, see `LATENCY_PROTOCOL`."""
    calibration_error: NonNegative = dataclasses.field(default=0.0, compare=False)
    """Relative standard error of the reference's calibrated speed. All timings of a study share it, so comparisons
    between them exclude it, and so do `images_per_s_low` and `_high`. `images_per_s_interval` includes it."""

    @property
    def images_per_s(self) -> float:
        """Speed in images/s: the calibrated speed of the reference times `ratio`. Networks are ranked by it."""
        return self.reference_images_per_s * self.ratio

    @property
    def images_per_s_spread(self) -> float:
        """Standard deviation of images/s between rounds, estimated from the median absolute deviation."""
        return self.reference_images_per_s * self.ratio_spread

    @property
    def images_per_s_low(self) -> float | None:
        """Lower end of the bootstrap 95 % interval over rounds, in images/s. None for protocol 1."""
        return None if self.ratio_low is None else self.reference_images_per_s * self.ratio_low

    @property
    def images_per_s_high(self) -> float | None:
        """Upper end of the bootstrap 95 % interval over rounds, in images/s. None for protocol 1."""
        return None if self.ratio_high is None else self.reference_images_per_s * self.ratio_high

    @cached_property
    def contention(self) -> Contention | None:
        """Constant CPU contention during the timing. None if the timing had the cores that it needed."""
        return find_contention(self.device_state, threads=self.threads, device=self.device)

    @property
    def contention_error(self) -> float:
        """Relative standard error of the speed due to CPU contention. 0 without contention."""
        return 0.0 if self.contention is None else self.contention.relative_error

    @property
    def half_width(self) -> float:
        """Half-width of the 95 % interval in images/s, or the spread of one round if there is no interval.

        It includes `contention_error`, but not `calibration_error`.
        """
        if self.images_per_s_low is None or self.images_per_s_high is None:
            own = self.images_per_s_spread
        else:
            own = (self.images_per_s_high - self.images_per_s_low) / 2
        return math.hypot(own, Z95 * self.contention_error * self.images_per_s)

    @property
    def images_per_s_error(self) -> float:
        """Relative standard error of the absolute images/s, including the error of the calibration."""
        return math.hypot(self.half_width / Z95 / self.images_per_s, self.calibration_error)

    @property
    def latency_error(self) -> float:
        """Relative standard error of the 95th percentile of latency, or that of the speed if it has no interval.

        It includes `contention_error` because a latency is a raw time.
        """
        if self.latency_ms_p95_low is None or self.latency_ms_p95_high is None:
            return self.half_width / Z95 / self.images_per_s
        own = math.log(self.latency_ms_p95_high / self.latency_ms_p95_low) / (2 * Z95)
        return math.hypot(own, self.contention_error)

    @property
    def images_per_s_half_width(self) -> float:
        """Half-width of the 95 % interval in images/s, including the error of the calibration."""
        return Z95 * self.images_per_s_error * self.images_per_s

    @property
    def images_per_s_interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the absolute images/s. A wide one is symmetric on a log scale. None for protocol 1."""
        if self.images_per_s_low is None or self.images_per_s_high is None:
            return None
        value, half_width = self.images_per_s, self.images_per_s_half_width
        if is_wide(value, half_width):
            factor = math.exp(half_width / value)
            return value / factor, value * factor
        return value - half_width, value + half_width

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Measurement:
        """Returns a measurement from the data of `to_plain`.

        Raises:
            RecordError: A field is wrong. The message lists all faults.
        """
        measurement = _with_checked_state(read_value(cls, fields))
        if measurement.protocol == _BRACKETING_PROTOCOL:
            return measurement
        rounds = len(measurement.reference_seconds)
        lengths = {"call_seconds": len(measurement.call_seconds)}
        lengths |= {f"beside[{name!r}]": len(seconds) for name, seconds in measurement.beside.items()}
        faults = [
            f"{name} must have one value per round ({rounds}, as in reference_seconds), but has {length}"
            for name, length in lengths.items()
            if length != rounds
        ]
        if any(i >= rounds for i in measurement.latency_rounds):
            faults.append(f"latency_rounds must be less than {rounds}, but got {max(measurement.latency_rounds)}")
        if faults:
            raise RecordError("\n".join(faults))
        return measurement


class _Load(TypedDict, total=False):
    others_cores: NonNegative
    steal_cores: NonNegative
    throttled_cores: NonNegative


class _Process(TypedDict):
    pid: Count
    name: str
    cores: NonNegative


class _DeviceState(_Load, total=False):
    """Types of the values of `Measurement.device_state` that this package reads. It can have more values."""

    cores: Size
    quietest: _Load
    throttle_reasons: list[str]


_Timed = TypeVar("_Timed", Measurement, Calibration)


def _with_checked_state(timed: _Timed) -> _Timed:
    """Returns the value unchanged after a check of the types in its `device_state`."""
    state = timed.device_state
    try:
        check_type(state, _DeviceState)
        check_type(state.get("with", []), list[_Process])
    except RecordError as error:
        raise RecordError(f"device_state{error}") from error
    if "others_cores" in state and "others_cores" not in state.get("quietest", state):
        raise RecordError("device_state.quietest.others_cores is missing")
    return timed
