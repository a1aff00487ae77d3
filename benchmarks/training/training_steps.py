"""Time per part of a proxy training's step."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from hilo_nas.data import CachedData
from hilo_nas.errors import UsageError
from hilo_nas.evaluation import BenchWorker
from hilo_nas.events import BenchStepped, Emit
from hilo_nas.measurement import DeviceIdentity, ProxyPlan
from hilo_nas.models import build_subject
from hilo_nas.proxy.train import Training
from hilo_nas.searching.configuration.resolve import reading_of
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.opening.study_setup import DEFAULT_DATA
from hilo_nas.timing.device import synchronizer

__all__ = ["PARTS", "run_training", "time_training"]

PARTS = ("batch", "gradient", "update")
"""Parts of a step, by their names in `Training`."""
_WARM_UP = 5
"""Number of steps before the timed ones."""


def run_training(
    subject: str | Mapping[str, Any],
    plan: ProxyPlan,
    config: SearchConfig,
    emit: Emit,
    *,
    steps: int,
    log: Path,
) -> dict[str, Any]:
    """Returns the results of `time_training` in a worker process, with the device's name and model.

    Args:
        subject: Network, as for `build_subject`.
        plan: Plan of the training. Its budget is not used.
        config: Device, images and idle timeout.
        emit: Receives the events.
        steps: Number of steps to time as a whole, and again part by part.
        log: File for the output of the worker process.

    Raises:
        UsageError: `steps` is below 1.
        HiloNasError: Any error of `prepare_data` or `Training`.
    """
    if steps < 1:
        raise UsageError(f"steps must be at least 1, but got {steps}")
    data = config.data
    with BenchWorker(log, purpose="bench training", idle_timeout_s=config.study.idle_timeout_s) as worker:
        found = worker.call("hilo_nas.timing.device:read_device", {"device": config.timing.device}, emit)
        source = {"source": data.source or DEFAULT_DATA, "img_size": plan.img_size, "cache_dir": data.cache_dir}
        source |= {"val_data": data.val_source, "group_by": data.group_by, "options": reading_of(config).to_dict()}
        images = worker.call("hilo_nas.data.prepared_images:describe_data", source, emit)
        arguments = {"subject": subject, "plan": plan.to_dict(), "data": images, "steps": steps}
        arguments["device"] = found["device"]
        emit(BenchStepped(text=f"{steps} steps of {plan.batch_size} images", done=0, total=1))
        identity = DeviceIdentity(**found["identity"])
        timed: dict[str, Any] = worker.call(
            "benchmarks.training.training_steps:time_training", arguments, emit, device=identity, timing=True
        )
    return {"device": found["device"], "model": found["identity"]["model"], **timed}


def time_training(
    *,
    emit: Emit,
    subject: str | Mapping[str, Any],
    plan: Mapping[str, Any],
    data: Mapping[str, Any],
    steps: int,
    device: str,
) -> dict[str, Any]:
    """Returns the speed of a training and the time of each part of a step.

    The device is synchronized before and after each part. On a GPU, the CPU normally works while the device computes,
    so the sum of the parts may exceed the time of a step.

    Args:
        emit: Receives notices.
        subject: Network, as for `build_subject`.
        plan: `ProxyPlan.to_dict()`.
        data: `CachedData.to_dict()`.
        steps: Number of steps to time as a whole, and again part by part.
        device: `cpu`, `cuda`, `cuda:N` or `mps`.
    """
    wait = synchronizer(torch.device(device))
    seconds: dict[str, float] = defaultdict(float)
    is_watching = False

    @contextlib.contextmanager
    def watch(part: str) -> Iterator[None]:
        if not is_watching:
            yield
            return
        wait()
        start = time.perf_counter()
        yield
        wait()
        seconds[part] += time.perf_counter() - start

    def run(count: int) -> float:
        wait()
        start = time.perf_counter()
        for _ in training.steps(training.images_seen + count * training.plan.batch_size):
            pass
        wait()
        return time.perf_counter() - start

    cached_data = CachedData.from_dict(data)
    torch.manual_seed(0)
    model = build_subject(subject, cached_data.num_classes, 3)
    training = Training(
        model, ProxyPlan.from_dict(plan), cached_data, seed=0, device=torch.device(device), emit=emit, watch=watch
    )
    run(_WARM_UP)
    step_s = run(steps) / steps
    is_watching = True
    run(steps)
    is_watching = False
    training.evaluate()
    start = time.perf_counter()
    n_val = len(training.evaluate().labels)
    return {
        "images_per_s": training.plan.batch_size / step_s,
        "step_ms": 1e3 * step_s,
        "parts_ms": {part: 1e3 * seconds[part] / steps for part in PARTS},
        "scored_images_per_s": n_val / (time.perf_counter() - start),
        "micro_batch_size": training.micro_batch.size,
    }
