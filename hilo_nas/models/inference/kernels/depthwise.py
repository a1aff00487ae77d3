"""3x3 depthwise convolution and GELU of a ConvFFN in one kernel, which reads and writes each pixel once.

Matches the middle of `hilo_nas.models.blocks.ConvFFN`. A program moves down a few columns of pixels. It adds each input
row to the three output rows that depend on it; these rows stay in registers. Pixels to the left and right come from the
L1 cache, because neighbouring threads have loaded them. In half precision, the machine code has slightly more
arithmetic time than memory time, so the code minimises instructions.

Shape suffixes: B batch, C channels (inside a kernel: of one block), H W feature map, T columns of pixels.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["launch"]

_BLOCK_T, _BLOCK_C = 8, 64
"""Columns and channels per program. With four warps, each thread has four channels, and nine weights of each take 36
registers. With eight channels, only half as many warps would fit to hide memory latency. Not measured yet."""

_MAX_ROWS = 16
"""Maximum number of output rows per program. A program also reads the row above and the row below them."""

_N_PROGRAMS = 1024
"""Target number of programs. Programs get fewer rows, but at least four, until this number is reached. Not measured
yet."""


@triton.jit
def _gelu(x):
    """Returns the exact GELU, x * Phi(x), with 15 instructions instead of 36 with the library's `erf`.

    Computes max(x, 0) - |x| * erfc(|x| / sqrt(2)) / 2. log2 of erfc is |x| times a polynomial, fitted on [0, 5] and
    decreasing faster and faster above 5. The maximum error in float32 is 2.5e-7, compared with 1.1e-6 for torch's GELU.
    """
    a = tl.abs(x)
    p = tl.fma(a, -1.11976442e-06, 1.8635119e-05)
    p = tl.fma(p, a, -8.85529516e-05)
    p = tl.fma(p, a, -0.000364528038)
    p = tl.fma(p, a, 0.00734105613)
    p = tl.fma(p, a, -0.0526681282)
    p = tl.fma(p, a, -0.459160417)
    p = tl.fma(p, a, -1.15110946)
    return tl.maximum(x, 0.0) - a * tl.exp2(tl.fma(p, a, -1.0))


@triton.jit
def _row(x_ptr, at_TC, row_11, end, pitch, channels, has_left_TC, has_here_TC, has_right_TC):
    """Loads the pixels of one row to the left of, at, and to the right of each column. Pixels outside are zero."""
    is_row_11 = (row_11 >= 0) & (row_11 < end)
    at_TC = x_ptr + at_TC + row_11.to(tl.int64) * pitch
    left_TC = tl.load(at_TC - channels, mask=has_left_TC & is_row_11, other=0)
    here_TC = tl.load(at_TC, mask=has_here_TC & is_row_11, other=0)
    right_TC = tl.load(at_TC + channels, mask=has_right_TC & is_row_11, other=0)
    return left_TC, here_TC, right_TC


@triton.jit
def _depthwise_gelu(
    x_ptr,
    weight_ptr,
    bias_ptr,
    y_ptr,
    n_columns,
    height,
    width,
    channels,
    n_channel_blocks,
    n_row_groups,
    rows,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Writes `rows` rows of a few columns. Columns are numbered across images, so a block can span two images.

    Consecutive programs share pixels: the block of channels varies fastest, then the group of rows.
    """
    program = tl.program_id(0)
    channel_C = (program % n_channel_blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    program = program // n_channel_blocks
    start = (program % n_row_groups) * rows
    column_T = (program // n_row_groups) * BLOCK_T + tl.arange(0, BLOCK_T)
    image_T, col_T = column_T // width, column_T % width
    pitch = width * channels
    at_TC = (image_T.to(tl.int64) * height * width + col_T)[:, None] * channels + channel_C[None, :]
    has_here_TC = (column_T < n_columns)[:, None] & (channel_C < channels)[None, :]
    has_left_TC = has_here_TC & (col_T > 0)[:, None]
    has_right_TC = has_here_TC & (col_T < width - 1)[:, None]

    # Load weights in the layout of the pixels, so that each thread has its weights in its registers.
    of_TC = tl.zeros((BLOCK_T, 1), tl.int32) + channel_C[None, :]
    w00 = tl.load(weight_ptr + of_TC, mask=has_here_TC, other=0).to(tl.float32)
    w01 = tl.load(weight_ptr + channels + of_TC, mask=has_here_TC, other=0).to(tl.float32)
    w02 = tl.load(weight_ptr + 2 * channels + of_TC, mask=has_here_TC, other=0).to(tl.float32)
    w10 = tl.load(weight_ptr + 3 * channels + of_TC, mask=has_here_TC, other=0).to(tl.float32)
    w11 = tl.load(weight_ptr + 4 * channels + of_TC, mask=has_here_TC, other=0).to(tl.float32)
    w12 = tl.load(weight_ptr + 5 * channels + of_TC, mask=has_here_TC, other=0).to(tl.float32)
    w20 = tl.load(weight_ptr + 6 * channels + of_TC, mask=has_here_TC, other=0).to(tl.float32)
    w21 = tl.load(weight_ptr + 7 * channels + of_TC, mask=has_here_TC, other=0).to(tl.float32)
    w22 = tl.load(weight_ptr + 8 * channels + of_TC, mask=has_here_TC, other=0).to(tl.float32)
    bias_TC = tl.load(bias_ptr + of_TC, mask=has_here_TC, other=0).to(tl.float32)

    stop = tl.minimum(start + rows, height)
    end = tl.minimum(stop + 1, height)  # the program also reads the row below its rows
    row_11 = tl.full((1, 1), 0, tl.int32) + start
    a, b, c = _row(x_ptr, at_TC, row_11 - 1, end, pitch, channels, has_left_TC, has_here_TC, has_right_TC)
    x0, x1, x2 = a.to(tl.float32), b.to(tl.float32), c.to(tl.float32)
    here_TC = tl.fma(w02, x2, tl.fma(w01, x1, tl.fma(w00, x0, bias_TC)))
    a, b, c = _row(x_ptr, at_TC, row_11, end, pitch, channels, has_left_TC, has_here_TC, has_right_TC)
    x0, x1, x2 = a.to(tl.float32), b.to(tl.float32), c.to(tl.float32)
    here_TC = tl.fma(w12, x2, tl.fma(w11, x1, tl.fma(w10, x0, here_TC)))
    below_TC = tl.fma(w02, x2, tl.fma(w01, x1, tl.fma(w00, x0, bias_TC)))
    a, b, c = _row(x_ptr, at_TC, row_11 + 1, end, pitch, channels, has_left_TC, has_here_TC, has_right_TC)
    for _ in range(start, stop):
        x0, x1, x2 = a.to(tl.float32), b.to(tl.float32), c.to(tl.float32)
        # Load the next row while this row is computed.
        a, b, c = _row(x_ptr, at_TC, row_11 + 2, end, pitch, channels, has_left_TC, has_here_TC, has_right_TC)
        y_TC = _gelu(tl.fma(w22, x2, tl.fma(w21, x1, tl.fma(w20, x0, here_TC))))
        here_TC = tl.fma(w12, x2, tl.fma(w11, x1, tl.fma(w10, x0, below_TC)))
        below_TC = tl.fma(w02, x2, tl.fma(w01, x1, tl.fma(w00, x0, bias_TC)))
        to_TC = y_ptr + at_TC + row_11.to(tl.int64) * pitch
        tl.store(to_TC, y_TC.to(y_ptr.dtype.element_ty), mask=has_here_TC)
        row_11 += 1


def _n_row_groups(height: int, n_columns: int, n_programs: int) -> int:
    """Returns the number of row groups per column, for at least `n_programs` programs if possible."""
    groups: int = triton.cdiv(height, _MAX_ROWS)
    while n_columns * groups < n_programs and triton.cdiv(height, 2 * groups) >= 4:
        groups *= 2
    return groups


def launch(x_BHWC: Tensor, weight_KC: Tensor, bias_C: Tensor, y_BHWC: Tensor, *, n_programs: int = _N_PROGRAMS) -> None:
    """Fills `y_BHWC`, a map with the shape of `x_BHWC`. All tensors must be contiguous."""
    B, H, W, C = x_BHWC.shape
    n_channel_blocks, n_tiles = triton.cdiv(C, _BLOCK_C), triton.cdiv(B * W, _BLOCK_T)
    rows = triton.cdiv(H, _n_row_groups(H, n_channel_blocks * n_tiles, n_programs))
    n_row_groups = triton.cdiv(H, rows)
    _depthwise_gelu[(n_channel_blocks * n_row_groups * n_tiles,)](
        x_BHWC,
        weight_KC,
        bias_C,
        y_BHWC,
        B * W,
        H,
        W,
        C,
        n_channel_blocks,
        n_row_groups,
        rows,
        BLOCK_T=_BLOCK_T,
        BLOCK_C=_BLOCK_C,
        num_warps=4,
        enable_fp_fusion=True,  # explicit, because the default differs between versions of Triton
    )
