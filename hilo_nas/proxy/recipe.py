"""The training recipe (`RECIPE` in `hilo_nas.proxy.kinds.short_training`), which is fair to all widths and all budgets.

The recipe is based on that of LITv2 (github ziplab/LITv2): AdamW, weight decay 0.05, label smoothing 0.1, and 0.01
times the learning rate for the offset convolutions of deformable token merging. Changes for trainings of a few minutes:

* The learning rate of a weight matrix decreases with its number of inputs (as in muP, arXiv 2203.03466), so one base
  rate suits narrow and wide networks. With a single rate for all widths, the ranking would depend on the rate.
* The learning rate is constant after a warm-up over a fixed number of images. The scored weights are a power-law
  average over the last part of the training so far (arXiv 2312.02696, section 3). The schedule does not depend on the
  length of the training. Therefore a network can be scored at any point, scores at the same point are comparable across
  budgets, and a budget can be raised.
* Gradients are clipped at norm 1. Drop path, mixup, cutmix, RandAugment and random erasing are not used because they
  slow down the first epochs.

`BASE_LR` lists the alternatives tried on CIFAR-10.

Before scoring, batch norm of networks other than LITv2 gets statistics from training images (`BASELINE_RECIPE`), as in
`torch.optim.swa_utils.update_bn` for averaged weights. Running statistics would include those of early weights. After
3,072 images of CIFAR-10 at 64 pixels, timm's `efficientvit_b2` had a top-1 of .09 on 400 held-out images with raw and
with averaged weights (loss 2.5), and .265 with statistics from training images (loss 1.93; CPU, torch 2.14, one seed).
Scores of LITv2 do not depend on this step.
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
"""Learning rate factor for the weights (not the biases) of the offset convolutions."""
BASE_LR = 2e-3
"""Base learning rate, at a batch size of `BASE_BATCH`.

Chosen on CIFAR-10 at 32 px with patch size 4, depths 1, 1, 2, 1, 12,000 images in batches of 128, one seed and 5,000
held-out images (CPU, torch 2.15). Differences of about one point are noise. At widths 16 and 48, the top-1 was .43 and
.47 with this recipe, .42 and .45 with the cosine schedule of recipe adamw-1, and .43 and .47 with twice the rate. Muon
reached .435 at width 16. At width 64 it reached .45, compared with .48 for a similar variant of this recipe.
"""
BASE_FAN_IN = 128
"""Number of inputs up to which a weight matrix has the full learning rate. With more inputs, the rate is multiplied by
`BASE_FAN_IN` / inputs."""
BASE_BATCH = 128
AVERAGE_POWER = 7.0
"""Power of the weight average. Update k of n has a weight proportional to k to this power minus one, so the last tenth
of the training has about half of the weight."""


BATCHNORM_IMAGES = 2048
"""Number of training images for the batch norm statistics of baselines before scoring."""


def batchnorms_of(model: nn.Module) -> list[_BatchNorm]:
    """Returns the batch norm layers of a network that have running statistics."""
    found = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [module for module in found if module.running_mean is not None]


@contextlib.contextmanager
def collect_statistics(model: nn.Module, batchnorms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Returns a context that resets batch norm statistics and averages them over the batches passed through the model.

    Only the batch norm layers are in train mode. All other layers, such as dropout, are in eval mode. Gradients are
    disabled.
    """
    mode, momenta = model.training, [module.momentum for module in batchnorms]
    model.eval()
    for module in batchnorms:
        module.reset_running_stats()
        module.momentum = None  # unweighted mean over batches
        module.train()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, momentum in zip(batchnorms, momenta, strict=True):
            module.momentum = momentum
        model.train(mode)


def rate_share(name: str, parameter: nn.Parameter) -> float:
    """Returns the learning rate factor of a parameter: 1 for vectors, and less for weights with many inputs.

    Position embeddings and class tokens are added to the tokens of every image. They have one entry along the first
    axis and a name that does not end with `weight`. They are not matrices, so their factor is 1.
    """
    if name.endswith(".bias") or parameter.ndim <= 1 or (len(parameter) == 1 and not name.endswith("weight")):
        return 1.0
    share = min(1.0, BASE_FAN_IN / parameter[0].numel())
    return share * OFFSET_SCALE if "offset" in name else share


def build_optimizer(model: nn.Module, batch_size: int) -> torch.optim.Optimizer:
    """Returns AdamW with the learning rates after the warm-up.

    Biases and other one-dimensional parameters have no weight decay. The base rate is proportional to the square root
    of the batch size.
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
    """Returns the warm-up factor of the learning rate for an update.

    Args:
        images_seen: Number of training images seen, including this update.
    """
    return min(1.0, images_seen / WARMUP_IMAGES)


def build_average(model: nn.Module) -> ModelEmaV3:
    """Returns the average of a model's weights and buffers.

    Call `update(model, step=n)` after the n-th update of the weights, counted from 1.
    """
    return ModelEmaV3(model, decay=1.0, use_warmup=True, warmup_gamma=AVERAGE_POWER, warmup_power=1.0)


def build_loss() -> nn.Module:
    """Returns the training loss, a mean over the batch."""
    return nn.CrossEntropyLoss(label_smoothing=0.1)


_AUTOCAST = {"fp32": None, "amp-bf16": torch.bfloat16, "amp-fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Returns the autocast context of a plan's precision."""
    dtype = _AUTOCAST[precision]
    return torch.autocast(device.type, dtype=dtype) if dtype else contextlib.nullcontext()
