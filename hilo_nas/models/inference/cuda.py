"""The operators of an inference form on a CUDA device: Triton's kernels where they can run, torch's own elsewhere.

Shape suffixes: B batch, H W map, C channels, F features of the joint product.
"""

from __future__ import annotations

import functools
import warnings

import torch
from torch import Tensor, nn

from hilo_nas.models.inference import triton_kernels
from hilo_nas.models.inference.operators import PLAIN, Operators, attend_first_heads
from hilo_nas.models.inference.packed import PackedModule

__all__ = ["TRITON", "TritonDepthwiseGelu", "is_right"]


class TritonDepthwiseGelu(PackedModule):
    """`hilo_nas.models.inference.operators.DepthwiseGelu`, as one kernel."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight_KC = nn.Parameter(weight.flatten(1).t().contiguous(), requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Returns a map of the shape given."""
        return triton_kernels.depthwise_gelu(x_BHWC, self.weight_KC, self.bias)


def _attend_windows(joint_BHWF: Tensor, window_size: int, heads: int, head_dim: int) -> Tensor:
    if triton_kernels.can_run_window_attention(joint_BHWF.dtype, window=window_size, head_dim=head_dim):
        return triton_kernels.window_attention(joint_BHWF, window=window_size, heads=heads, head_dim=head_dim)
    return attend_first_heads(joint_BHWF, window_size, heads, head_dim)


# A word's number is raised with every change to a kernel, or to which windows it takes, that may change its speed.
TRITON = Operators(
    words=("columns=triton/1", "dwconv=triton/1", "windows=triton/1"),
    depthwise_gelu=TritonDepthwiseGelu,
    columns=triton_kernels.deformable_columns,
    attend_windows=_attend_windows,
)


@functools.cache
def is_right(device: torch.device, dtype: torch.dtype) -> bool:
    """Returns whether the kernels compile on a device and give what plain torch gives; warns where they do not.

    A compiler that is missing, or refuses, must not cost a search its networks: they run in plain torch then.
    """
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device=device, dtype=dtype)

    try:
        x_BHWC, offset_BCHW, joint_BHWF = draw(2, 4, 4, 32), draw(2, 8, 2, 2), draw(2, 4, 4, 3 * 32)
        weight, bias = draw(32, 1, 3, 3), draw(32)
        with torch.no_grad():
            for own, plain in (
                (TRITON.columns(x_BHWC, offset_BCHW), PLAIN.columns(x_BHWC, offset_BCHW)),
                (TRITON.depthwise_gelu(weight, bias)(x_BHWC), PLAIN.depthwise_gelu(weight, bias)(x_BHWC)),
                (TRITON.attend_windows(joint_BHWF, 2, 2, 16), PLAIN.attend_windows(joint_BHWF, 2, 2, 16)),
            ):
                difference = float((own.float() - plain.float()).abs().max() / plain.float().abs().max())
                if not difference <= tolerance:
                    raise RuntimeError(f"their result differs by {difference:.1e} of the largest")
    except Exception as error:  # whatever a compiler or a driver does
        warnings.warn(f"Triton's kernels do not run on {device}, so plain torch does: {error}", stacklevel=2)
        return False
    return True
