"""The operators that an inference form is made of, in plain torch: what runs anywhere, and what the fused ones equal.

Shape suffixes: B batch, H W map, C channels.
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
    """A product with a weight, then GELU or a sum with a residual where asked for.

    Args:
        weight: Shape (out, in).
        bias: Shape (out,), or None.
        gelu: Whether GELU follows.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.gelu = gelu

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Returns the product, shape (..., out), plus the residual of that shape."""
        y = F.linear(x, self.weight, self.bias)
        if self.gelu:
            y = F.gelu(y)
        return y if residual is None else y + residual


class DepthwiseGelu(PackedModule):
    """A 3x3 depthwise convolution with zero padding, then GELU.

    Args:
        weight: Shape (C, 1, 3, 3).
        bias: Shape (C,).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Returns a map of the shape given."""
        y_BCHW = F.conv2d(x_BHWC.permute(0, 3, 1, 2), self.weight, self.bias, padding=1, groups=len(self.bias))
        return F.gelu(y_BCHW).permute(0, 2, 3, 1)


def attend_first_heads(joint_BHWF: Tensor, window_size: int, heads: int, head_dim: int) -> Tensor:
    """Returns attention inside windows (`hilo_nas.models.hilo.attend_windows`) from a product that begins with it.

    Args:
        joint_BHWF: Queries, keys and values of so many heads, then whatever else.
        window_size: Side of a window in tokens; divides H and W.
        heads: Attention heads.
        head_dim: Channels of a head.
    """
    return attend_windows(joint_BHWF[..., : 3 * heads * head_dim], window_size, heads)


class _BuildLinear(Protocol):
    def __call__(self, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> nn.Module: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operators:
    """Which implementation runs each step of an inference form."""

    words: tuple[str, ...] = ()
    """What is special about them, in words of which none holds a space."""
    dtype: torch.dtype = torch.float32
    """What weights are stored in."""
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    """Where weights are stored."""
    for_autocast: bool = False
    """Whether they may run under autocast."""
    can_capture: bool = True
    """Whether `torch.compile`, `torch.export` and `torch.jit.trace` may capture them."""
    linear: _BuildLinear = Linear
    depthwise_gelu: Callable[[Tensor, Tensor], nn.Module] = DepthwiseGelu
    columns: Callable[[Tensor, Tensor], Tensor] = deformable_columns
    """As `hilo_nas.models.dtm.deformable_columns`."""
    attend_windows: Callable[[Tensor, int, int, int], Tensor] = attend_first_heads
    """As `attend_first_heads`."""

    def build_linear(self, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> nn.Module:
        """Returns the product with weights of any precision."""
        return self.linear(self._placed(weight), None if bias is None else self._placed(bias), gelu=gelu)

    def from_linear(self, layer: nn.Linear) -> nn.Module:
        """Returns the product that a layer stands for."""
        return self.build_linear(layer.weight, layer.bias)

    def from_depthwise(self, layer: nn.Conv2d) -> nn.Module:
        """Returns the convolution that a layer stands for, with GELU behind it."""
        assert layer.bias is not None
        return self.depthwise_gelu(self._placed(layer.weight), self._placed(layer.bias))

    def from_layer(self, layer: _Layer) -> _Layer:
        """Returns a copy of a layer that stays as it is."""
        return copy.deepcopy(layer).to(device=self.device, dtype=self.dtype).eval().requires_grad_(False)

    def _placed(self, weight: Tensor) -> Tensor:
        """Returns a copy of a weight, so that none is shared with the training form."""
        return weight.detach().to(device=self.device, dtype=self.dtype, copy=True)


PLAIN = Operators()
