"""Deformable token merging (DTM): halves a map with a 2x2 deformable convolution that learns where to look.

Paper: "Less is More: Pay Less Attention in Vision Transformers" (arXiv 2105.14217), section 3.3, kept by LITv2
(arXiv 2205.13213). Behaviour: `DTM` and `DeformConv2dPack` of github ziplab/LITv2 (Apache-2.0).
Own changes: torchvision's operator instead of a compiled extension, any output width, and a stated rule for the
precisions that the operator does not take.

Shape suffixes: B batch, C channels, H W map.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from hilo_nas.errors import UsageError

__all__ = ["DTM", "DeformConv", "merging_precision", "merging_precision_of"]

_PRECISIONS = {
    "fp32": (torch.float32, False),
    "bf16": (torch.bfloat16, False),
    "fp16": (torch.float16, False),
    "amp-bf16": (torch.float32, True),
    "amp-fp16": (torch.float32, True),
}
"""Precisions by name: dtype of the parameters, and whether autocast is on."""


def merging_precision(device_type: str, dtype: torch.dtype, autocast: bool) -> Literal["native", "float32"]:
    """Returns whether the deformable convolution runs in the map's dtype, or in float32 with casts around it.

    torchvision 0.29 has float, double and half kernels on CPU and CUDA, and none for bfloat16. Under autocast the
    offsets come in another dtype than the weights, which the CPU operator refuses; its CUDA wrapper casts all to
    float32 and the result back, and the same is done here on every device. This may change with torchvision.

    Args:
        device_type: "cpu", "cuda", ...
        dtype: The dtype of the map.
        autocast: Whether autocast is on for the device.
    """
    if autocast:
        return "float32"
    if dtype in (torch.float32, torch.float64) or (dtype == torch.float16 and device_type in ("cpu", "cuda")):
        return "native"
    return "float32"


def merging_precision_of(device_type: str, precision: str) -> Literal["native", "float32"]:
    """Returns `merging_precision` for a precision by name.

    Raises:
        UsageError: An unknown precision.
    """
    if precision not in _PRECISIONS:
        raise UsageError(f"precision must be one of {', '.join(_PRECISIONS)}, but got {precision!r}")
    dtype, autocast = _PRECISIONS[precision]
    return merging_precision(device_type, dtype, autocast)


class DeformConv(nn.Conv2d):
    """A 2x2 convolution of stride 2 whose sampling points move by learned offsets (deformable convolution v1).

    The offsets come from an ordinary convolution of the same shape, zero at first, when this is a plain convolution.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=2, stride=2)
        self.conv_offset = nn.Conv2d(in_channels, 8, kernel_size=2, stride=2)
        for parameter in self.conv_offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns a map of shape (B, out_channels, H // 2, W // 2), in the dtype of the map given."""
        offset_BCHW = self.conv_offset(x_BCHW)
        device_type = x_BCHW.device.type
        has_autocast = torch.amp.is_autocast_available(device_type)
        autocast = has_autocast and torch.is_autocast_enabled(device_type)
        if merging_precision(device_type, x_BCHW.dtype, autocast) == "native":
            y_BCHW: Tensor = deform_conv2d(x_BCHW, offset_BCHW, self.weight, self.bias, stride=(2, 2))
            return y_BCHW
        if autocast:
            with torch.autocast(device_type, enabled=False):
                return self._in_float32(x_BCHW, offset_BCHW)
        return self._in_float32(x_BCHW, offset_BCHW)

    def _in_float32(self, x_BCHW: Tensor, offset_BCHW: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        y_BCHW: Tensor = deform_conv2d(x_BCHW.float(), offset_BCHW.float(), self.weight.float(), bias, stride=(2, 2))
        return y_BCHW.to(x_BCHW.dtype)


class DTM(nn.Module):
    """Deformable token merging: deformable convolution, batch norm, GELU.

    Args:
        dim: Channels of the map given.
        out_dim: Channels of the merged map.
    """

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.dconv = DeformConv(dim, out_dim)
        self.norm_layer = nn.BatchNorm2d(out_dim)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns the merged map, shape (B, out_dim, H // 2, W // 2): an odd last row or column is left out."""
        return F.gelu(self.norm_layer(self.dconv(x_BCHW)))
