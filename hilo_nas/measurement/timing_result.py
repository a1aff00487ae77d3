"""What timing a network found, as plain values that survive JSON."""

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
"""Version of the way throughput is timed; measurements of different protocols are never compared."""

_BRACKETING_PROTOCOL = 1
"""The protocol that timed the reference before and after each block of the network, once more in all."""

LATENCY_PROTOCOL = 2
"""Version of the way latencies are timed: 1 took up to 50 calls after the rounds, 2 takes 200 or more inside them."""

VERDICTS = ("steady", "bursty", "throttled", "contended")
"""What a machine may be called while it timed, the worst last; see `measurement.rounds.judge`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """The reference network's speed on a study's device: the anchor of every measurement in it."""

    reference: str
    """The reference network, for instance `timm:resnet18`."""
    images_per_s: Positive
    """Batch size over the mean of the fast calls (`measurement.rounds.fast_seconds`), over the median by protocol 1."""
    images_per_s_spread: NonNegative
    """Robust standard deviation of one block, in images/s."""
    call_seconds: tuple[Positive, ...]
    """Every sample: the mean seconds of one call over a block."""
    steady: bool
    """Whether the warm-up's last calls agreed before timing began."""
    device: DeviceIdentity
    protocol: Count = PROTOCOL
    device_state: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What the device said of itself while it timed; see `Measurement.device_state`."""

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Calibration:
        """Returns the calibration that `to_plain` described.

        Raises:
            RecordError: A field is wrong; names all.
        """
        return _with_checked_state(read_value(cls, fields))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One network's throughput on one device under one condition."""

    condition: Condition
    device: DeviceIdentity
    ratio: Positive
    """The network's speed over the reference's in the same rounds (`measurement.rounds.ratio`; the median over rounds
    by protocol 1): what slows both is divided out."""
    ratio_spread: NonNegative
    """Robust standard deviation of one round (1.4826 times the median absolute deviation) of that."""
    reference_images_per_s: Positive
    """Calibrated speed of the reference, in images/s. A study reads all its measurements by the calibration in force
    (`hilo_nas.study.calibration.read_timings`)."""
    images_per_s_raw: Positive
    """Batch size over the median call, as the clock saw it."""
    latency_ms_p50: Positive
    """Raw time that a caller waits for one batch: median of the single calls in undisturbed rounds (see
    `hilo_nas.measurement.latencies`); of all single calls by latency protocol 1."""
    latency_ms_p95: Positive
    latency_ms_p99: Positive
    memory_mib: NonNegative | None
    """Peak of the device's allocator over one call, weights included; None where it cannot be seen."""
    call_seconds: tuple[Positive, ...]
    """Every sample: per round, the mean seconds of one call over a block of at least 20 ms."""
    reference_seconds: tuple[Positive, ...]
    """The same for the reference network in the same rounds."""
    latency_seconds: tuple[Positive, ...]
    """Seconds of single calls, each synchronised."""
    steady: bool
    """Whether the warm-up's last calls agreed before timing began."""
    warmup_calls: Count
    seconds: NonNegative
    """What the measurement cost, model building included."""
    form: str
    """Which implementation of the network was timed."""
    threads: Count
    """Threads that torch used on the CPU."""
    environment: dict[str, str]
    """Thread, allocator and precision settings that the timing process ran under."""
    versions: dict[str, str]
    measured_at: str
    """UTC, ISO 8601."""
    ratio_low: NonNegative | None = None
    """Lower end of the bootstrap 95 % interval of `ratio` over rounds; protocol 1 has none."""
    ratio_high: Positive | None = None
    verdict: str | None = None
    """One of `VERDICTS`, as the version that timed it judged; readers take `rounds.verdict_of`, which judges
    what is stored. Protocol 1 has none."""
    cohort: str = ""
    """Shared by networks that were timed in the same rounds: their `call_seconds` pair up round by round."""
    beside: dict[str, tuple[Positive, ...]] = dataclasses.field(default_factory=dict)
    """Seconds of other networks, by key, in this network's rounds."""
    device_state: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What the device said of itself while it timed: load of the CPU, clocks, temperature, throttling, other
    processes."""
    protocol: Count = PROTOCOL
    latency_rounds: tuple[Count, ...] = ()
    """The round of each of `latency_seconds`, counted from 0; latency protocol 1 timed them after the rounds."""
    latency_ms_p95_low: NonNegative | None = None
    """Lower end of the bootstrap 95 % interval of `latency_ms_p95` over rounds; latency protocol 1 has none."""
    latency_ms_p95_high: NonNegative | None = None
    latency_protocol: Count = 1
    """Version of the way latencies are timed; see `LATENCY_PROTOCOL`."""
    calibration_error: NonNegative = dataclasses.field(default=0.0, compare=False)
    """Relative standard error of the reference's calibrated speed. All timings of a study share it, so it is in no
    comparison between them, and not in `images_per_s_low` and `_high`; `images_per_s_interval` holds it."""

    @property
    def images_per_s(self) -> float:
        """Calibrated speed: the reference's times `ratio`. Networks are ranked by it."""
        return self.reference_images_per_s * self.ratio

    @property
    def images_per_s_spread(self) -> float:
        """Robust standard deviation of one round, in images/s."""
        return self.reference_images_per_s * self.ratio_spread

    @property
    def images_per_s_low(self) -> float | None:
        """Lower end of the bootstrap 95 % interval over rounds, in images/s; None of protocol 1."""
        return None if self.ratio_low is None else self.reference_images_per_s * self.ratio_low

    @property
    def images_per_s_high(self) -> float | None:
        """Upper end of that interval, in images/s; None of protocol 1."""
        return None if self.ratio_high is None else self.reference_images_per_s * self.ratio_high

    @cached_property
    def contention(self) -> Contention | None:
        """What others took of the cores that it needed; None where it had them."""
        return find_contention(self.device_state, threads=self.threads, device=self.device)

    @property
    def contention_error(self) -> float:
        """Relative standard error of the speed from the cores that others took; 0.0 where it had what it needed."""
        return 0.0 if self.contention is None else self.contention.relative_error

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval in images/s; the spread of one round where there is no interval.

        Wider where other processes used the cores that the timing needed, by what that may have changed.
        """
        if self.images_per_s_low is None or self.images_per_s_high is None:
            own = self.images_per_s_spread
        else:
            own = (self.images_per_s_high - self.images_per_s_low) / 2
        return math.hypot(own, Z95 * self.contention_error * self.images_per_s)

    @property
    def images_per_s_error(self) -> float:
        """Relative standard error of images/s themselves, that of the calibration included."""
        return math.hypot(self.half_width / Z95 / self.images_per_s, self.calibration_error)

    @property
    def latency_error(self) -> float:
        """Relative standard error of the 95th percentile of latency; that of a speed where it has no interval.

        A latency is a raw time, so what others took of the cores is in it as it is in a speed.
        """
        if self.latency_ms_p95_low is None or self.latency_ms_p95_high is None:
            return self.half_width / Z95 / self.images_per_s
        own = math.log(self.latency_ms_p95_high / self.latency_ms_p95_low) / (2 * Z95)
        return math.hypot(own, self.contention_error)

    @property
    def images_per_s_half_width(self) -> float:
        """Half of the 95 % interval of images/s themselves: `half_width` and the calibration's error."""
        return Z95 * self.images_per_s_error * self.images_per_s

    @property
    def images_per_s_interval(self) -> tuple[float, float] | None:
        """The 95 % interval of images/s, even on a logarithmic scale where it is wide; None of protocol 1."""
        if self.images_per_s_low is None or self.images_per_s_high is None:
            return None
        value, half_width = self.images_per_s, self.images_per_s_half_width
        if is_wide(value, half_width):
            factor = math.exp(half_width / value)
            return value / factor, value * factor
        return value - half_width, value + half_width

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Measurement:
        """Returns the measurement that `to_plain` described.

        Raises:
            RecordError: A field is wrong; names all.
        """
        measurement = _with_checked_state(read_value(cls, fields))
        if measurement.protocol == _BRACKETING_PROTOCOL:
            return measurement
        rounds = len(measurement.reference_seconds)
        lengths = {"call_seconds": len(measurement.call_seconds)}
        lengths |= {f"beside[{name!r}]": len(seconds) for name, seconds in measurement.beside.items()}
        faults = [
            f"{name} must have a value per round ({rounds}, as reference_seconds), but has {length}"
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
    """Types of what readers use of `Measurement.device_state`; it may hold more."""

    cores: Size
    quietest: _Load
    throttle_reasons: list[str]


_Timed = TypeVar("_Timed", Measurement, Calibration)


def _with_checked_state(timed: _Timed) -> _Timed:
    """Returns a value whose `device_state` has the types that its readers rely on."""
    state = timed.device_state
    try:
        check_type(state, _DeviceState)
        check_type(state.get("with", []), list[_Process])
    except RecordError as error:
        raise RecordError(f"device_state{error}") from error
    if "others_cores" in state and "others_cores" not in state.get("quietest", state):
        raise RecordError("device_state.quietest.others_cores is missing")
    return timed
