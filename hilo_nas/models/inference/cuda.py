"""Operators of an inference form on CUDA devices: Triton kernels if supported, otherwise plain torch.

Shape suffixes: B batch, H W feature map, C channels, F features of the joint projection.
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
    """Depthwise convolution with GELU in one kernel; equal to `hilo_nas.models.inference.operators.DepthwiseGelu`."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight_KC = nn.Parameter(weight.flatten(1).t().contiguous(), requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Returns a feature map of the same shape as the input."""
        return triton_kernels.depthwise_gelu(x_BHWC, self.weight_KC, self.bias)


def _attend_windows(joint_BHWF: Tensor, window_size: int, heads: int, head_dim: int) -> Tensor:
    if triton_kernels.can_run_window_attention(joint_BHWF.dtype, window=window_size, head_dim=head_dim):
        return triton_kernels.window_attention(joint_BHWF, window=window_size, heads=heads, head_dim=head_dim)
    return attend_first_heads(joint_BHWF, window_size, heads, head_dim)


# Increase the version number after "triton/" with every change that can affect speed: a change to the kernel, or to the
# window sizes that use it.
TRITON = Operators(
    words=("columns=triton/1", "dwconv=triton/1", "windows=triton/1"),
    depthwise_gelu=TritonDepthwiseGelu,
    columns=triton_kernels.deformable_columns,
    attend_windows=_attend_windows,
)


@functools.cache
def is_right(device: torch.device, dtype: torch.dtype) -> bool:
    """Returns True if the kernels compile on a device and match plain torch. Otherwise issues a warning.

    With False, networks run in plain torch, so that a search can continue without a working compiler.
    """
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device=device, dtype=dtype)

    try:
        x_BHWC, offset_BCHW, joint_BHWF = draw(2, 4, 4, 32), draw(2, 8, 2, 2), draw(2, 4, 4, 3 * 32)
        weight, bias = draw(32, 1, 3, 3), draw(32)
        with torch.no_grad():
            for fused, plain in (
                (TRITON.columns(x_BHWC, offset_BCHW), PLAIN.columns(x_BHWC, offset_BCHW)),
                (TRITON.depthwise_gelu(weight, bias)(x_BHWC), PLAIN.depthwise_gelu(weight, bias)(x_BHWC)),
                (TRITON.attend_windows(joint_BHWF, 2, 2, 16), PLAIN.attend_windows(joint_BHWF, 2, 2, 16)),
            ):
                difference = float((fused.float() - plain.float()).abs().max() / plain.float().abs().max())
                if not difference <= tolerance:
                    raise RuntimeError(f"the outputs differ by {difference:.1e} of the largest output")
    except Exception as error:  # compilers and drivers raise many classes
        warnings.warn(f"using plain torch, because the Triton kernels fail on {device}: {error}", stacklevel=2)
        return False
    return True
