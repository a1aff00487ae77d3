"""Training recipe (`RECIPE` in `proxy.kinds.short_training`): it treats sizes alike and knows no end.

LITv2's own (github ziplab/LITv2) is the start: AdamW, weight decay 0.05, label smoothing 0.1, and the deformable
merging's offset convolutions learn at 0.01 of the rate. Own changes for trainings of minutes:

* The rate of a weight matrix falls with its inputs (as in muP, arXiv 2203.03466), so that one base rate serves narrow
  and wide networks; a single rate for all widths ranks the rate instead of the networks.
* The rate is constant after a warm-up of a fixed number of images, and what is scored are weights averaged over the
  last part of the way so far (a power-law average, arXiv 2312.02696, section 3). No schedule knows how long the
  training will be: a score may be taken at any point, scores at one point are comparable whatever the budget, and a
  budget can be raised.
* Gradients are clipped at norm 1; no drop path, mixup, cutmix, RandAugment or erasing, which slow the first epochs
  down.

What was tried beside it on CIFAR-10 stands at `BASE_LR`.

Before a score, networks other than LITv2s get the batch-norm statistics of training images (`BASELINE_RECIPE`), as
`torch.optim.swa_utils.update_bn` computes them for averaged weights: running statistics mix those of early weights.
After 3,072 images of CIFAR-10 at 64 pixels, timm's `efficientvit_b2` had a top-1 of .09 on 400 held-out images with raw
and with averaged weights (loss 2.5), and .265 with statistics of training images (loss 1.93; CPU, torch 2.14, one
seed). LITv2's scores stay as they were.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = [
    "BATCHNORM_IMAGES",
    "CLIP_NORM",
    "autocast",
    "batchnorms_of",
    "build_average",
    "build_loss",
    "build_optimizer",
    "collect_statistics",
    "rate_share",
    "warmup_share",
]

CLIP_NORM = 1.0
WEIGHT_DECAY = 0.05
BETAS = (0.9, 0.99)
WARMUP_IMAGES = 1500
OFFSET_SCALE = 0.01
"""Share of the learning rate for the weights (not the biases) of the offset convolutions."""
BASE_LR = 2e-3
"""Tried on CIFAR-10 at 32 px: patch 4, depths 1, 1, 2, 1, 12,000 images in batches of 128, one seed, 5,000 images held
out (CPU, torch 2.15; differences of a point or so are noise). At widths 16 and 48 this recipe reached .43 and .47, the
cosine of recipe adamw-1 .42 and .45; at twice the rate .43 and .47. Muon reached .435 at width 16, and .45 at width 64,
where a near variant of this had .48.
"""
BASE_FAN_IN = 128
"""Inputs up to which a weight matrix learns at the whole rate; beyond, at `BASE_FAN_IN` over its inputs."""
BASE_BATCH = 128
AVERAGE_POWER = 7.0
"""The average of n updates gives the update k a weight that grows with k to this power less one; half of all weight
lies in the last tenth of the way."""


BATCHNORM_IMAGES = 2048
"""Training images from which the batch norms of baselines take their statistics before a score."""


def batchnorms_of(model: nn.Module) -> list[_BatchNorm]:
    """Returns a network's batch norms that keep running statistics."""
    found = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [module for module in found if module.running_mean is not None]


@contextlib.contextmanager
def collect_statistics(model: nn.Module, batchnorms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Forgets the running statistics of batch norms and has them averaged over the batches that pass in the context.

    Only these layers compute as in training; dropout, for one, draws nothing. No gradient is kept.
    """
    mode, momenta = model.training, [module.momentum for module in batchnorms]
    model.eval()
    for module in batchnorms:
        module.reset_running_stats()
        module.momentum = None  # the plain mean over batches
        module.train()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, momentum in zip(batchnorms, momenta, strict=True):
            module.momentum = momentum
        model.train(mode)


def rate_share(name: str, parameter: nn.Parameter) -> float:
    """Returns a parameter's share of the base rate: 1 for vectors, less for weights of many inputs.

    What is added to every image's tokens (position embeddings, class tokens: one entry along the first axis, and not
    called a weight) is no matrix and learns at the whole rate.
    """
    if name.endswith(".bias") or parameter.ndim <= 1 or (len(parameter) == 1 and not name.endswith("weight")):
        return 1.0
    share = min(1.0, BASE_FAN_IN / parameter[0].numel())
    return share * OFFSET_SCALE if "offset" in name else share


def build_optimizer(model: nn.Module, batch_size: int) -> torch.optim.Optimizer:
    """Builds AdamW, its rates those after the warm-up; biases and other parameters of one axis do not decay.

    The base rate goes with the root of the batch.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = 0.0 if name.endswith(".bias") or parameter.ndim <= 1 else WEIGHT_DECAY
            groups.setdefault((decay, rate_share(name, parameter)), []).append(parameter)
    lr = BASE_LR * (batch_size / BASE_BATCH) ** 0.5
    rows = [{"params": p, "weight_decay": decay, "lr": lr * share} for (decay, share), p in groups.items()]
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    optimizer: torch.optim.Optimizer = create_optimizer_v2(rows, opt="adamw", lr=lr, betas=BETAS, fused=fused)
    return optimizer


def warmup_share(images_seen: int) -> float:
    """Returns the share of the full rate for an update that brings the images seen to so many."""
    return min(1.0, images_seen / WARMUP_IMAGES)


def build_average(model: nn.Module) -> ModelEmaV3:
    """Builds the average of a model's weights and buffers; `update(model, step=n)` after the n-th update, from 1."""
    return ModelEmaV3(model, decay=1.0, use_warmup=True, warmup_gamma=AVERAGE_POWER, warmup_power=1.0)


def build_loss() -> nn.Module:
    """Builds the training loss, the mean over a batch."""
    return nn.CrossEntropyLoss(label_smoothing=0.1)


_AUTOCAST = {"fp32": None, "amp-bf16": torch.bfloat16, "amp-fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Returns the context in which a network computes under a plan's precision."""
    dtype = _AUTOCAST[precision]
    return torch.autocast(device.type, dtype=dtype) if dtype else contextlib.nullcontext()
