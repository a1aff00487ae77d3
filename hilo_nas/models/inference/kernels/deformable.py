"""Gather of token merging: samples the map for the product with the weight of the deformable convolution.

Paper: "Deformable Convolutional Networks" (arXiv 1703.06211), equations 2 to 4. Points and weights match
`hilo_nas.models.sampling.sampling_points`.

Shape suffixes: B batch, C channels (inside a kernel: of one block), H W feature map, P points: four per output pixel.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["launch"]

_N_ELEMENTS = 1024
"""Points times channels per block. With four warps, each thread has eight channels: one load of 16 bytes in half
precision. Not measured yet."""

_N_PROGRAMS = 1024
"""Minimum number of programs that fills a large GPU (for example, 132 multiprocessors). With at least this many, each
program handles all channels of its points (up to four blocks) and computes each position once. With fewer, channels
are distributed over programs. Not measured yet."""


@triton.jit
def _columns(
    x_ptr,
    offset_ptr,
    y_ptr,
    n_points,
    height,
    width,
    channels,
    stride_b,
    stride_c,
    stride_h,
    stride_w,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    N_BLOCKS: tl.constexpr,
):
    """Writes the interpolated channels of a block of points. `stride_*` are the strides of the offsets."""
    rows, cols = height // 2, width // 2
    point_P = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    is_point_P = point_P < n_points
    tap_P, pixel_P = point_P % 4, point_P // 4
    line_P, col_P = pixel_P // cols, pixel_P % cols
    image_P, row_P = line_P // rows, line_P % rows
    at_P = offset_ptr + image_P.to(tl.int64) * stride_b + row_P * stride_h + col_P * stride_w + 2 * tap_P * stride_c
    down_P = tl.load(at_P, mask=is_point_P, other=0).to(tl.float32)
    right_P = tl.load(at_P + stride_c, mask=is_point_P, other=0).to(tl.float32)
    y_P = down_P + (2 * row_P + tap_P // 2).to(tl.float32)
    x_P = right_P + (2 * col_P + tap_P % 2).to(tl.float32)
    # Clamp the positions, so that they fit into an index. `tl.minimum` and `tl.maximum` would hide NaN.
    y_P = tl.where(y_P < -1, -1.0, tl.where(y_P > height, height.to(tl.float32), y_P))
    x_P = tl.where(x_P < -1, -1.0, tl.where(x_P > width, width.to(tl.float32), x_P))
    y_low_P, x_low_P = tl.floor(y_P), tl.floor(x_P)
    lower_P, right_P = y_P - y_low_P, x_P - x_low_P
    upper_P, left_P = 1 - lower_P, 1 - right_P
    h_P, w_P = y_low_P.to(tl.int32), x_low_P.to(tl.int32)
    has_upper_P = is_point_P & (h_P >= 0) & (h_P < height)
    has_lower_P = is_point_P & (h_P >= -1) & (h_P < height - 1)
    has_left_P, has_right_P = (w_P >= 0) & (w_P < width), (w_P >= -1) & (w_P < width - 1)
    from_P = ((image_P * height + h_P) * width + w_P).to(tl.int64) * channels
    to_P = point_P.to(tl.int64) * channels
    for block in tl.static_range(N_BLOCKS):
        channel_C = (tl.program_id(1) * N_BLOCKS + block) * BLOCK_C + tl.arange(0, BLOCK_C)
        is_channel_C = (channel_C < channels)[None, :]
        from_PC = x_ptr + from_P[:, None] + channel_C[None, :]
        mask_PC = (has_upper_P & has_left_P)[:, None] & is_channel_C
        y_PC = (upper_P * left_P)[:, None] * tl.load(from_PC, mask=mask_PC, other=0).to(tl.float32)
        mask_PC = (has_upper_P & has_right_P)[:, None] & is_channel_C
        y_PC += (upper_P * right_P)[:, None] * tl.load(from_PC + channels, mask=mask_PC, other=0).to(tl.float32)
        from_PC += width * channels
        mask_PC = (has_lower_P & has_left_P)[:, None] & is_channel_C
        y_PC += (lower_P * left_P)[:, None] * tl.load(from_PC, mask=mask_PC, other=0).to(tl.float32)
        mask_PC = (has_lower_P & has_right_P)[:, None] & is_channel_C
        y_PC += (lower_P * right_P)[:, None] * tl.load(from_PC + channels, mask=mask_PC, other=0).to(tl.float32)
        to_PC = y_ptr + to_P[:, None] + channel_C[None, :]
        tl.store(to_PC, y_PC.to(y_ptr.dtype.element_ty), mask=is_point_P[:, None] & is_channel_C)


def _blocks(n_points: int, channels: int, n_programs: int) -> tuple[int, int, int]:
    """Returns points per program, channels per block, and blocks per program."""
    # Use the largest power of two that divides the channels, so that no thread is idle: 96, 192 and 384 channels have
    # three blocks of 32, 64 and 128.
    block_c = min(max(channels & -channels, 32), 128)
    block_p = _N_ELEMENTS // block_c
    n_blocks = min(triton.cdiv(channels, block_c), 4)
    return block_p, block_c, n_blocks if triton.cdiv(n_points, block_p) >= n_programs else 1


def launch(x_BHWC: Tensor, offset_BCHW: Tensor, y_BHWC: Tensor, *, n_programs: int = _N_PROGRAMS) -> None:
    """Fills `y_BHWC`, shape (B, H // 2, W // 2, 4 * C). Maps must be contiguous; offsets can have any strides."""
    B, H, W, C = x_BHWC.shape
    n_points = B * (H // 2) * (W // 2) * 4
    if n_points == 0:  # the compiler turns a height or width of 1 into a constant, which the kernel does not support
        return
    block_p, block_c, n_blocks = _blocks(n_points, C, n_programs)
    grid = (triton.cdiv(n_points, block_p), triton.cdiv(C, block_c * n_blocks))
    _columns[grid](
        x_BHWC,
        offset_BCHW,
        y_BHWC,
        n_points,
        H,
        W,
        C,
        *offset_BCHW.stride(),
        BLOCK_P=block_p,
        BLOCK_C=block_c,
        N_BLOCKS=n_blocks,
        num_warps=4,
        enable_fp_fusion=True,  # explicit, because the default differs between versions of Triton
    )
