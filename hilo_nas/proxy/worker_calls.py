"""The two functions that a worker process runs for any proxy. Everything that they take and return is plain JSON."""

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
    """Does a proxy's work before the first trial and returns `{"facts": {...}, "local": {...}}`.

    `score_network` takes the result as `prepared`. Equal arguments give equal facts, so a new worker may be asked
    again. Only a proxy whose declaration says `prepares` needs the call.

    Args:
        emit: Takes `TrainingProgressed` and `Notice`.
        plan: `ProxyPlan.to_dict()`.
        data: `CachedData.to_dict()`; None for a proxy that is not given the images (`Proxy.sees_images`).
        device: `cpu`, `cuda`, `cuda:N` or `mps`.
        source: For a proxy with `has_source`, where its function lies here, as `plugins.absolute` returns it.

    Raises:
        HiloNasError: The proxy cannot serve.
    """
    the_plan = ProxyPlan.from_dict(plan)
    the_data = None if data is None else CachedData.from_dict(data)
    prepared = _work_of(the_plan.declaration).prepare(the_plan, the_data, device, source, emit)
    return dataclasses.asdict(prepared)


def score_network(*, emit: Emit, **job: Any) -> dict[str, Any]:
    """Scores one network and returns `{"score": ProxyScore, "further": [ProxyScore, ...]}` as plain data.

    A proxy with rungs may do its work in legs: each continues from the checkpoint that the one before left, and
    together they give what the whole gives. The score's seconds are those of its leg.

    It seeds torch's own generator. At the end, memory that torch keeps on a CUDA device is given back (except cuBLAS's
    workspace), because another process times networks on the same device.

    Args:
        emit: Takes `TrainingProgressed` and `Notice`.
        **job: Fields of `ScoreJob` as `ScoreJob.from_dict` takes them.

    Raises:
        RecordError: A field of the job is wrong.
        UsageError: The plan asks for a version, an image size or a precision that is not there.
        OutOfMemoryError: The network does not fit, even with one image at a time.
        StudyMismatchError: A function of the user was edited since the plan was made.
        StorageError: The image cache is gone.
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
        versions={**versions(), "torch": torch.__version__},  # which says for which CUDA it was built
        scored_at=utc_now(),
    )
