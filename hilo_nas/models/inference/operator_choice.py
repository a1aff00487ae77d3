"""Choice of the fastest available operators for a network prepared for inference, by device and precision."""

from __future__ import annotations

import torch

from hilo_nas.models.inference import onednn, triton_kernels
from hilo_nas.models.inference.cuda import TRITON, is_right
from hilo_nas.models.inference.operators import PLAIN, Operators
from hilo_nas.models.precisions import DTYPES

__all__ = ["choose_operators"]


def choose_operators(device: torch.device, precision: str, *, for_compile: bool = False) -> Operators:
    """Returns the fastest operators available on a device.

    Args:
        device: Device that runs the network.
        precision: Precision in the format of `prepare_for_inference`.
        for_compile: True if the network goes through `torch.compile`. This excludes oneDNN operators.
    """
    dtype = DTYPES[precision.removeprefix("amp-")]
    if device.type == "cpu" and precision in DTYPES and not for_compile and onednn.is_available(dtype):
        return onednn.ONEDNN
    if device.type == "cuda" and triton_kernels.is_available(device) and is_right(device, dtype):
        return TRITON
    return PLAIN
