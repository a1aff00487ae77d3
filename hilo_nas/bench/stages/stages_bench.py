"""Time of each part of a network, compared with its lower bound (floor) on the device.

The floor of a part is the larger of two times: its multiply-adds at the device's rate, and its minimum memory traffic
(weights, input map and output map) at the device's bandwidth. A large matrix product gives the rate, and a large copy
gives the bandwidth. Both are timed in the same rounds as the parts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from hilo_nas.arch.config import PRESETS, ArchConfig
from hilo_nas.arch.cost import PARTS, count_parts, map_sizes
from hilo_nas.bench.cohort_timing import advise, time_together
from hilo_nas.errors import HiloNasError, MeasurementError, UsageError
from hilo_nas.evaluation import Evaluator, Inspect, Time, evaluator_or_local, run_task
from hilo_nas.evaluation.named_networks import find_network
from hilo_nas.events import BenchStepped, Emit
from hilo_nas.measurement import Condition, Measurement, kind_of_device
from hilo_nas.measurement.intervals import interval
from hilo_nas.measurement.rounds import fast_seconds, ratio
from hilo_nas.timing import Entrant

__all__ = ["StagesFindings", "StagesPlan", "run_stages"]

_WHOLE, _PRODUCT, _COPY = "whole", "product", "copy"
_SIDE, _CUDA_SIDE = 2048, 8192
"""Sides of the square matrices whose product gives the rate of multiply-adds."""
_COPIED_BYTES = 2**27
"""Bytes that the copy reads, and also writes. This is more than most caches hold."""
_ELEMENT_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_IN_CHANS, _NUM_CLASSES = 3, 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class StagesPlan:
    """Settings of the stages benchmark.

    Raises:
        UsageError: One or more values are invalid. The message lists all of them.
    """

    network: str = "litv2_small"
    """Name of a preset, `STUDY:TRIAL`, or the YAML file of an architecture."""
    device: str | None = None
    """Name of the device. None selects the fastest kind on this machine."""
    batch_size: int = 8
    img_size: int = 224
    precision: str = "fp32"
    """Precision of all parts. Autocast is not supported, because it chooses the precision per operator."""
    seconds: float = 3.0
    """Maximum seconds per part. At least 12 rounds are always timed."""
    threads: int | None = None

    def __post_init__(self) -> None:
        faults = []
        if not self.network.endswith((".yaml", ".yml")) and self.network not in PRESETS and ":" not in self.network:
            known = ", ".join(PRESETS)
            faults.append(
                f"network must be STUDY:TRIAL, an architecture's .yaml file or {known}, but got {self.network!r}"
            )
        if self.precision not in _ELEMENT_BYTES:
            faults.append(f"precision must be one of {', '.join(_ELEMENT_BYTES)}, but got {self.precision!r}")
        if not 0 < self.seconds < math.inf:
            faults.append(f"seconds must be above 0, but got {self.seconds:g}")
        if faults:
            raise UsageError("\n".join(faults))
        self.condition(kind_of_device(self.device or "cpu"))
        map_sizes(self.arch, self.img_size)

    @cached_property
    def arch(self) -> ArchConfig:
        """Architecture of the network.

        Raises:
            UsageError: The network is not a LITv2.
        """
        subject = find_network(self.network).subject
        if "arch" not in subject:
            raise UsageError(f"the network must be a LITv2, but {self.network} is not")
        return ArchConfig.from_dict(subject["arch"])

    def condition(self, device: str) -> Condition:
        """Returns the condition of the timings. `fused` is False because parts are built in their inference form."""
        return Condition(
            device=device,
            batch_size=self.batch_size,
            img_size=self.img_size,
            precision=self.precision,
            threads=self.threads,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StagesFindings:
    """Timings of the parts, the whole network, a matrix product and a memory copy, all in the same rounds."""

    plan: StagesPlan
    measurements: Mapping[str, Measurement]
    failures: Mapping[str, HiloNasError]

    @property
    def macs_per_s(self) -> float:
        """Multiply-adds per second of the device, measured with a large matrix product."""
        return _side(self.plan.condition(self._device).device) ** 3 / self._seconds(_PRODUCT)

    @property
    def bytes_per_s(self) -> float:
        """Memory bandwidth of the device in bytes/s, reads plus writes, measured with a large copy."""
        return 2 * _COPIED_BYTES / self._seconds(_COPY)

    def list_rows(self) -> list[dict[str, Any]]:
        """Returns a row for each part, one for the sum of all parts, and one for the whole network."""
        costs = count_parts(self.plan.arch, self.plan.img_size, num_classes=_NUM_CLASSES)
        rows = [self._row(part, costs[part].macs, self._part_bytes(part, costs[part].parameters)) for part in PARTS]
        total = {name: sum(row[name] for row in rows) for name in ("floor_ms", "mmacs", "mib")}
        times_ms = [row["time_ms"] for row in rows if row["time_ms"] is not None]
        for row in rows:
            row["share_of_time"] = row["time_ms"] / sum(times_ms) if len(times_ms) == len(rows) else None
        whole = self.measurements.get(_WHOLE)
        sums_ms: dict[str, float | None] = {
            "all parts": sum(times_ms) if len(times_ms) == len(rows) else None,
            "the network": None if whole is None else 1e3 * fast_seconds(whole.call_seconds),
        }
        for name, time_ms in sums_ms.items():
            share = None if time_ms is None else total["floor_ms"] / time_ms
            rows.append({"part": name, **total, "time_ms": time_ms, "share_of_floor": share})
        rows[-1] |= {
            "implementation": None if whole is None else whole.form,
            "verdict": "failed" if whole is None else whole.verdict,
        }
        return rows

    def advise(self) -> list[str]:
        """Returns advice about the machine if timings were not steady."""
        return advise(self.measurements.values())

    @property
    def _device(self) -> str:
        return self.measurements[_PRODUCT].condition.device

    def _seconds(self, name: str) -> float:
        return fast_seconds(self.measurements[name].call_seconds)

    def _part_bytes(self, part: str, parameters: int) -> int:
        """Returns the minimum memory traffic of a part in bytes: weights, input map and output map, each once."""
        arch, plan = self.plan.arch, self.plan
        maps = [h * w * dim for (h, w), dim in zip(map_sizes(arch, plan.img_size), arch.embed_dims, strict=True)]
        steps = [_IN_CHANS * plan.img_size**2, maps[0], *maps, _NUM_CLASSES]
        index = PARTS.index(part)
        elements = parameters + plan.batch_size * (steps[index] + steps[index + 1])
        return elements * _ELEMENT_BYTES[plan.precision]

    def _row(self, part: str, macs: int, n_bytes: int) -> dict[str, Any]:
        """Returns the row of a part. Its floor is the larger of the times for multiply-adds and for memory traffic."""
        macs *= self.plan.batch_size
        bounds_s = {_PRODUCT: macs / self.macs_per_s, _COPY: n_bytes / self.bytes_per_s}
        bound = max(bounds_s, key=bounds_s.__getitem__)
        row: dict[str, Any] = {
            "part": part,
            "time_ms": None,
            "floor_ms": 1e3 * bounds_s[bound],
            "mmacs": macs / 1e6,
            "mib": n_bytes / 2**20,
            "bound": {_PRODUCT: "products", _COPY: "memory"}[bound],
            "verdict": "failed",
        }
        own = self.measurements.get(part)
        if own is None:
            return {**row, "failure": str(self.failures[part])}
        best = self.measurements[bound]
        # Paired rounds give the part's speed relative to the product or copy. `amount` scales it to the part's work.
        amount = bounds_s[bound] / fast_seconds(best.call_seconds)
        low, high = interval(own.call_seconds, best.call_seconds)
        return {
            **row,
            "time_ms": 1e3 * fast_seconds(own.call_seconds),
            "share_of_floor": amount * ratio(own.call_seconds, best.call_seconds),
            "share_of_floor_low": amount * low,
            "share_of_floor_high": amount * high,
            "implementation": own.form,
            "rounds": len(own.call_seconds),
            "verdict": own.verdict,
        }


def run_stages(plan: StagesPlan, emit: Emit, *, logs: Path, evaluator: Evaluator | None = None) -> StagesFindings:
    """Returns the timings of a network's parts, the whole network, a large product and a large copy.

    Args:
        plan: Settings.
        emit: Receives an event for each step and each round.
        logs: Folder for the output of the worker process.
        evaluator: Evaluator that times. Defaults to local workers.

    Raises:
        MeasurementError: The product or the copy could not be timed, so the floors are unknown.
        DeviceError: This machine does not have the device.
    """
    with evaluator_or_local(evaluator, logs, purpose="bench stages") as evaluator:
        report = run_task(evaluator, Inspect(target=plan.device), emit)
        emit(BenchStepped(text=f"parts of {plan.network}", done=0, total=1))
        kind = report.identity.kind
        task = Time(
            condition=plan.condition(kind),
            entries=_entrants(plan, kind),
            target=report.target,
            seconds=plan.seconds,
        )
        timing = time_together(evaluator, task, emit)
    for name in (_PRODUCT, _COPY):
        if name in timing.failures:
            raise MeasurementError(
                f"the {name} that gives the device's rate must run, but failed: {timing.failures[name]}"
            )
    return StagesFindings(plan=plan, measurements=timing.measurements, failures=timing.failures)


def _entrants(plan: StagesPlan, device: str) -> dict[str, Entrant]:
    condition = plan.condition(device)
    arch = plan.arch.to_dict()
    common = {"device": device, "precision": plan.precision}
    part = {**common, "arch": arch, "batch_size": plan.batch_size, "img_size": plan.img_size}
    subjects: dict[str, dict[str, Any]] = {
        name: {"function": "hilo_nas.models.network_parts:build_part", "arguments": {**part, "part": name}}
        for name in PARTS
    }
    subjects[_PRODUCT] = {
        "function": "hilo_nas.bench.stages.device_rates:build_product",
        "arguments": {**common, "side": _side(condition.device)},
    }
    subjects[_COPY] = {
        "function": "hilo_nas.bench.stages.device_rates:build_copy",
        "arguments": {"device": device, "n_bytes": _COPIED_BYTES},
    }
    entrants = {
        name: Entrant(subject=subject, condition=condition, num_classes=_NUM_CLASSES)
        for name, subject in subjects.items()
    }
    whole = Entrant(subject={"arch": arch}, condition=condition.vary(fused=True), num_classes=_NUM_CLASSES)
    return {**entrants, _WHOLE: whole}


def _side(device_kind: str) -> int:
    return _CUDA_SIDE if device_kind == "cuda" else _SIDE
