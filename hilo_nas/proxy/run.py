"""The two functions that a worker process runs for any proxy. Everything that they take and return is plain JSON."""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hilo_nas.clock import utc_now
from hilo_nas.data.prepare import CachedData
from hilo_nas.errors import UsageError
from hilo_nas.events import Emit
from hilo_nas.hashes import short_hash
from hilo_nas.measurement import ProxyPlan, ProxyScore
from hilo_nas.measurement.proxy import PROXY_PRECISIONS
from hilo_nas.proxy.kinds import Proxy
from hilo_nas.proxy.memory import memory_given_back
from hilo_nas.proxy.work import Prepared, Result, ScoreJob, Work
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


def score_network(
    *,
    emit: Emit,
    subject: Mapping[str, Any],
    plan: Mapping[str, Any],
    data: Mapping[str, Any],
    prepared: Mapping[str, Any],
    seed: int,
    device: str,
    until: int | None = None,
    checkpoint: str | None = None,
    score_under: Sequence[str] = (),
) -> dict[str, Any]:
    """Scores one network and returns `{"score": ProxyScore, "further": [ProxyScore, ...]}` as plain data.

    A proxy with rungs may do its work in legs: each continues from the checkpoint that the one before left, and
    together they give what the whole gives. The score's seconds are those of its leg.

    It seeds torch's own generator. At the end, memory that torch keeps on a CUDA device is given back (except cuBLAS's
    workspace), because another process times networks on the same device.

    Args:
        emit: Takes `TrainingProgressed` and `Notice`.
        subject: The network, as `hilo_nas.models.build_subject` takes it.
        plan: `ProxyPlan.to_dict()`.
        data: `CachedData.to_dict()`.
        prepared: What `prepare_proxy` returned; `{}` for a proxy that prepares nothing.
        seed: Seed of the weights, the order of the images and all else that is drawn.
        device: `cpu`, `cuda`, `cuda:N` or `mps`.
        until: Training images seen at which to score, in whole batches; the plan's full budget if left out.
        checkpoint: For a proxy with rungs: the file that it continues from, where it exists and is of this very
            training, and that is written when the leg is done. Others ignore it.
        score_under: Precisions under which the same trained network is scored, too, in the order of `further`.

    Raises:
        UsageError: The plan asks for a version, an image size or a precision that is not there.
        OutOfMemoryError: The network does not fit, even with one image at a time.
        StudyMismatchError: A function of the user was edited since the plan was made.
        StorageError: The image cache is gone.
        HiloNasError: The network cannot be scored.
    """
    began = time.monotonic()
    the_plan, the_data = ProxyPlan.from_dict(plan), CachedData.from_dict(data)
    proxy = the_plan.declaration
    _check(the_plan, the_data, proxy, score_under)
    job = ScoreJob(
        subject=subject,
        plan=the_plan,
        data=the_data,
        prepared=Prepared(**prepared),
        seed=seed,
        device=device,
        until=the_plan.budgets[-1] if until is None else until,
        checkpoint=Path(checkpoint) if checkpoint is not None and proxy.has_rungs else None,
        score_under=tuple(score_under),
    )
    with memory_given_back(torch.device(device), what=f"the proxy {proxy.name}"):
        results = _work_of(proxy).score(job, emit)
    seconds = time.monotonic() - began
    score, *further = (_build_score(result, job, seconds) for result in results)
    names = [short_hash([score.plan_hash, precision]) for precision in score_under]
    further = [dataclasses.replace(one, plan_hash=name) for one, name in zip(further, names, strict=True)]
    return {"score": dataclasses.asdict(score), "further": [dataclasses.asdict(one) for one in further]}


def _check(plan: ProxyPlan, data: CachedData, proxy: Proxy, score_under: Sequence[str]) -> None:
    if plan.recipe != proxy.version:
        raise UsageError(
            f"this version scores by {proxy.name} {proxy.version!r}, but the plan asks for {plan.recipe!r}. Use the "
            "version of hilo-nas that made the study, or make a new study."
        )
    if proxy.sees_images and plan.img_size != data.img_size:
        raise UsageError(f"the images were prepared at {data.img_size} pixels, the plan says {plan.img_size}")
    if score_under and "proxy.precision" not in proxy.options:
        raise UsageError(f"the proxy {proxy.name} cannot score under another precision, but got {score_under[0]!r}")
    if unknown := [precision for precision in score_under if precision not in PROXY_PRECISIONS]:
        raise UsageError(f"score_under must be of {', '.join(PROXY_PRECISIONS)}, but got {unknown[0]!r}")


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
