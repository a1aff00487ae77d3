"""Attention in two steps, near and far: inside windows, and among what stands for a window.

Papers: "Vision Transformers with Hierarchical Attention" (HAT-Net, arXiv 2106.03180), section 3.2, for H-MHSA;
"FasterViT: Fast Vision Transformers with Hierarchical Attention" (arXiv 2306.06189), section 3.3, for carrier tokens.
Both are written from the papers' equations; no code of FasterViT was looked at.
Own changes: maps of any size, padded at the bottom and right with zeros to whole windows and cropped in the end (tokens
that padding added count as HiLo's do: in the pooling and as keys); what each class leaves out.

Shape suffixes: B batch, H W map, C channels, S tokens of a window, G windows of a map, A heads, D head dimension,
N all tokens of the windows (S·G).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hilo_nas.models.attentions.heads import HeadedLayer, join_heads, split_heads
from hilo_nas.models.attentions.windows import attend_windows, cut_windows, join_windows

__all__ = ["HMSA", "CarrierAttention"]


class HMSA(HeadedLayer):
    """HAT-Net's hierarchical multi-head self-attention (H-MHSA).

    Attention inside small grids, with a skip, gives the local features; from them come the queries of a global
    attention and, averaged over each grid, its keys and values. The sum of local and global features is projected.
    One size serves the grids and the averaging, which are two settings in the paper; nothing is normalised between the
    steps.

    Args:
        dim: Channels of the map.
        num_heads: Attention heads of both steps; must divide `dim`.
        window_size: Side of a grid and of what is averaged to one token; 1 leaves the local step out, as in the paper's
            last stage, which is plain attention.
        qkv_bias: Whether the query, key and value projections have biases; the output projection always does.

    Raises:
        ArchError: `num_heads` does not divide `dim`.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int, qkv_bias: bool = True) -> None:
        super().__init__(dim, num_heads, window_size=window_size)
        self.window_size = window_size
        if window_size > 1:
            self.local_qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Returns the attended map, shape (B, H, W, C) as given."""
        _, H, W, _ = x_BHWC.shape
        x_BSGC = cut_windows(x_BHWC, self.window_size)
        if self.window_size == 1:
            return join_windows(self.proj(self._attend_far(x_BSGC)), 1, H, W)
        near_BSGC = attend_windows(x_BSGC, self.local_qkv, self.num_heads) + x_BSGC
        return join_windows(self.proj(near_BSGC + self._attend_far(near_BSGC)), self.window_size, H, W)

    def _attend_far(self, x_BSGC: Tensor) -> Tensor:
        """Returns attention of every token to the averaged windows; the order of tokens does not matter to it."""
        (q_BAND,) = split_heads(self.q(x_BSGC.flatten(1, 2)), 1, self.num_heads)
        k_BAGD, v_BAGD = split_heads(self.kv(x_BSGC.mean(1)), 2, self.num_heads)
        return join_heads(F.scaled_dot_product_attention(q_BAND, k_BAGD, v_BAGD)).reshape(x_BSGC.shape)


class CarrierAttention(HeadedLayer):
    """Attention inside windows that each hold a carrier token, a summary which has seen all other windows.

    FasterViT's hierarchical attention as one layer: each window is averaged to its carrier token; carriers attend to
    each other (with a skip), then join their windows, where all tokens attend to each other (the carriers with a skip).
    The result is the windows' tokens plus their carrier. That is a stage of the paper with one block, less the
    convolution before the averaging (a position encoding), the positions, the layer scales, the skip of the map and the
    MLPs: the last two belong to the block around the layer. One carrier a window; the paper also uses more. Of the
    paper's norms the first belongs to the block too, so that only carriers are normalised, before they join.

    Args:
        dim: Channels of the map.
        num_heads: Attention heads of both steps; must divide `dim`.
        window_size: Side of a window, in tokens.
        qkv_bias: Whether the query, key and value projections have biases; the output projections always do.

    Raises:
        ArchError: `num_heads` does not divide `dim`.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int, qkv_bias: bool = True) -> None:
        super().__init__(dim, num_heads, window_size=window_size)
        self.window_size = window_size
        self.carrier_qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.carrier_proj = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim, eps=1e-5)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Returns the attended map, shape (B, H, W, C) as given."""
        _, H, W, _ = x_BHWC.shape
        x_BSGC = cut_windows(x_BHWC, self.window_size)
        carrier_BGC = x_BSGC.mean(1)
        q_BAGD, k_BAGD, v_BAGD = split_heads(self.carrier_qkv(carrier_BGC), 3, self.num_heads)
        seen_BGC = join_heads(F.scaled_dot_product_attention(q_BAGD, k_BAGD, v_BAGD))
        carrier_BGC = carrier_BGC + self.carrier_proj(seen_BGC)
        # The carrier is the window's last token.
        window = torch.cat([x_BSGC, self.norm(carrier_BGC)[:, None].to(x_BSGC.dtype)], dim=1)
        y = self.proj(attend_windows(window, self.qkv, self.num_heads))
        y_BSGC, told_B1GC = y[:, :-1], y[:, -1:]
        return join_windows(y_BSGC + (carrier_BGC[:, None] + told_B1GC).to(y.dtype), self.window_size, H, W)
