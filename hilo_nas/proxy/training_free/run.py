"""A training-free score of one network, as `ProxyScore`: the function that a worker process runs."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hilo_nas.clock import utc_now
from hilo_nas.data.prepare import CachedData
from hilo_nas.errors import HiloNasError, UsageError
from hilo_nas.events import Emit
from hilo_nas.measurement import ProxyPlan, ProxyScore
from hilo_nas.models import build_subject
from hilo_nas.proxy.batches import Augmenter, Sampler, Split, image_statistics, open_split
from hilo_nas.proxy.memory import memory_given_back
from hilo_nas.proxy.training_free.dss import score_dss
from hilo_nas.proxy.training_free.naswot import score_naswot
from hilo_nas.proxy.training_free.plan import NAMES, REPEATS, hash_training_free
from hilo_nas.proxy.training_free.zico import BATCHES, score_zico
from hilo_nas.versions import versions

__all__ = ["run_training_free"]


def run_training_free(
    *,
    emit: Emit,
    subject: str | Mapping[str, Any],
    name: str,
    plan: Mapping[str, Any],
    data: Mapping[str, Any],
    seed: int,
    device: str,
) -> dict[str, Any]:
    """Scores a network without training it and returns its `ProxyScore` as plain data.

    The value is the mean over `REPEATS` networks with fresh weights, each on minibatches of its own of the training
    images; the standard error is that of this mean. All is in float32, or better, whatever the plan's precision. A
    minibatch has the plan's size, or all training images where there are fewer.

    The same arguments give the same score on one device and version of torch, as far as its kernels are deterministic.
    It seeds torch's own generator. Memory that torch keeps on a CUDA device is given back at the end.

    Args:
        emit: Takes nothing; the score is there in seconds.
        subject: The network, as `hilo_nas.models.build_subject` takes it.
        name: One of `hilo_nas.proxy.training_free.NAMES`.
        plan: `ProxyPlan.to_dict()`.
        data: `CachedData.to_dict()`.
        seed: Seed of the weights and the choice of images; no repeat of one seed is a repeat of another.
        device: `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        UsageError: There is no such score, it cannot judge such a network, or the images have another size.
        OutOfMemoryError: The network does not fit.
        HiloNasError: The score is not finite.
        StorageError: The image cache is gone.
    """
    began = time.monotonic()
    the_plan, the_data = ProxyPlan.from_dict(plan), CachedData.from_dict(data)
    if name not in NAMES:
        raise UsageError(f"a training-free proxy must be one of {', '.join(NAMES)}, but got {name!r}")
    if the_plan.img_size != the_data.img_size:
        raise UsageError(f"the images were prepared at {the_data.img_size} pixels, the plan says {the_plan.img_size}")
    with memory_given_back(torch.device(device), what=f"the proxy {name}"):
        values, images_seen, micro_batch_size = _score(subject, name, the_plan, the_data, seed, torch.device(device))
    score = ProxyScore(
        plan_hash=hash_training_free(name, the_plan, the_data.content_hash),
        metric=name,
        value=statistics.fmean(values),
        standard_error=statistics.stdev(values) / math.sqrt(len(values)),
        loss=None,
        n_val=0,
        images_seen=images_seen,
        seconds=time.monotonic() - began,
        seed=seed,
        micro_batch_size=micro_batch_size,
        device=device,
        versions=versions(),
        scored_at=utc_now(),
    )
    return dataclasses.asdict(score)


class _Minibatches:
    """Minibatches of the training images, as they are.

    Args:
        split: The images.
        plan: Tells how many are in a minibatch.
        seed: Seed of their order.
    """

    def __init__(self, split: Split, plan: ProxyPlan, seed: int) -> None:
        self.img_size = plan.img_size
        self.size = min(plan.batch_size, len(split.places))
        self.seen = 0
        """Images drawn so far."""
        self._images = split.images
        generator = torch.Generator().manual_seed(seed)
        self._sampler = Sampler(split.places, generator)
        self._augmenter = Augmenter(*image_statistics(split.images, split.places), hflip=False, generator=generator)

    def draw(self) -> tuple[Tensor, Tensor]:
        """Returns the next images, (B, C, S, S; float32), and their labels, (B; int64)."""
        images, labels = self._images.take(self._sampler.draw(self.size))
        self.seen += self.size
        return self._augmenter.plain(images), labels


_SCORES: dict[str, Callable[[nn.Module, _Minibatches], float]] = {
    "naswot": lambda model, batches: score_naswot(model, batches.draw()[0]),
    "zico": lambda model, batches: score_zico(model, [batches.draw() for _ in range(BATCHES)]),
    "dss": lambda model, batches: score_dss(model, batches.img_size),
}
assert set(_SCORES) == set(NAMES)


def _score(
    subject: str | Mapping[str, Any], name: str, plan: ProxyPlan, data: CachedData, seed: int, device: torch.device
) -> tuple[list[float], int, int]:
    """Returns the score of every repeat, the images looked at in all, and how many at once."""
    split = open_split(data, plan, device)
    values, images_seen, micro_batch_size = [], 0, 1
    for own_seed in range(REPEATS * seed, REPEATS * (seed + 1)):
        torch.manual_seed(own_seed)
        model = build_subject(subject, data.num_classes, 3, data.img_size).to(device)
        batches = _Minibatches(split, plan, own_seed)
        value = _SCORES[name](model, batches)
        if not math.isfinite(value):
            raise HiloNasError(f"{name} of {type(model).__name__} must be finite, but is {value}")
        values.append(value)
        if batches.seen:
            images_seen, micro_batch_size = images_seen + batches.seen, batches.size
    return values, images_seen, micro_batch_size
