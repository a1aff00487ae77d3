"""Attention inside non-overlapping windows. Reads queries, keys and values from their joint projection without a copy.

Paper: "Fast Vision Transformers with HiLo Attention" (arXiv 2205.13213), section 3.1, Hi-Fi. Matches
`hilo_nas.models.hilo.HiLo`. Softmax uses powers of two and divides by the sum at the end, as in FlashAttention (arXiv
2205.14135). Several small windows share one tile of 16 tokens, the minimum of the tensor core; a mask separates them.
In machine code, this is less than half the work of processing keys and values one by one.

Shape suffixes: B batch, H W feature map, F features of the joint projection, C channels of the result, D head
dimension, M query and N key tokens of a tile (D, M and N are powers of two, padded with zeros).
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["launch"]

_N_SCORES = {torch.float32: 64 * 64, torch.float16: 64 * 256, torch.bfloat16: 64 * 256}
"""Maximum number of scores per tile, so that they stay in registers. Queries of larger windows are distributed over
programs. The limit is lower for float32, because its products also use registers instead of the tensor core."""


@triton.jit
def _window_attention(
    qkv_ptr,
    y_ptr,
    n_windows,
    n_across,
    features,
    offset,
    scale,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WINDOW: tl.constexpr,
    PER_TILE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Writes one head of a few windows, or of some queries of one window. Consecutive programs handle the heads."""
    TOKENS: tl.constexpr = WINDOW * WINDOW
    head, tile = tl.program_id(0) % HEADS, tl.program_id(0) // HEADS
    m_M, n_N = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    q_window_M, k_window_N = tile * PER_TILE + m_M // TOKENS, tile * PER_TILE + n_N // TOKENS
    is_query_M = (m_M < PER_TILE * TOKENS) & (q_window_M < n_windows)
    is_key_N = (n_N < PER_TILE * TOKENS) & (k_window_N < n_windows)
    # Lines are numbered across images. No window spans two images, because the window size divides the height.
    q_line_M = q_window_M // n_across * WINDOW + m_M % TOKENS // WINDOW
    k_line_N = k_window_N // n_across * WINDOW + n_N % TOKENS // WINDOW
    q_col_M = q_window_M % n_across * WINDOW + m_M % WINDOW
    k_col_N = k_window_N % n_across * WINDOW + n_N % WINDOW
    q_token_M = q_line_M.to(tl.int64) * (n_across * WINDOW) + q_col_M
    k_token_N = k_line_N.to(tl.int64) * (n_across * WINDOW) + k_col_N

    d_D = tl.arange(0, BLOCK_D)
    mask_MD = is_query_M[:, None] & (d_D < HEAD_DIM)[None, :]
    mask_ND = is_key_N[:, None] & (d_D < HEAD_DIM)[None, :]
    in_D = head * HEAD_DIM + d_D
    q_ptr_MD = qkv_ptr + q_token_M[:, None] * features + (offset + in_D)[None, :]
    k_ptr_ND = qkv_ptr + k_token_N[:, None] * features + (offset + HEADS * HEAD_DIM + in_D)[None, :]
    q_MD = tl.load(q_ptr_MD, mask=mask_MD, other=0)
    k_ND = tl.load(k_ptr_ND, mask=mask_ND, other=0)
    v_ND = tl.load(k_ptr_ND + HEADS * HEAD_DIM, mask=mask_ND, other=0)

    # "ieee" keeps float32 instead of TF32. It does not affect half precision.
    score_MN = tl.dot(q_MD, tl.trans(k_ND), input_precision="ieee") * scale
    # Padding tokens form a separate window, so that every query has at least one key.
    score_MN = tl.where((m_M // TOKENS)[:, None] == (n_N // TOKENS)[None, :], score_MN, float("-inf"))
    weight_MN = tl.exp2(score_MN - tl.max(score_MN, 1)[:, None])
    y_MD = tl.dot(weight_MN.to(v_ND.dtype), v_ND, input_precision="ieee") / tl.sum(weight_MN, 1)[:, None]
    to_MD = y_ptr + q_token_M[:, None] * (HEADS * HEAD_DIM) + in_D[None, :]
    tl.store(to_MD, y_MD.to(y_ptr.dtype.element_ty), mask=mask_MD)


def _tile(tokens: int, dtype: torch.dtype) -> tuple[int, int, int]:
    """Returns the number of queries, keys and warps per tile."""
    block_n = max(triton.next_power_of_2(tokens), 16)
    block_m = min(block_n, _N_SCORES[dtype] // block_n)
    # Each warp handles 16 queries. Hopper's tensor core uses four warps for 64 or more queries. Float32 needs twice the
    # registers.
    num_warps = {16: 1, 32: 2, 64: 4, 128: 4, 256: 8}[block_n]
    return block_m, block_n, min(2 * num_warps, 8) if dtype == torch.float32 else num_warps


def launch(qkv_BHWF: Tensor, y_BHWC: Tensor, *, window: int, heads: int, head_dim: int, offset: int) -> None:
    """Fills `y_BHWC`, shape (B, H, W, heads * head_dim).

    Both tensors must be contiguous. A window can have at most 256 tokens.
    """
    B, H, W, F = qkv_BHWF.shape
    tokens = window * window
    block_m, block_n, num_warps = _tile(tokens, qkv_BHWF.dtype)
    n_windows, per_tile = B * H * W // tokens, block_n // tokens
    grid = (triton.cdiv(n_windows, per_tile) * heads, triton.cdiv(per_tile * tokens, block_m))
    _window_attention[grid](
        qkv_BHWF,
        y_BHWC,
        n_windows,
        W // window,
        F,
        offset,
        head_dim**-0.5 * math.log2(math.e),  # because the hardware has only exp2
        HEADS=heads,
        HEAD_DIM=head_dim,
        WINDOW=window,
        PER_TILE=per_tile,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        BLOCK_D=max(triton.next_power_of_2(head_dim), 16),
        num_warps=num_warps,
        enable_fp_fusion=True,  # explicit, because the default differs between versions of Triton
    )
