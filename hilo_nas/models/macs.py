"""Multiply-adds of any network, counted while it runs; for networks that no formula of ours knows.

Runs in a worker process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hilo_nas.events import Emit
from hilo_nas.models.subjects import build_subject, img_size_of, input_shape_of

__all__ = ["count_subject"]


def count_subject(subject: Mapping[str, Any], img_size: int, *, num_classes: int = 1000, emit: Emit) -> dict[str, int]:
    """Returns `macs` and `params` of a network at batch 1.

    Products and convolutions are counted, attention's own among them; softmax, normalisation, activations and
    additions are not, as in `hilo_nas.arch.cost`.

    Args:
        subject: What `build_subject` takes.
        img_size: Side of the image in pixels; the subject's own size replaces it.
        num_classes: Classes of the head.
        emit: Unused; every worker function takes it.
    """
    img_size = img_size_of(subject, img_size)
    model = build_subject(dict(subject), num_classes=num_classes, in_chans=3, img_size=img_size).eval()
    model.requires_grad_(False)  # the counter looks for gradient functions of outputs whose inputs want them
    # Attention as two plain products: the fused kernels of a CPU are not counted by every version of torch.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(input_shape_of(subject, 1, img_size)))
    return {
        "macs": counter.get_total_flops() // 2,
        "params": sum(parameter.numel() for parameter in model.parameters()),
    }
