"""Operators in plain torch for networks prepared for inference.

They run on any device and define the results of the fused operators.

Shape suffixes: B batch, H W feature map, C channels.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hilo_nas.models.dtm import deformable_columns
from hilo_nas.models.hilo import attend_windows
from hilo_nas.models.inference.packed import PackedModule

__all__ = ["PLAIN", "DepthwiseGelu", "Linear", "Operators", "attend_first_heads"]

_Layer = TypeVar("_Layer", bound=nn.Module)


class Linear(PackedModule):
    """Linear layer with optional GELU or residual addition.

    Args:
        weight: Shape (out, in).
        bias: Shape (out,), or None.
        gelu: True to apply GELU to the product.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.gelu = gelu

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Returns the product, shape (..., out), plus the optional residual of the same shape."""
        y = F.linear(x, self.weight, self.bias)
        if self.gelu:
            y = F.gelu(y)
        return y if residual is None else y + residual


class DepthwiseGelu(PackedModule):
    """3x3 depthwise convolution with zero padding, then GELU.

    Args:
        weight: Shape (C, 1, 3, 3).
        bias: Shape (C,).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Returns a feature map of the same shape as the input."""
        y_BCHW = F.conv2d(x_BHWC.permute(0, 3, 1, 2), self.weight, self.bias, padding=1, groups=len(self.bias))
        return F.gelu(y_BCHW).permute(0, 2, 3, 1)


def attend_first_heads(joint_BHWF: Tensor, window_size: int, heads: int, head_dim: int) -> Tensor:
    """Returns attention inside windows (`hilo_nas.models.hilo.attend_windows`) from the first features of a product.

    Args:
        joint_BHWF: Queries, keys and values of `heads` heads. Further features are ignored.
        window_size: Side of a window in tokens; must divide H and W.
        heads: Number of attention heads.
        head_dim: Channels per head.
    """
    return attend_windows(joint_BHWF[..., : 3 * heads * head_dim], window_size, heads)


class _BuildLinear(Protocol):
    def __call__(self, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> nn.Module: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operators:
    """Operators from which an inference form is built, with the dtype and device of its weights."""

    words: tuple[str, ...] = ()
    """Labels of the non-default operators, such as "linear=onednn". They become part of `form` and have no spaces."""
    dtype: torch.dtype = torch.float32
    """Dtype of the weights."""
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    """Device of the weights."""
    for_autocast: bool = False
    """True if the operators support autocast."""
    can_capture: bool = True
    """True if `torch.compile`, `torch.export` and `torch.jit.trace` can capture the operators."""
    linear: _BuildLinear = Linear
    """Builds a linear layer with the arguments of `Linear`."""
    depthwise_gelu: Callable[[Tensor, Tensor], nn.Module] = DepthwiseGelu
    """Builds a depthwise convolution with GELU, with the arguments of `DepthwiseGelu`."""
    columns: Callable[[Tensor, Tensor], Tensor] = deformable_columns
    """Samples a map with the arguments of `hilo_nas.models.dtm.deformable_columns`."""
    attend_windows: Callable[[Tensor, int, int, int], Tensor] = attend_first_heads
    """Computes attention inside windows with the arguments of `attend_first_heads`."""

    def build_linear(self, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> nn.Module:
        """Returns a linear layer. Converts the weight and the bias to the dtype and device of the operators."""
        return self.linear(self._placed(weight), None if bias is None else self._placed(bias), gelu=gelu)

    def from_linear(self, layer: nn.Linear) -> nn.Module:
        """Returns the inference operator for a linear layer."""
        return self.build_linear(layer.weight, layer.bias)

    def from_depthwise(self, layer: nn.Conv2d) -> nn.Module:
        """Returns the inference operator for a depthwise convolution followed by GELU."""
        assert layer.bias is not None
        return self.depthwise_gelu(self._placed(layer.weight), self._placed(layer.bias))

    def from_layer(self, layer: _Layer) -> _Layer:
        """Returns a copy of a layer that has no special inference operator."""
        return copy.deepcopy(layer).to(device=self.device, dtype=self.dtype).eval().requires_grad_(False)

    def _placed(self, weight: Tensor) -> Tensor:
        """Returns a copy of a weight in the dtype and on the device of the operators. It shares no memory."""
        return weight.detach().to(device=self.device, dtype=self.dtype, copy=True)


PLAIN = Operators()
