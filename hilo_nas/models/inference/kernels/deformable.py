"""Deformable merging's gather: the columns that one product with the convolution's weight turns into its result.

Source: "Deformable Convolutional Networks" (arXiv 1703.06211), equations 2 to 4; the same points and weights as
`hilo_nas.models.sampling.sampling_points`.

Shape suffixes: B batch, C channels (in a program: of one block), H W map, P points: four per output pixel.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["launch"]

_N_ELEMENTS = 1024
"""Points times channels of a block: with four warps, eight channels per thread, one load of 16 bytes in half precision.
Not measured yet."""

_N_PROGRAMS = 1024
"""From here on a program looks at all channels of its points, and finds each point once; below, channels are spread
over programs, or most of a large GPU (132 multiprocessors, say) would wait. Not measured yet."""


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
    """Writes the interpolated channels of a few points; `stride_*` are the offsets', of any layout."""
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
    # Far-away points keep numbers that fit an index. Not by minimum and maximum, which would hide a NaN.
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
    """Returns points of a program, channels of a block, and blocks of a program."""
    # The greatest power of two that divides the channels, so that no thread is idle: 96, 192 and 384 give 32, 64 and
    # 128, each in three blocks.
    block_c = min(max(channels & -channels, 32), 128)
    block_p = _N_ELEMENTS // block_c
    n_blocks = min(triton.cdiv(channels, block_c), 4)
    return block_p, block_c, n_blocks if triton.cdiv(n_points, block_p) >= n_programs else 1


def launch(x_BHWC: Tensor, offset_BCHW: Tensor, y_BHWC: Tensor, *, n_programs: int = _N_PROGRAMS) -> None:
    """Fills `y_BHWC`, shape (B, H // 2, W // 2, 4 * C); the maps are contiguous, the offsets of any layout."""
    B, H, W, C = x_BHWC.shape
    n_points = B * (H // 2) * (W // 2) * 4
    if n_points == 0:  # a map of one line; to the compiler a size of 1 is a plain number, which the program cannot bear
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
        enable_fp_fusion=True,  # whose default differs between versions of Triton
    )
