"""Work of the training-free proxies."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hilo_nas.errors import HiloNasError
from hilo_nas.events import Emit
from hilo_nas.measurement import ProxyPlan
from hilo_nas.models import build_subject
from hilo_nas.proxy.batches import Augmenter, Sampler, Split, image_statistics, open_split
from hilo_nas.proxy.kinds.training_free import REPEATS, TRAINING_FREE
from hilo_nas.proxy.training_free.dss import score_dss
from hilo_nas.proxy.training_free.naswot import score_naswot
from hilo_nas.proxy.training_free.zico import BATCHES, score_zico
from hilo_nas.proxy.work import Result, ScoreJob, Work

__all__ = ["TrainingFreeWork"]


class TrainingFreeWork(Work):
    """Work of the training-free proxies: it scores a network with fresh weights on a few minibatches."""

    def score(self, job: ScoreJob, emit: Emit) -> tuple[Result, ...]:
        """Returns the mean score over `REPEATS` repetitions and its standard error.

        Each repetition has fresh weights and different minibatches of the training images. The computation uses at
        least float32, regardless of the plan's precision. A minibatch has the plan's batch size, or all training images
        if there are fewer. Different seeds share no repetition.

        Raises:
            UsageError: The proxy does not support the network.
            OutOfMemoryError: The network does not fit in memory.
            HiloNasError: The score is not finite.
            StorageError: The image cache is missing.
        """
        device, name = torch.device(job.device), job.plan.proxy
        split = open_split(job.data, job.plan, device)
        values, micro_batch_size = [], 1
        for seed in range(REPEATS * job.seed, REPEATS * (job.seed + 1)):
            torch.manual_seed(seed)
            model = build_subject(job.subject, job.data.num_classes, 3, job.data.img_size).to(device)
            batches = _Minibatches(split, job.plan, seed)
            value = _SCORES[name](model, batches)
            if not math.isfinite(value):  # records hold finite values only
                raise HiloNasError(f"{name} of {type(model).__name__} must be finite, but is {value}")
            values.append(value)
            if batches.seen:
                micro_batch_size = batches.size
        error = statistics.stdev(values) / math.sqrt(len(values))
        return (Result(value=statistics.fmean(values), standard_error=error, micro_batch_size=micro_batch_size),)


class _Minibatches:
    """Minibatches of training images without augmentation.

    Args:
        split: The images.
        plan: The plan, which sets image size and batch size.
        seed: Seed of the order of the images.
    """

    def __init__(self, split: Split, plan: ProxyPlan, seed: int) -> None:
        self.img_size = plan.img_size
        self.size = min(plan.batch_size, len(split.places))
        self.seen = 0
        """Number of images drawn so far."""
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
assert set(_SCORES) == {proxy.name for proxy in TRAINING_FREE}
