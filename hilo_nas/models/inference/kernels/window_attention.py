"""Attention inside non-overlapping windows, read from the joint product of queries, keys and values where they lie.

Source: "Fast Vision Transformers with HiLo Attention" (arXiv 2205.13213), section 3.1, Hi-Fi;
`hilo_nas.models.hilo.HiLo`. Softmax by powers of two, its sum divided out last, as in FlashAttention (arXiv
2205.14135). Small windows are put side by side into one tile of 16 tokens, and only look at themselves: the matrix unit
takes no less, and counted in the machine code it is less than half the work of taking keys and values one by one.

Shape suffixes: B batch, H W map, F features of the joint product, C channels of the result, D head dimension, M query
and N key tokens of a tile (D, M and N are powers of two, padded with zeros).
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["launch"]

_N_SCORES = {torch.float32: 64 * 64, torch.float16: 64 * 256, torch.bfloat16: 64 * 256}
"""Scores of a tile at most, so that they stay in registers; the queries of larger windows are shared out. Float32 is
multiplied in registers too, as the matrix unit does not take it."""


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
    """Writes one head of a few windows, or of some queries of one; the heads of a window run side by side."""
    TOKENS: tl.constexpr = WINDOW * WINDOW
    head, tile = tl.program_id(0) % HEADS, tl.program_id(0) // HEADS
    m_M, n_N = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    q_window_M, k_window_N = tile * PER_TILE + m_M // TOKENS, tile * PER_TILE + n_N // TOKENS
    is_query_M = (m_M < PER_TILE * TOKENS) & (q_window_M < n_windows)
    is_key_N = (n_N < PER_TILE * TOKENS) & (k_window_N < n_windows)
    # Lines of windows of all images, one after another: windows divide the height, so that none lies across two images.
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

    # "ieee": float32 stays float32, and is not cut to TF32. Half precision is not concerned.
    score_MN = tl.dot(q_MD, tl.trans(k_ND), input_precision="ieee") * scale
    # The padding is a window of its own, so that no query has nothing to look at.
    score_MN = tl.where((m_M // TOKENS)[:, None] == (n_N // TOKENS)[None, :], score_MN, float("-inf"))
    weight_MN = tl.exp2(score_MN - tl.max(score_MN, 1)[:, None])
    y_MD = tl.dot(weight_MN.to(v_ND.dtype), v_ND, input_precision="ieee") / tl.sum(weight_MN, 1)[:, None]
    to_MD = y_ptr + q_token_M[:, None] * (HEADS * HEAD_DIM) + in_D[None, :]
    tl.store(to_MD, y_MD.to(y_ptr.dtype.element_ty), mask=mask_MD)


def _tile(tokens: int, dtype: torch.dtype) -> tuple[int, int, int]:
    """Returns queries and keys of a tile, and its warps."""
    block_n = max(triton.next_power_of_2(tokens), 16)
    block_m = min(block_n, _N_SCORES[dtype] // block_n)
    # Sixteen queries are a warp's share; Hopper's matrix unit takes four warps from 64 queries on. Float32 needs twice
    # the registers.
    num_warps = {16: 1, 32: 2, 64: 4, 128: 4, 256: 8}[block_n]
    return block_m, block_n, min(2 * num_warps, 8) if dtype == torch.float32 else num_warps


def launch(qkv_BHWF: Tensor, y_BHWC: Tensor, *, window: int, heads: int, head_dim: int, offset: int) -> None:
    """Fills `y_BHWC`, shape (B, H, W, heads * head_dim); both are contiguous, and a window has 256 tokens at most."""
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
        head_dim**-0.5 * math.log2(math.e),  # exp2 is what the hardware has
        HEADS=heads,
        HEAD_DIM=head_dim,
        WINDOW=window,
        PER_TILE=per_tile,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        BLOCK_D=max(triton.next_power_of_2(head_dim), 16),
        num_warps=num_warps,
        enable_fp_fusion=True,  # whose default differs between versions of Triton
    )
