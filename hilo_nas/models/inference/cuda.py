"""The operators of an inference form on a CUDA device: Triton's kernels where they can run, torch's own elsewhere.

Shape suffixes: B batch, H W map, C channels, F features of the joint product.
"""

from __future__ import annotations

from torch import Tensor, nn

from hilo_nas.models.inference import triton_kernels
from hilo_nas.models.inference.operators import Operators, attend_first_heads

__all__ = ["TRITON", "TritonDepthwiseGelu"]


class TritonDepthwiseGelu(nn.Module):
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


TRITON = Operators(
    words=("columns=triton", "dwconv=triton", "windows=triton"),
    depthwise_gelu=TritonDepthwiseGelu,
    columns=triton_kernels.deformable_columns,
    attend_windows=_attend_windows,
)
