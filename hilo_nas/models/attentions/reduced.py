"""Attention with fewer keys and values than tokens.

Papers: "Pyramid Vision Transformer" (arXiv 2102.12122), section 3.3, for spatial-reduction attention; "PVT v2: Improved
Baselines with Pyramid Vision Transformer" (arXiv 2106.13797), section 3.2, for linear spatial-reduction attention;
"Linformer: Self-Attention with Linear Complexity" (arXiv 2006.04768), section 4.
Differences: SRA and pooled attention accept maps of any size. Linformer is encoder attention on a map. All heads share
its two projections of the tokens (headwise sharing in the paper). They run before the projections of the channels,
which gives the same product at a lower cost.

Shape suffixes: B batch, H W feature map, N tokens of the map, M tokens of the reduced map, C channels, A heads, D head
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
    """Base class: every token of a map attends to the tokens of a smaller map."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool, **settings: int) -> None:
        super().__init__(dim, num_heads, **settings)
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    @abc.abstractmethod
    def reduce(self, x_BHWC: Tensor) -> Tensor:
        """Returns the tokens from which keys and values are projected, shape (B, M, C)."""

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Returns the attention output, a feature map of the same shape (B, H, W, C) as the input."""
        (q_BAND,) = split_heads(self.q(x_BHWC.flatten(1, 2)), 1, self.num_heads)
        k_BAMD, v_BAMD = split_heads(self.kv(self.reduce(x_BHWC)), 2, self.num_heads)
        y_BAND = F.scaled_dot_product_attention(q_BAND, k_BAMD, v_BAMD)
        y_BHWC: Tensor = self.proj(join_heads(y_BAND)).reshape(x_BHWC.shape)
        return y_BHWC


class SRA(_ReducedAttention):
    """Spatial-reduction attention: each patch of the map is projected to one token for keys and values.

    A matrix product over patches replaces the strided convolution of the paper. LayerNorm follows it. For the reduction
    only, the map is padded with zeros at the bottom and right to whole patches.

    Args:
        dim: Channels of the feature map.
        num_heads: Attention heads; must divide `dim`.
        window_size: Side of a patch in tokens, the reduction ratio R of the paper. 1 omits the reduction, as in the
            last stage of the paper.
        qkv_bias: True if the query, key and value projections have biases. The other layers always have biases.

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
        """Returns one token per patch, shape (B, M, C)."""
        if self.window_size == 1:
            return x_BHWC.flatten(1, 2)
        s = self.window_size
        x_BHWC = pad_map(x_BHWC, s)
        B, H, W, C = x_BHWC.shape
        patches = x_BHWC.reshape(B, H // s, s, W // s, s, C).transpose(2, 3).reshape(B, -1, s * s * C)
        x_BMC: Tensor = self.norm(self.sr(patches))
        return x_BMC


class PooledAttention(_ReducedAttention):
    """Linear spatial-reduction attention: keys and values come from the map average-pooled to 7 x 7 tokens.

    The cost is linear in the number of tokens, because the pooled size is fixed (7, as in the paper). A side with fewer
    tokens is not pooled. A 1x1 convolution, LayerNorm and GELU follow the pooling.

    Args:
        dim: Channels of the feature map.
        num_heads: Attention heads; must divide `dim`.
        qkv_bias: True if the query, key and value projections have biases. The other layers always have biases.

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
    """Linformer: attention to learned linear combinations of the tokens, for maps of one fixed number of tokens.

    Args:
        dim: Channels of the feature map.
        num_heads: Attention heads; must divide `dim`.
        tokens: Tokens of the map: height times width.
        rank: Number of combinations for keys and values, k in the paper.
        qkv_bias: True if the query, key and value projections have biases. The output projection always has a bias.

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
        self.mix = nn.Parameter(torch.empty(2 * rank, tokens))  # E (for keys) and F (for values) of the paper, stacked
        nn.init.normal_(self.mix, std=rank**-0.5)  # the random projection in the theorems of the paper

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Returns the attention output, a feature map of the same shape (B, H, W, C) as the input.

        Raises:
            UsageError: The number of tokens of the map differs from `tokens`.
        """
        _, H, W, _ = x_BHWC.shape
        if self.tokens != H * W:
            raise UsageError(
                f"the map must have {self.tokens} tokens, for which this Linformer was built, but got {H} x {W}. "
                f"Build a Linformer with tokens={H * W}."
            )
        x_BNC = x_BHWC.flatten(1, 2)
        for_k_BMC, for_v_BMC = torch.matmul(self.mix, x_BNC).chunk(2, dim=1)
        (q_BAND,) = split_heads(self.q(x_BNC), 1, self.num_heads)
        (k_BAMD,) = split_heads(self.k(for_k_BMC), 1, self.num_heads)
        (v_BAMD,) = split_heads(self.v(for_v_BMC), 1, self.num_heads)
        y_BAND = F.scaled_dot_product_attention(q_BAND, k_BAMD, v_BAMD)
        y_BHWC: Tensor = self.proj(join_heads(y_BAND)).reshape(x_BHWC.shape)
        return y_BHWC
