"""The two functions that a worker process runs for every proxy. Arguments and results are plain JSON."""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Mapping
from typing import Any

import torch

from hilo_nas.clock import utc_now
from hilo_nas.data.prepared_images import CachedData
from hilo_nas.events import Emit
from hilo_nas.hashes import short_hash
from hilo_nas.measurement import ProxyPlan, ProxyScore
from hilo_nas.proxy.kinds import Proxy
from hilo_nas.proxy.micro_batches import memory_given_back
from hilo_nas.proxy.work import Result, ScoreJob, Work
from hilo_nas.versions import versions

__all__ = ["prepare_proxy", "score_network"]


def prepare_proxy(
    *,
    emit: Emit,
    plan: Mapping[str, Any],
    data: Mapping[str, Any] | None,
    device: str,
    source: str | None = None,
) -> dict[str, Any]:
    """Prepares a proxy before the first trial and returns `{"facts": {...}, "local": {...}}`.

    Pass the result to `score_network` as `prepared`. Equal arguments give equal facts, so a new worker can repeat the
    call. Only proxies with `Proxy.prepares` need this call.

    Args:
        emit: Receives `TrainingProgressed` and `Notice` events.
        plan: `ProxyPlan.to_dict()`.
        data: `CachedData.to_dict()`, or None for a proxy that does not use images (`Proxy.sees_images`).
        device: `cpu`, `cuda`, `cuda:N` or `mps`.
        source: Location of the user function from `plugins.absolute`, or None for a proxy without `has_source`.

    Raises:
        HiloNasError: The proxy cannot be used.
    """
    the_plan = ProxyPlan.from_dict(plan)
    the_data = None if data is None else CachedData.from_dict(data)
    prepared = _work_of(the_plan.declaration).prepare(the_plan, the_data, device, source, emit)
    return dataclasses.asdict(prepared)


def score_network(*, emit: Emit, **job: Any) -> dict[str, Any]:
    """Scores one network and returns `{"score": ProxyScore, "further": [ProxyScore, ...]}` as plain data.

    For a proxy with rungs, the work may be split over several calls. Each call resumes from the checkpoint of the
    previous one. The result is the same as that of a single call, except that `seconds` covers the last call only.

    The function seeds torch's default generator. At the end, it frees torch's cached memory on a CUDA device (except
    the cuBLAS workspace) because another process times networks on the same device.

    Args:
        emit: Receives `TrainingStarted`, `TrainingProgressed` and `Notice` events.
        **job: Fields of `ScoreJob`, as for `ScoreJob.from_dict`.

    Raises:
        RecordError: A field of the job is invalid.
        UsageError: The plan or job requires an unavailable version, image size or precision.
        OutOfMemoryError: The network does not fit in memory, even with one image at a time.
        StudyMismatchError: The user function was edited after the plan was created.
        StorageError: The image cache is missing.
        HiloNasError: The network cannot be scored.
    """
    began = time.monotonic()
    the_job = ScoreJob.from_dict(job)
    proxy = the_job.plan.declaration
    with memory_given_back(torch.device(the_job.device), what=f"the proxy {proxy.name}"):
        results = _work_of(proxy).score(the_job, emit)
    seconds = time.monotonic() - began
    score, *further = (_build_score(result, the_job, seconds) for result in results)
    names = [short_hash([score.plan_hash, precision]) for precision in the_job.score_under]
    further = [dataclasses.replace(one, plan_hash=name) for one, name in zip(further, names, strict=True)]
    return {"score": dataclasses.asdict(score), "further": [dataclasses.asdict(one) for one in further]}


def _work_of(proxy: Proxy) -> Work:
    assert proxy.work is not None, f"{proxy.name} needs no worker"
    module, _, name = proxy.work.partition(":")
    work: Work = getattr(importlib.import_module(module), name)()
    return work


def _build_score(result: Result, job: ScoreJob, seconds: float) -> ProxyScore:
    plan, name = job.plan, job.plan.baseline_hash if result.is_baseline else job.plan.hash
    return ProxyScore(
        plan_hash=name(job.data.content_hash),
        metric=plan.score_metric,
        value=result.value,
        standard_error=result.standard_error,
        chance=result.chance,
        loss=result.loss,
        n_val=result.n_val,
        images_seen=plan.budgets[-1] if result.images_seen is None else result.images_seen,
        seconds=seconds,
        seed=job.seed,
        micro_batch_size=result.micro_batch_size,
        device=job.device,
        versions={**versions(), "torch": torch.__version__},  # includes the CUDA version of the build
        scored_at=utc_now(),
        float_value=result.float_value,
        drop_error=result.drop_error,
        float_layers=result.float_layers,
    )
