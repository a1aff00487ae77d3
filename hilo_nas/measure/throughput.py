"""Throughput of a network on the device itself, anchored by a reference network that is not ours.

Runs in a worker process. A candidate is timed in rounds between blocks of the reference; its speed is the median ratio
times the reference's calibrated speed, so that a machine that slows down for both is divided out.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import timm
import torch

from hilo_nas.errors import MeasurementError, is_out_of_memory
from hilo_nas.events import Emit, Notice, RoundTimed
from hilo_nas.measure.device import check_device, identify_device, peak_memory_mib, synchronizer
from hilo_nas.measure.timer import Rounds, Stopwatch, WarmUp, robust_spread
from hilo_nas.measure.worker import TUNED_ENVIRONMENT
from hilo_nas.measurement import Calibration, Condition, Measurement
from hilo_nas.models import build_subject, form_of

__all__ = ["REFERENCE", "calibrate", "measure", "summarize"]

REFERENCE = "timm:resnet18"
"""The network beside which every candidate is timed: plain convolutions, eager, the same input size and batch."""

_TIMING_S = 1.5
"""Seconds that a candidate and its reference blocks are timed for, within the bounds on rounds."""
_UNSTEADY = "calls did not become equally long (other work may be running)"
_ROUNDS = (7, 40)
_WARM_UP_S = 3.0
_CALIBRATION_ROUNDS = 15
_LATENCY_S, _LATENCY_CALLS = 0.5, 50
_RECORDED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTORCH_CUDA_ALLOC_CONF", "NVIDIA_TF32_OVERRIDE")
"""Variables of the user's that change speed: left as they are, and recorded."""
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_DEFAULT_THREADS = torch.get_num_threads()


class _Bench:
    """One condition on one device: builds networks for it and calls them."""

    def __init__(self, condition: Condition) -> None:
        self.condition = condition
        self.device = check_device(condition.device)
        self.identity = identify_device(condition.device)
        self.stopwatch = Stopwatch(clock=time.perf_counter, synchronize=synchronizer(self.device))
        torch.set_num_threads(condition.threads or _DEFAULT_THREADS)
        torch.backends.cudnn.benchmark = True  # input shapes never change here
        self.image = self._input()

    def _input(self) -> torch.Tensor:
        """Random, never zero: [batch, 3, side, side]."""
        side = self.condition.img_size
        generator = torch.Generator().manual_seed(0)
        image = torch.randn(self.condition.batch_size, 3, side, side, generator=generator)
        placed: torch.Tensor = self._placed(image)
        return placed

    def _placed(self, thing: Any) -> Any:
        """The input or the network, on the device and in the condition's precision and layout."""
        dtype = _DTYPES.get(self.condition.precision, torch.float32)
        layout = torch.channels_last if self.condition.channels_last else torch.contiguous_format
        return thing.to(device=self.device, dtype=dtype, memory_format=layout)

    def build(self, subject: Mapping[str, Any], *, num_classes: int) -> torch.nn.Module:
        """Returns the network in evaluation mode on the device, with weights as a trained network might have them."""
        torch.manual_seed(0)
        model = build_subject(dict(subject), num_classes=num_classes, in_chans=3).eval()
        for parameter in model.parameters():
            # Weights that start at zero (sampling offsets) would make memory accesses more regular than in use.
            if parameter.dim() > 1 and not parameter.any():
                torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        placed: torch.nn.Module = self._placed(model)
        return placed

    def call(self, model: torch.nn.Module) -> Callable[[], torch.Tensor]:
        """Returns one call of the network on the batch, under the condition's precision."""
        precision = self.condition.precision
        if not precision.startswith("amp-"):
            return lambda: model(self.image)
        dtype = _DTYPES[precision.removeprefix("amp-")]

        def call() -> torch.Tensor:
            with torch.autocast(self.device.type, dtype=dtype):
                return model(self.image)  # type: ignore[no-any-return]

        return call

    def environment(self) -> dict[str, str]:
        settings = {name: os.environ[name] for name in (*TUNED_ENVIRONMENT, *_RECORDED) if name in os.environ}
        settings["float32_matmul_precision"] = torch.get_float32_matmul_precision()
        if self.device.type == "cuda":
            settings["cudnn.benchmark"] = str(torch.backends.cudnn.benchmark)
            settings["cudnn.allow_tf32"] = str(torch.backends.cudnn.allow_tf32)
        return settings


class _Reference:
    """The reference network, warm, under one condition; kept between candidates."""

    kept: _Reference | None = None

    def __init__(self, bench: _Bench) -> None:
        self.condition = bench.condition
        self.call = bench.call(bench.build({"timm": REFERENCE.removeprefix("timm:")}, num_classes=1000))
        self.warm = bench.stopwatch.warm_up(self.call, at_most_s=_WARM_UP_S)

    @classmethod
    def under(cls, bench: _Bench) -> _Reference:
        """Returns the reference for the condition, built if the last one was another."""
        if cls.kept is None or cls.kept.condition != bench.condition:
            cls.kept = None
            cls.kept = cls(bench)
        return cls.kept


def _ready(condition: Condition) -> tuple[_Bench, _Reference]:
    """Returns the bench and the warm reference for a condition.

    Raises:
        DeviceError: This machine does not have the device.
        MeasurementError: Not even the reference fits into memory, so nothing can be said of any network.
    """
    try:
        with torch.inference_mode():
            bench = _Bench(condition)
            return bench, _Reference.under(bench)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        _Reference.kept = None
        raise MeasurementError(
            f"the reference network ({REFERENCE}) must fit into memory, but batch_size {condition.batch_size} at "
            f"{condition.img_size} px does not on {condition.device}. Use a smaller --batch-size, or free its memory."
        ) from error


def calibrate(condition: Mapping[str, Any], *, emit: Emit) -> dict[str, Any]:
    """Times the reference network alone; returns a `Calibration` as plain data.

    Raises:
        DeviceError: This machine does not have the device.
        MeasurementError: The reference does not fit into memory at this batch.
    """
    asked = Condition(**condition)
    bench, reference = _ready(asked)
    calls = reference.warm.calls_per_block
    with torch.inference_mode():
        blocks = [bench.stopwatch.time_block(reference.call, calls) for _ in range(_CALIBRATION_ROUNDS)]
    if not reference.warm.steady:
        emit(Notice(level="warning", text=f"{_UNSTEADY} while the reference was timed"))
    speeds = [asked.batch_size / block for block in blocks]
    return dataclasses.asdict(
        Calibration(
            reference=REFERENCE,
            images_per_s=statistics.median(speeds),
            images_per_s_spread=robust_spread(speeds),
            call_seconds=tuple(blocks),
            steady=reference.warm.steady,
            device=bench.identity,
        )
    )


def measure(
    subject: Mapping[str, Any],
    condition: Mapping[str, Any],
    calibration: Mapping[str, Any],
    num_classes: int,
    *,
    emit: Emit,
) -> dict[str, Any]:
    """Times one network beside the reference; returns a `Measurement` as plain data.

    Memory that torch's allocator keeps is given back at the end, for others train on the same device.

    Args:
        subject: `{"arch": {...}}` or `{"timm": NAME}`.
        condition: A `Condition` as plain data.
        calibration: The study's `Calibration` as plain data.
        num_classes: Outputs of the network's classifier.
        emit: Told of each round.

    Raises:
        OutOfMemoryError: The network does not fit; the batch is never lowered.
        DeviceError: This machine does not have the device.
        MeasurementError: Not even the reference fits into memory.
    """
    start = time.perf_counter()
    bench, reference = _ready(Condition(**condition))
    anchor = Calibration.from_dict(calibration)
    try:
        with torch.inference_mode():
            model = bench.build(subject, num_classes=num_classes)
            form = form_of(model, bench.device, bench.condition.precision)
            call = bench.call(model)
            if bench.condition.compile:
                torch.compiler.reset()
                call = bench.call(torch.compile(model, dynamic=False))  # type: ignore[arg-type]
                form += " compiled"
            call()  # compiles, chooses kernels: however long that takes, it is no warm-up
            warm = bench.stopwatch.warm_up(call, at_most_s=_WARM_UP_S)
            if not warm.steady:
                emit(Notice(level="warning", text=f"{_UNSTEADY} while a network was timed"))
            rounds = _time_rounds(bench, call, warm, reference, emit)
            latency = bench.stopwatch.time_latency(call, at_most_s=_LATENCY_S, at_most=_LATENCY_CALLS)
            memory = None
            with contextlib.suppress(AttributeError):  # the profiler's raw events are not a promise of torch's
                memory = peak_memory_mib(call, model, bench.device)
    finally:
        model = call = None  # type: ignore[assignment]
        gc.collect()
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
    summary = summarize(rounds, latency, batch_size=bench.condition.batch_size, calibrated=anchor.images_per_s)
    return dataclasses.asdict(
        Measurement(
            condition=bench.condition,
            device=bench.identity,
            **summary,
            memory_mib=memory,
            steady=warm.steady,
            warmup_calls=warm.calls,
            seconds=time.perf_counter() - start,
            form=form,
            threads=torch.get_num_threads(),
            environment=bench.environment(),
            versions={"torch": torch.__version__, "timm": timm.__version__},
            measured_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
    )


def _time_rounds(bench: _Bench, call: Callable[[], object], warm: WarmUp, reference: _Reference, emit: Emit) -> Rounds:
    calls = (warm.calls_per_block, reference.warm.calls_per_block)
    round_s = calls[0] * warm.call_seconds + calls[1] * reference.warm.call_seconds
    rounds = min(max(round(_TIMING_S / round_s), _ROUNDS[0]), _ROUNDS[1])
    batch_size, label = bench.condition.batch_size, bench.condition.label()

    def on_round(done: int, seconds: float) -> None:
        emit(RoundTimed(condition=label, round=done, rounds=rounds, images_per_s=batch_size / seconds))

    return bench.stopwatch.time_rounds(call, reference.call, calls=calls, rounds=rounds, on_round=on_round)


def summarize(rounds: Rounds, latency: tuple[float, ...], *, batch_size: int, calibrated: float) -> dict[str, Any]:
    """Returns the figures of a `Measurement` that follow from its samples.

    Args:
        rounds: The interleaved samples.
        latency: Seconds of single calls.
        batch_size: Images per call.
        calibrated: The reference's speed in images/s when the study began.
    """
    ratios = rounds.ratios
    percentiles = _percentiles(latency)
    return {
        "images_per_s": calibrated * statistics.median(ratios),
        "images_per_s_spread": calibrated * robust_spread(ratios),
        "images_per_s_raw": batch_size / statistics.median(rounds.candidate),
        "latency_ms_p50": percentiles[50],
        "latency_ms_p95": percentiles[95],
        "latency_ms_p99": percentiles[99],
        "call_seconds": rounds.candidate,
        "reference_seconds": rounds.reference,
        "latency_seconds": latency,
        "ratios": ratios,
    }


def _percentiles(seconds: tuple[float, ...]) -> dict[int, float]:
    """The p50, p95 and p99 in milliseconds: the smallest sample that this share of all does not exceed."""
    ordered = sorted(seconds)
    return {share: ordered[-(-share * len(ordered) // 100) - 1] * 1e3 for share in (50, 95, 99)}
