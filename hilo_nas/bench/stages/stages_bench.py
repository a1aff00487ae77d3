"""Where a network's time goes, part by part, and how far each part is from what the device does at best.

A part can be no faster than its multiply-adds at the device's rate, nor than the bytes that it must at least move
(its weights, the map that comes in and the one that goes out) at the device's bandwidth. Both rates are those of a
large product and of a large copy, timed in the same rounds as the parts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hilo_nas.arch.config import PRESETS, ArchConfig
from hilo_nas.arch.cost import PARTS, count_parts, map_sizes
from hilo_nas.bench.cohort_timing import advise, time_together
from hilo_nas.errors import HiloNasError, MeasurementError, UsageError
from hilo_nas.evaluation import Evaluator, Inspect, Time, evaluator_or_local, run_task
from hilo_nas.events import BenchStepped, Emit
from hilo_nas.measurement import Condition, Measurement, kind_of_device
from hilo_nas.measurement.rounds import fast_seconds, interval, ratio
from hilo_nas.timing import Entrant

__all__ = ["StagesFindings", "StagesPlan", "run_stages"]

_WHOLE, _PRODUCT, _COPY = "whole", "product", "copy"
_SIDE, _CUDA_SIDE = 2048, 8192
"""Side of the square matrices whose product shows the rate of multiply-adds."""
_COPIED_BYTES = 2**27
"""Read, and as many written: more than most caches hold."""
_ELEMENT_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_IN_CHANS, _NUM_CLASSES = 3, 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class StagesPlan:
    """What is to be timed.

    Raises:
        UsageError: With every fault of the values given.
    """

    network: str = "litv2_small"
    """One of the presets."""
    device: str | None = None
    """None for the fastest kind that this machine has."""
    batch_size: int = 8
    img_size: int = 224
    precision: str = "fp32"
    """Without autocast, which lets every part choose its own."""
    seconds: float = 3.0
    """Seconds that each part is timed for at most; 12 rounds are timed in any case."""
    threads: int | None = None

    def __post_init__(self) -> None:
        faults = []
        if self.network not in PRESETS:
            faults.append(f"network must be one of {', '.join(PRESETS)}, but got {self.network!r}")
        if self.precision not in _ELEMENT_BYTES:
            faults.append(f"precision must be one of {', '.join(_ELEMENT_BYTES)}, but got {self.precision!r}")
        if not 0 < self.seconds < math.inf:
            faults.append(f"seconds must be above 0, but got {self.seconds:g}")
        if faults:
            raise UsageError("\n".join(faults))
        self.condition(kind_of_device(self.device or "cpu"))
        map_sizes(self.arch, self.img_size)

    @property
    def arch(self) -> ArchConfig:
        """The network."""
        return PRESETS[self.network]

    def condition(self, device: str) -> Condition:
        """Returns how all is timed; the parts are built in their inference form, so nothing is left to fuse."""
        return Condition(
            device=device,
            batch_size=self.batch_size,
            img_size=self.img_size,
            precision=self.precision,
            threads=self.threads,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StagesFindings:
    """The parts, the whole, a product and a copy, timed side by side."""

    plan: StagesPlan
    measurements: Mapping[str, Measurement]
    failures: Mapping[str, HiloNasError]

    @property
    def macs_per_s(self) -> float:
        """The device's rate of multiply-adds."""
        return _side(self.plan.condition(self._device).device) ** 3 / self._seconds(_PRODUCT)

    @property
    def bytes_per_s(self) -> float:
        """The device's bandwidth."""
        return 2 * _COPIED_BYTES / self._seconds(_COPY)

    def list_rows(self) -> list[dict[str, Any]]:
        """Returns a row for each part, one for their sum, and one for the whole network."""
        costs = count_parts(self.plan.arch, self.plan.img_size, num_classes=_NUM_CLASSES)
        rows = [self._row(part, costs[part].macs, self._part_bytes(part, costs[part].parameters)) for part in PARTS]
        total = {name: sum(row[name] for row in rows) for name in ("floor_ms", "mmacs", "mib")}
        times_ms = [row["time_ms"] for row in rows if row["time_ms"] is not None]
        for row in rows:
            row["share_of_time"] = row["time_ms"] / sum(times_ms) if len(times_ms) == len(rows) else None
        whole = self.measurements.get(_WHOLE)
        ends: dict[str, float | None] = {
            "all parts": sum(times_ms) if len(times_ms) == len(rows) else None,
            "the network": None if whole is None else 1e3 * fast_seconds(whole.call_seconds),
        }
        for name, time_ms in ends.items():
            share = None if time_ms is None else total["floor_ms"] / time_ms
            rows.append({"part": name, **total, "time_ms": time_ms, "share_of_floor": share})
        rows[-1] |= {
            "implementation": None if whole is None else whole.form,
            "verdict": "failed" if whole is None else whole.verdict,
        }
        return rows

    def advise(self) -> list[str]:
        """Returns what to do about the machine, if it was not steady."""
        return advise(self.measurements.values())

    @property
    def _device(self) -> str:
        return self.measurements[_PRODUCT].condition.device

    def _seconds(self, name: str) -> float:
        return fast_seconds(self.measurements[name].call_seconds)

    def _part_bytes(self, part: str, parameters: int) -> int:
        """What a part must at least move: weights, the map that comes in, the map that goes out."""
        arch, plan = self.plan.arch, self.plan
        maps = [h * w * dim for (h, w), dim in zip(map_sizes(arch, plan.img_size), arch.embed_dims, strict=True)]
        steps = [_IN_CHANS * plan.img_size**2, maps[0], *maps, _NUM_CLASSES]
        index = PARTS.index(part)
        elements = parameters + plan.batch_size * (steps[index] + steps[index + 1])
        return elements * _ELEMENT_BYTES[plan.precision]

    def _row(self, part: str, macs: int, n_bytes: int) -> dict[str, Any]:
        """The floor is the later of two ends: of the products, and of the traffic."""
        macs *= self.plan.batch_size
        ends = {_PRODUCT: macs / self.macs_per_s, _COPY: n_bytes / self.bytes_per_s}
        bound = max(ends, key=ends.__getitem__)
        row: dict[str, Any] = {
            "part": part,
            "time_ms": None,
            "floor_ms": 1e3 * ends[bound],
            "mmacs": macs / 1e6,
            "mib": n_bytes / 2**20,
            "bound": {_PRODUCT: "products", _COPY: "memory"}[bound],
            "verdict": "failed",
        }
        own = self.measurements.get(part)
        if own is None:
            return {**row, "failure": str(self.failures[part])}
        best = self.measurements[bound]
        # By paired rounds: how fast the part is beside the product or the copy, times how much of it the part needs.
        amount = ends[bound] / fast_seconds(best.call_seconds)
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
    """Times the parts of a network, all of it, a large product and a large copy, side by side.

    Args:
        plan: What to time.
        emit: Receives an event for each step and each round.
        logs: Folder for what the timing process prints.
        evaluator: Times; that of this machine if left out.

    Raises:
        MeasurementError: The product or the copy could not be timed, so there is nothing to compare with.
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
            raise MeasurementError(f"the {name} that shows the device's rate must run, but {timing.failures[name]}")
    return StagesFindings(plan=plan, measurements=timing.measurements, failures=timing.failures)


def _entrants(plan: StagesPlan, device: str) -> dict[str, Entrant]:
    condition = plan.condition(device)
    arch = plan.arch.to_dict()
    common = {"device": device, "precision": plan.precision}
    part = {**common, "arch": arch, "batch_size": plan.batch_size, "img_size": plan.img_size}
    subjects: dict[str, dict[str, Any]] = {
        name: {"function": "hilo_nas.bench.stages.stage_parts:build_part", "arguments": {**part, "part": name}}
        for name in PARTS
    }
    subjects[_PRODUCT] = {
        "function": "hilo_nas.bench.stages.stage_parts:build_product",
        "arguments": {**common, "side": _side(condition.device)},
    }
    subjects[_COPY] = {
        "function": "hilo_nas.bench.stages.stage_parts:build_copy",
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
