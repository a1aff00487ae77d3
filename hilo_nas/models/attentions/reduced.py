"""Attention of every token to fewer keys and values than there are tokens.

Papers: "Pyramid Vision Transformer" (arXiv 2102.12122), section 3.3, for spatial-reduction attention; "PVT v2: Improved
Baselines with Pyramid Vision Transformer" (arXiv 2106.13797), section 3.2, for linear spatial-reduction attention;
"Linformer: Self-Attention with Linear Complexity" (arXiv 2006.04768), section 4.
Own changes: maps of any size (see each class); Linformer as encoder attention on a map, its two projections of the
tokens shared by all heads (the paper's headwise sharing) and done before the projections of the channels, which is the
same product in a cheaper order.

Shape suffixes: B batch, H W map, N tokens of the map, M tokens of the reduced map, C channels, A heads, D head
dimension, S tokens of a patch.
"""

from __future__ import annotations

import abc

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hilo_nas.arch.attentions import POOLED_SIDE
from hilo_nas.errors import UsageError
from hilo_nas.models.attentions.heads import HeadedLayer, join_heads, split_heads
from hilo_nas.models.hilo import pad_map

__all__ = ["SRA", "Linformer", "PooledAttention"]


class _ReducedAttention(HeadedLayer, abc.ABC):
    """Attention of every token of a map to the tokens of a smaller one."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool, **settings: int) -> None:
        super().__init__(dim, num_heads, **settings)
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    @abc.abstractmethod
    def reduce(self, x_BHWC: Tensor) -> Tensor:
        """Returns what keys and values are made of, shape (B, M, C)."""

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Returns the attended map, shape (B, H, W, C) as given."""
        (q_BAND,) = split_heads(self.q(x_BHWC.flatten(1, 2)), 1, self.num_heads)
        k_BAMD, v_BAMD = split_heads(self.kv(self.reduce(x_BHWC)), 2, self.num_heads)
        y_BAND = F.scaled_dot_product_attention(q_BAND, k_BAMD, v_BAMD)
        y_BHWC: Tensor = self.proj(join_heads(y_BAND)).reshape(x_BHWC.shape)
        return y_BHWC


class SRA(_ReducedAttention):
    """Spatial-reduction attention: keys and values come from patches, each projected to one token and normalised.

    The strided convolution of the reduction is a product here, its patches cut first. A map that the patches do not
    divide is padded at the bottom and right with zeros for the reduction alone; queries are the map's own tokens.

    Args:
        dim: Channels of the map.
        num_heads: Attention heads; must divide `dim`.
        window_size: The paper's reduction ratio R, the side of a patch; 1 leaves the reduction out, as in its last
            stage.
        qkv_bias: Whether the query, key and value projections have biases; the others always do.

    Raises:
        ArchError: `num_heads` does not divide `dim`.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int, qkv_bias: bool = True) -> None:
        super().__init__(dim, num_heads, qkv_bias, window_size=window_size)
        self.window_size = window_size
        if window_size > 1:
            self.sr = nn.Linear(window_size**2 * dim, dim)
            self.norm = nn.LayerNorm(dim, eps=1e-5)

    def reduce(self, x_BHWC: Tensor) -> Tensor:
        """Returns a token per patch, shape (B, M, C)."""
        if self.window_size == 1:
            return x_BHWC.flatten(1, 2)
        s = self.window_size
        x_BHWC = pad_map(x_BHWC, s)
        B, H, W, C = x_BHWC.shape
        patches = x_BHWC.reshape(B, H // s, s, W // s, s, C).transpose(2, 3).reshape(B, -1, s * s * C)
        x_BMC: Tensor = self.norm(self.sr(patches))
        return x_BMC


class PooledAttention(_ReducedAttention):
    """Linear spatial-reduction attention: keys and values come from the map averaged to 7 x 7 tokens.

    The pooled side is the paper's, whatever the map, so the cost grows with the map's tokens and not with their square.
    A side of fewer tokens is left as it is. The pooled map passes a 1x1 convolution, LayerNorm and GELU.

    Args:
        dim: Channels of the map.
        num_heads: Attention heads; must divide `dim`.
        qkv_bias: Whether the query, key and value projections have biases; the others always do.

    Raises:
        ArchError: `num_heads` does not divide `dim`.
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True) -> None:
        super().__init__(dim, num_heads, qkv_bias)
        self.sr = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def reduce(self, x_BHWC: Tensor) -> Tensor:
        """Returns the tokens of the pooled map, shape (B, M, C)."""
        _, H, W, _ = x_BHWC.shape
        side = (min(H, POOLED_SIDE), min(W, POOLED_SIDE))
        if side != (H, W):
            x_BHWC = F.adaptive_avg_pool2d(x_BHWC.permute(0, 3, 1, 2), side).permute(0, 2, 3, 1)
        return F.gelu(self.norm(self.sr(x_BHWC.flatten(1, 2))))


class Linformer(HeadedLayer):
    """Attention to learnt mixtures of tokens; bound to the number of tokens that it was built for.

    Args:
        dim: Channels of the map.
        num_heads: Attention heads; must divide `dim`.
        tokens: Tokens of the map, height times width.
        rank: Mixtures that keys and values are projected to, the paper's k.
        qkv_bias: Whether the query, key and value projections have biases; the output projection always does.

    Raises:
        ArchError: `num_heads` does not divide `dim`.
    """

    def __init__(self, dim: int, num_heads: int, *, tokens: int, rank: int, qkv_bias: bool = True) -> None:
        super().__init__(dim, num_heads, tokens=tokens, rank=rank)
        self.tokens = tokens
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.k = nn.Linear(dim, dim, bias=qkv_bias)
        self.v = nn.Linear(dim, dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.mix = nn.Parameter(torch.empty(2 * rank, tokens))  # the paper's E, for keys, above its F, for values
        nn.init.normal_(self.mix, std=rank**-0.5)  # the random projection of the paper's theorems

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Returns the attended map, shape (B, H, W, C) as given.

        Raises:
            UsageError: The map has another number of tokens than the layer was built for.
        """
        _, H, W, _ = x_BHWC.shape
        if self.tokens != H * W:
            raise UsageError(
                f"Linformer was built for maps of {self.tokens} tokens, but got {H} x {W}. "
                f"Build it with tokens={H * W}; it projects along the tokens, so it fits one size alone."
            )
        x_BNC = x_BHWC.flatten(1, 2)
        for_k_BMC, for_v_BMC = torch.matmul(self.mix, x_BNC).chunk(2, dim=1)
        (q_BAND,) = split_heads(self.q(x_BNC), 1, self.num_heads)
        (k_BAMD,) = split_heads(self.k(for_k_BMC), 1, self.num_heads)
        (v_BAMD,) = split_heads(self.v(for_v_BMC), 1, self.num_heads)
        y_BAND = F.scaled_dot_product_attention(q_BAND, k_BAMD, v_BAMD)
        y_BHWC: Tensor = self.proj(join_heads(y_BAND)).reshape(x_BHWC.shape)
        return y_BHWC
