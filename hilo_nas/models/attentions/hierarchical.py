"""Hierarchical attention in two steps: local attention inside windows, global attention to one token per window.

Papers: "Vision Transformers with Hierarchical Attention" (HAT-Net, arXiv 2106.03180), section 3.2, for H-MHSA;
"FasterViT: Fast Vision Transformers with Hierarchical Attention" (arXiv 2306.06189), section 3.3, for carrier tokens.
Both layers are written from the equations in the papers, without using the code of FasterViT.
Differences: Maps of any size are padded with zeros at the bottom and right to whole windows, and cropped at the end.
Padding tokens take part in the pooling and serve as keys, as in HiLo. Each class lists the steps that it omits.

Shape suffixes: B batch, H W feature map, C channels, S tokens of a window, G windows of a map, A heads, D head
dimension, N all tokens of the windows (S·G).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hilo_nas.models.attentions.heads import HeadedLayer, join_heads, split_heads
from hilo_nas.models.attentions.windows import attend_windows, cut_windows, join_windows

__all__ = ["HMSA", "CarrierAttention"]


class HMSA(HeadedLayer):
    """Hierarchical multi-head self-attention (H-MHSA) of HAT-Net.

    Attention inside small grids, with a residual connection, computes local features. Global attention uses these
    features as queries, and their averages over each grid as keys and values. The sum of local and global features is
    projected. The grids and the averaging use the same size, which are two settings in the paper. There is no
    normalisation between the steps.

    Args:
        dim: Channels of the feature map.
        num_heads: Attention heads of both steps; must divide `dim`.
        window_size: Side of a grid in tokens, for local attention and for averaging. 1 omits the local step and means
            plain attention, as in the last stage of the paper.
        qkv_bias: True if the query, key and value projections have biases. The output projection always has a bias.

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
        """Returns the attention output, a feature map of the same shape (B, H, W, C) as the input."""
        _, H, W, _ = x_BHWC.shape
        x_BSGC = cut_windows(x_BHWC, self.window_size)
        if self.window_size == 1:
            return join_windows(self.proj(self._attend_far(x_BSGC)), 1, H, W)
        near_BSGC = attend_windows(x_BSGC, self.local_qkv, self.num_heads) + x_BSGC
        return join_windows(self.proj(near_BSGC + self._attend_far(near_BSGC)), self.window_size, H, W)

    def _attend_far(self, x_BSGC: Tensor) -> Tensor:
        """Returns attention of every token to the averaged windows, shape (B, S, G, C)."""
        (q_BAND,) = split_heads(self.q(x_BSGC.flatten(1, 2)), 1, self.num_heads)
        k_BAGD, v_BAGD = split_heads(self.kv(x_BSGC.mean(1)), 2, self.num_heads)
        return join_heads(F.scaled_dot_product_attention(q_BAND, k_BAGD, v_BAGD)).reshape(x_BSGC.shape)


class CarrierAttention(HeadedLayer):
    """Hierarchical attention of FasterViT: windows exchange information through one carrier token per window.

    The steps are:

    1. Average each window to its carrier token.
    2. Carriers attend to each other, with a residual connection.
    3. Each carrier is normalised and joins its window. All tokens of the window attend to each other. The carrier has a
       residual connection.
    4. The result is each token of the window plus the carrier of the window.

    This is a stage of the paper with one block. It omits the convolution before the averaging (a position encoding),
    the position embeddings and the layer scales. The residual connection of the map, the MLPs and the first norm belong
    to the block around the layer. Each window has one carrier; the paper also uses more.

    Args:
        dim: Channels of the feature map.
        num_heads: Attention heads of both steps; must divide `dim`.
        window_size: Side of a window in tokens.
        qkv_bias: True if the query, key and value projections have biases. The output projections always have biases.

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
        """Returns the attention output, a feature map of the same shape (B, H, W, C) as the input."""
        _, H, W, _ = x_BHWC.shape
        x_BSGC = cut_windows(x_BHWC, self.window_size)
        carrier_BGC = x_BSGC.mean(1)
        q_BAGD, k_BAGD, v_BAGD = split_heads(self.carrier_qkv(carrier_BGC), 3, self.num_heads)
        seen_BGC = join_heads(F.scaled_dot_product_attention(q_BAGD, k_BAGD, v_BAGD))
        carrier_BGC = carrier_BGC + self.carrier_proj(seen_BGC)
        # The carrier is the window's last token.
        window = torch.cat([x_BSGC, self.norm(carrier_BGC)[:, None].to(x_BSGC.dtype)], dim=1)
        y = self.proj(attend_windows(window, self.qkv, self.num_heads))
        y_BSGC, update_B1GC = y[:, :-1], y[:, -1:]
        return join_windows(y_BSGC + (carrier_BGC[:, None] + update_B1GC).to(y.dtype), self.window_size, H, W)
