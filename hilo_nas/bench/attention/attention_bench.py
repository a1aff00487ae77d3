"""Single-layer comparison of the LITv2 paper: HiLo and other attention layers, timed in the same rounds.

All layers of a shape are timed in the same rounds. The reference is HiLo with LITv2's settings (alpha 0.9, windows of
2), so that the ratio of each layer's speed to it is measured round by round.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hilo_nas.bench.attention.layers import KINDS, PUBLISHED, PUBLISHED_AT, SHAPES, Layer, Shape, list_layers
from hilo_nas.bench.cohort_timing import advise, time_together
from hilo_nas.errors import HiloNasError, MeasurementError, UsageError
from hilo_nas.evaluation import Evaluator, Inspect, Time, Timing, evaluator_or_local, run_task
from hilo_nas.events import BenchStepped, Emit
from hilo_nas.measurement import Condition, Measurement, kind_of_device
from hilo_nas.measurement.intervals import interval
from hilo_nas.measurement.rounds import ratio
from hilo_nas.report import build_cohort_frame
from hilo_nas.timing import Entrant

__all__ = ["AttentionFindings", "AttentionPlan", "Headline", "run_attention"]

_PUBLISHED_BATCH = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionPlan:
    """Settings of the attention benchmark.

    Raises:
        UsageError: One or more values are invalid. The message lists all of them.
    """

    device: str | None = None
    """Name of the device. None selects the fastest kind on this machine."""
    precision: str = "fp32"
    batch_sizes: Sequence[int] = (1, _PUBLISHED_BATCH)
    shapes: Sequence[Shape] = SHAPES
    kinds: Sequence[str] = KINDS
    """Kinds of layers to compare with HiLo, from `KINDS`."""
    is_quick: bool = False
    """True to skip HiLo's grid over alpha and window size."""
    seconds: float = 2.0
    """Maximum seconds per layer and shape. At least 12 rounds are always timed."""
    threads: int | None = None

    def __post_init__(self) -> None:
        faults = []
        if not self.batch_sizes or not self.shapes:
            faults.append("at least one batch size and one shape are needed")
        if self.seconds <= 0:
            faults.append(f"seconds must be above 0, but got {self.seconds:g}")
        if faults:
            raise UsageError("\n".join(faults))
        for batch_size in self.batch_sizes:
            self.condition(kind_of_device(self.device or "cpu"), batch_size, self.shapes[0])
        list_layers(self.shapes[0], self.kinds)

    def condition(self, device: str, batch_size: int, shape: Shape) -> Condition:
        """Returns the condition for the layers of a shape. Its image size is the side of the map in tokens."""
        return Condition(
            device=device,
            batch_size=batch_size,
            img_size=shape.side,
            precision=self.precision,
            threads=self.threads,
        )

    @property
    def is_part(self) -> bool:
        """True if some layers or shapes are left out."""
        return self.is_quick or set(self.shapes) != set(SHAPES) or set(self.kinds) != set(KINDS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Headline:
    """Ratio of HiLo's speed to another layer's speed, published and measured."""

    title: str
    """Name of the other layer."""
    published: float
    measured: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    macs: float
    """Multiply-adds of the other layer divided by HiLo's."""

    def sentence(self) -> str:
        """Returns both ratios in a sentence."""
        return (
            f"HiLo over {self.title}: {self.measured:.2f} [{self.low:.2f}, {self.high:.2f}] here, "
            f"{self.published:.2f} published; {self.title} needs {self.macs:.2f} times as many multiply-adds"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionFindings:
    """Findings of the attention benchmark at one batch size."""

    batch_size: int
    timings: Sequence[tuple[Shape, Sequence[Layer], Timing]]
    """Layers and their timings for each shape."""

    @property
    def measurements(self) -> list[Measurement]:
        """Measurements of all shapes."""
        return [measurement for _, _, timing in self.timings for measurement in timing.measurements.values()]

    @property
    def failures(self) -> dict[str, HiloNasError]:
        """Errors by layer and shape."""
        return {
            f"{name} at {shape}": error for shape, _, timing in self.timings for name, error in timing.failures.items()
        }

    def list_rows(self) -> list[dict[str, Any]]:
        """Returns a row for each layer at each shape, with the ratio to HiLo with LITv2's settings."""
        rows = []
        for shape, layers, timing in self.timings:
            taken = {
                layer.name: timing.measurements[layer.name] for layer in layers if layer.name in timing.measurements
            }
            timed = {row["name"]: row for row in build_cohort_frame(taken).to_dict("records")} if taken else {}
            rows += [self._row(shape, layer, timed.get(layer.name), timing.failures) for layer in layers]
        return rows

    def _row(
        self, shape: Shape, layer: Layer, timed: Mapping[Any, Any] | None, failures: Mapping[str, HiloNasError]
    ) -> dict[str, Any]:
        is_published = shape == PUBLISHED_AT and self.batch_size == _PUBLISHED_BATCH and layer.is_benchmarked
        return {
            "shape": str(shape),
            "batch_size": self.batch_size,
            "layer": layer.name,
            "kind": layer.kind,
            **{key: layer.knobs.get(key) for key in ("alpha", "window_size", "rank")},
            "mmacs": layer.macs / 1e6,
            "params_m": layer.params / 1e6,
            "published_ratio": PUBLISHED[layer.title] / PUBLISHED["HiLo"] if is_published else None,
            **{
                key: value
                for key, value in (timed or {}).items()
                if key not in ("name", "img_size", "condition", "device")
            },
            "verdict": "failed" if timed is None else timed["verdict"],
            "failure": str(failures[layer.name]) if layer.name in failures else None,
        }

    def list_headlines(self) -> list[Headline]:
        """Returns the published and measured ratios of HiLo to SRA and to local windows.

        Includes only layers that shared their rounds with HiLo at the published shape and batch size.
        """
        found = []
        for shape, layers, timing in self.timings:
            own = timing.measurements.get(layers[0].name)
            if own is None or shape != PUBLISHED_AT or self.batch_size != _PUBLISHED_BATCH:
                continue
            for layer in layers:
                other = timing.measurements.get(layer.name)
                if layer.kind not in ("sra", "window") or other is None or other.cohort != own.cohort:
                    continue
                low, high = interval(own.call_seconds, other.call_seconds)
                found.append(
                    Headline(
                        title=layer.name,
                        published=PUBLISHED["HiLo"] / PUBLISHED[layer.title],
                        measured=ratio(own.call_seconds, other.call_seconds),
                        low=low,
                        high=high,
                        macs=layer.macs / layers[0].macs,
                    )
                )
        return found

    def advise(self) -> list[str]:
        """Returns advice about the machine if timings were not steady."""
        return advise(self.measurements)


def run_attention(
    plan: AttentionPlan, emit: Emit, *, logs: Path, evaluator: Evaluator | None = None
) -> list[AttentionFindings]:
    """Returns the findings for each batch size at which at least one layer ran.

    Args:
        plan: Settings.
        emit: Receives an event for each step, each layer and each round.
        logs: Folder for the output of the worker process.
        evaluator: Evaluator that times the layers. Defaults to local workers.

    Raises:
        MeasurementError: No layer could be timed.
        DeviceError: This machine does not have the device.
    """
    steps = [(batch_size, shape) for batch_size in plan.batch_sizes for shape in plan.shapes]
    timings: dict[int, list[tuple[Shape, Sequence[Layer], Timing]]] = {}
    with evaluator_or_local(evaluator, logs, purpose="bench attention") as evaluator:
        report = run_task(evaluator, Inspect(target=plan.device), emit)
        for done, (batch_size, shape) in enumerate(steps):
            layers = list_layers(shape, plan.kinds, is_quick=plan.is_quick)
            text = f"{len(layers)} layers at {shape}, batch {batch_size}"
            emit(BenchStepped(text=text, done=done, total=len(steps)))
            condition = plan.condition(report.identity.kind, batch_size, shape)
            task = Time(
                condition=condition,
                entries={layer.name: Entrant(subject=layer.subject, condition=condition) for layer in layers},
                reference=layers[0].subject,
                target=report.target,
                seconds=plan.seconds,
            )
            timings.setdefault(batch_size, []).append((shape, layers, time_together(evaluator, task, emit)))
    found = [AttentionFindings(batch_size=size, timings=items) for size, items in timings.items()]
    timed = [findings for findings in found if findings.measurements]
    if not timed:
        raise MeasurementError(f"no layer could be timed: {next(iter(found[0].failures.values()))}")
    return timed
