"""The training recipe (`hilo_nas.measurement.RECIPE`): LITv2's own, shortened, at a rate that follows the width.

Published (github ziplab/LITv2): AdamW, betas (0.9, 0.999), weight decay 0.05, cosine per step after a linear warm-up,
label smoothing 0.1, and the deformable merging's offset convolutions learn at 0.01 of the rate. Own changes for a
training of minutes: no drop path, mixup, cutmix, RandAugment or erasing, which slow the first epochs down; gradients
are clipped at norm 1; the rate follows width and batch size.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import nn

__all__ = ["CLIP_NORM", "autocast", "build_loss", "build_optimizer", "build_schedule", "learning_rate"]

CLIP_NORM = 1.0
WEIGHT_DECAY = 0.05
WARMUP_SHARE = 0.1
OFFSET_SCALE = 0.01
"""Share of the learning rate for the weights (not the biases) of the offset convolutions."""
BASE_LR = 1.5e-3
BASE_WIDTH = 256
BASE_BATCH = 64
MAX_LR = 4e-3


def learning_rate(model: nn.Module, batch_size: int) -> float:
    """Returns the peak rate: `BASE_LR` at 256 channels and 64 images, and never above `MAX_LR`.

    It goes with one over the last width (`num_features`, as timm names it) and with the root of the batch. Seen on
    CIFAR-10 after 12,800 images of 32 pixels, batch 64 (CPU, torch 2.15): 128 channels were best at 2e-3 to 4e-3, 512
    channels at 5e-4, and lost 4 points at 2e-3.
    """
    width = getattr(model, "num_features", BASE_WIDTH)
    return float(min(MAX_LR, BASE_LR * BASE_WIDTH / width * (batch_size / BASE_BATCH) ** 0.5))


def build_optimizer(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Builds AdamW; biases and other parameters of one axis do not decay, offset weights learn slowly."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_bias = name.endswith(".bias")
            decay = 0.0 if is_bias or parameter.ndim <= 1 else WEIGHT_DECAY
            scale = OFFSET_SCALE if "offset" in name and not is_bias else 1.0
            groups.setdefault((decay, scale), []).append(parameter)
    rows = [{"params": p, "weight_decay": decay, "lr_scale": scale} for (decay, scale), p in groups.items()]
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    optimizer: torch.optim.Optimizer = create_optimizer_v2(rows, opt="adamw", lr=lr, betas=(0.9, 0.999), fused=fused)
    return optimizer


def build_schedule(optimizer: torch.optim.Optimizer, updates: int) -> CosineLRScheduler:
    """Builds the schedule; `step_update(n)` before the n-th update (from 1) sets its rate, never zero."""
    warmup = max(1, round(WARMUP_SHARE * updates)) if updates > 1 else 0
    return CosineLRScheduler(optimizer, t_initial=updates + 1, warmup_t=warmup, t_in_epochs=False)


def build_loss() -> nn.Module:
    """Builds the training loss, the mean over a batch."""
    return nn.CrossEntropyLoss(label_smoothing=0.1)


_AUTOCAST = {"fp32": None, "amp-bf16": torch.bfloat16, "amp-fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Returns the context in which a network computes under a plan's precision."""
    dtype = _AUTOCAST[precision]
    return torch.autocast(device.type, dtype=dtype) if dtype else contextlib.nullcontext()
