"""Modules that a timing worker builds to measure the rates of a device: a matrix product and a memory copy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hilo_nas.models.inference import choose_operators
from hilo_nas.models.network_parts import FixedInput, random_tensor

__all__ = ["build_copy", "build_product"]


class _Copy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


def build_product(*, side: int, device: str, precision: str, num_classes: int, in_chans: int) -> nn.Module:
    """Returns a product of two square matrices, with the linear operator of inference forms on the device.

    Args:
        side: Rows and columns of each matrix.
        device: Device of the product.
        precision: Precision of a condition, except autocast.
        num_classes: Ignored.
        in_chans: Ignored.
    """
    operators = choose_operators(torch.device(device), precision)
    weight = random_tensor((side, side), device, precision)
    product = operators.linear(weight, None)
    return FixedInput(product, random_tensor((side, side), device, precision), f"product {type(product).__name__}")


def build_copy(*, n_bytes: int, device: str, num_classes: int, in_chans: int) -> nn.Module:
    """Returns a copy of `n_bytes` bytes on the device. `num_classes` and `in_chans` are ignored."""
    return FixedInput(_Copy(), random_tensor((n_bytes // 4,), device, "fp32"), "copy")
