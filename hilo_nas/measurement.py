"""What was measured and under which condition, as plain values that survive JSON.

A `Measurement` is throughput, a `ProxyScore` is accuracy after a short training. Both carry all that is needed to
decide whether two of them may stand in one table.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from hilo_nas.errors import RecordError, UsageError

__all__ = [
    "PRECISIONS",
    "PROTOCOL",
    "RECIPE",
    "Calibration",
    "Condition",
    "DeviceIdentity",
    "Measurement",
    "ProxyPlan",
    "ProxyScore",
]

Value = TypeVar("Value")

RECIPE = "adamw-1"
"""Version of the proxy training's recipe; it changes with anything that may change a score (`proxy/recipe.py`,
`proxy/batches.py`), and scores of different recipes are never compared."""

PROTOCOL = 1
"""Version of the way throughput is timed; measurements of different protocols are never compared."""

PRECISIONS = ("fp32", "bf16", "fp16", "amp-bf16", "amp-fp16")
PROXY_PRECISIONS = ("fp32", "amp-bf16", "amp-fp16")
RUNTIMES = ("torch",)
METRICS = ("top1", "balanced")
DEVICE_KINDS = ("cpu", "cuda", "mps")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
    """How a network is timed. Equal conditions on equal devices give comparable speeds."""

    device: str = "cpu"
    """`cpu`, `cuda`, `cuda:N` or `mps`."""
    batch_size: int = 32
    """Images per call."""
    img_size: int = 224
    """Side of the square input in pixels."""
    precision: str = "fp32"
    """One of `PRECISIONS`; `amp-` is autocast over float32 weights, the others convert the weights."""
    channels_last: bool = False
    compile: bool = False
    """Whether the network goes through `torch.compile` before it is timed."""
    threads: int | None = None
    """Intra-operation threads on the CPU; None leaves torch's own choice, which is recorded."""
    runtime: str = "torch"

    def __post_init__(self) -> None:
        faults = []
        kind, _, index = self.device.partition(":")
        if kind not in DEVICE_KINDS or (index and not (kind == "cuda" and index.isdigit())):
            faults.append(f"device must be cpu, cuda, cuda:N or mps, but got {self.device!r}")
        for name in ("batch_size", "img_size"):
            if getattr(self, name) < 1:
                faults.append(f"{name} must be at least 1, but got {getattr(self, name)}")
        if self.threads is not None and self.threads < 1:
            faults.append(f"threads must be at least 1, but got {self.threads}")
        if self.precision not in PRECISIONS:
            faults.append(f"precision must be one of {', '.join(PRECISIONS)}, but got {self.precision!r}")
        if self.runtime not in RUNTIMES:
            faults.append(f"runtime must be one of {', '.join(RUNTIMES)}, but got {self.runtime!r}")
        if faults:
            raise UsageError("\n".join(faults))

    def label(self) -> str:
        """Returns the condition in one word, for tables and file names."""
        parts = [self.device.replace(":", ""), f"b{self.batch_size}", f"{self.img_size}px", self.precision]
        parts += ["nhwc"] * self.channels_last + ["compiled"] * self.compile
        parts += [f"t{self.threads}"] * (self.threads is not None)
        return "-".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceIdentity:
    """Which device, under which software, a figure comes from."""

    kind: str
    """`cpu`, `cuda` or `mps`."""
    model: str
    """The maker's name for the device, and for a CPU its number of cores."""
    driver: str
    """Driver or kernel version that the device runs under."""
    torch: str
    serial: str
    """What tells two devices of one model apart (a GPU's UUID, a host's name); recorded, not compared."""

    def differences(self, other: DeviceIdentity) -> dict[str, tuple[str, str]]:
        """Returns the fields in which the two devices are not interchangeable, with both values."""
        compared = ("kind", "model", "driver", "torch")
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in compared}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """The reference network's speed on a study's device: the anchor of every measurement in it."""

    reference: str
    """The reference network, for instance `timm:resnet18`."""
    images_per_s: float
    """Batch size over the median call."""
    images_per_s_spread: float
    """Robust standard deviation of one block, in images/s."""
    call_seconds: tuple[float, ...]
    """Every sample: the mean seconds of one call over a block."""
    steady: bool
    """Whether the warm-up's last calls agreed before timing began."""
    device: DeviceIdentity
    protocol: int = PROTOCOL

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Calibration:
        """Builds the calibration that `dataclasses.asdict` described."""
        return _build(cls, fields, device=DeviceIdentity)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One network's throughput on one device under one condition."""

    condition: Condition
    device: DeviceIdentity
    images_per_s: float
    """Calibrated speed of the reference times the median of the rounds' ratios to it: drift is divided out."""
    images_per_s_spread: float
    """Robust standard deviation of one round (1.4826 times the median absolute deviation), in images/s."""
    images_per_s_raw: float
    """Batch size over the median call, as the clock saw it."""
    latency_ms_p50: float
    """Raw time that a caller waits for one batch, median over `latency_seconds`."""
    latency_ms_p95: float
    latency_ms_p99: float
    memory_mib: float | None
    """Peak of the device's allocator over one call, weights included; None where it cannot be seen."""
    call_seconds: tuple[float, ...]
    """Every sample: per round, the mean seconds of one call over a block of at least 20 ms."""
    reference_seconds: tuple[float, ...]
    """The same for the reference network, which comes first and last: one more than the candidate has."""
    latency_seconds: tuple[float, ...]
    """Seconds of single calls, each synchronised."""
    ratios: tuple[float, ...]
    """Per round, the candidate's speed over the reference's (mean of the blocks before and after)."""
    steady: bool
    """Whether the warm-up's last calls agreed before timing began."""
    warmup_calls: int
    seconds: float
    """What the measurement cost, model building included."""
    form: str
    """Which implementation of the network was timed."""
    threads: int
    """Threads that torch used on the CPU."""
    environment: dict[str, str]
    """Thread, allocator and precision settings that the timing process ran under."""
    versions: dict[str, str]
    measured_at: str
    """UTC, ISO 8601."""
    protocol: int = PROTOCOL

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Measurement:
        """Builds the measurement that `dataclasses.asdict` described."""
        return _build(cls, fields, condition=Condition, device=DeviceIdentity)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProxyPlan:
    """A short training, apart from its architecture, its data, its seed and the device that runs it."""

    img_size: int
    """Side of the square training images in pixels."""
    batch_size: int
    images: int
    """Training images seen in all, repeats included."""
    precision: str = "fp32"
    """`fp32`, or autocast over float32 weights: `amp-bf16` or `amp-fp16`."""
    metric: str = "top1"
    """`top1`, or `balanced` for the mean of the classes' recalls."""
    val_fraction: float = 0.2
    """Share of the training split held out for scoring, stratified; unused with validation data of its own."""
    val_images: int = 4000
    """Held-out images at most; at 4,000 the standard error of a top-1 of 0.5 is 0.8 points."""
    hflip: bool = True
    """Whether images may be mirrored; false for digits and letters."""
    recipe: str = RECIPE
    """Version of the training's recipe."""

    def __post_init__(self) -> None:
        faults = [
            f"{name} must be at least 1, but got {getattr(self, name)}"
            for name in ("img_size", "batch_size", "images", "val_images")
            if getattr(self, name) < 1
        ]
        if self.precision not in PROXY_PRECISIONS:
            # AdamW's steps vanish below the resolution of half-precision weights.
            faults.append(f"proxy precision must be one of {', '.join(PROXY_PRECISIONS)}, but got {self.precision!r}")
        if self.metric not in METRICS:
            faults.append(f"metric must be one of {', '.join(METRICS)}, but got {self.metric!r}")
        if not 0.0 < self.val_fraction < 1.0:
            faults.append(f"val_fraction must lie between 0 and 1, but got {self.val_fraction}")
        if faults:
            raise UsageError("\n".join(faults))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data."""
        return dataclasses.asdict(self)

    def hash(self, data_hash: str) -> str:
        """Returns the name of this training on that data; only scores of one name are compared."""
        text = json.dumps({**self.to_dict(), "data": data_hash}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProxyScore:
    """Accuracy of one network after one short training."""

    plan_hash: str
    """`ProxyPlan.hash` of the plan and the data; not of the device."""
    metric: str
    proxy_top1: float
    """Share of held-out images whose class was found, in [0, 1] (with `balanced`, the classes' mean)."""
    proxy_top1_se: float
    """Standard error of it from the finite number of held-out images; the seed's own noise is not in it."""
    loss: float
    """Mean cross-entropy on the held-out images."""
    n_val: int
    images_seen: int
    seconds: float
    seed: int
    micro_batch_size: int
    """Images per forward pass; smaller than the plan's batch where memory ran out: then gradients were accumulated, and
    batch norm took its statistics from so many images."""
    device: str
    versions: dict[str, str]
    scored_at: str
    """UTC, ISO 8601."""

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ProxyScore:
        """Builds the score that `dataclasses.asdict` described."""
        return _build(cls, fields)


def _build(cls: type[Value], fields: Mapping[str, Any], **nested: type[Any]) -> Value:
    """Builds a value from plain data; lists become tuples, nested values become their classes."""
    known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(fields) - known):
        raise RecordError(f"{cls.__name__} has no field {', '.join(unknown)}: was it written by a newer version?")
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if name in nested:
            value = _build(nested[name], value)
        values[name] = _tuples(value) if isinstance(value, list) else value
    try:
        return cls(**values)
    except TypeError as error:
        raise RecordError(f"{cls.__name__} is not complete: {error}") from error


def _tuples(value: list[Any]) -> tuple[Any, ...]:
    return tuple(_tuples(item) if isinstance(item, list) else item for item in value)
