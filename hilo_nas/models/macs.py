"""Multiply-adds of any network, counted in a forward pass. For networks without a formula in `hilo_nas.arch`.

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
    """Returns the counts `macs` and `params` of a network at batch size 1.

    Counts matrix products and convolutions, including the products of attention. Excludes softmax, normalisation,
    activations and additions, as in `hilo_nas.arch.cost`.

    Args:
        subject: Network in the format of `build_subject`.
        img_size: Side of the image in pixels. The "img_size" of the subject takes precedence.
        num_classes: Number of classes.
        emit: Unused. Every worker function has this argument.
    """
    img_size = img_size_of(subject, img_size)
    model = build_subject(dict(subject), num_classes=num_classes, in_chans=3, img_size=img_size).eval()
    model.requires_grad_(False)  # otherwise the counter looks for gradient functions of the outputs
    # Use the math backend of attention, because some versions of torch do not count the fused CPU kernels.
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(input_shape_of(subject, 1, img_size)))
    return {
        "macs": counter.get_total_flops() // 2,
        "params": sum(parameter.numel() for parameter in model.parameters()),
    }
