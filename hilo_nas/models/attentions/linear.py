"""Attention with a cost that is linear in the number of tokens.

Papers: "XCiT: Cross-Covariance Image Transformers" (arXiv 2106.09681), section 3.2; "ELFATT: Efficient Linear Fast
Attention for Vision Transformers" (arXiv 2501.06098), the equation of the ELFATT block.
Differences: Each class describes its own.

Shape suffixes: B batch, H W feature map, C channels, N tokens, A heads, D head dimension (E another one of the same
length), S tokens of a window, G windows of a map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hilo_nas.arch.attentions import elfatt_global_heads
from hilo_nas.models.attentions.heads import HeadedLayer, join_heads, split_heads
from hilo_nas.models.attentions.windows import cut_windows, join_windows, split_window_heads

__all__ = ["ELFATT", "XCA"]


class XCA(HeadedLayer):
    """Cross-covariance attention: the channels of a head attend to each other, with scores over all tokens.

    Queries and keys are normalised along the tokens. A learned factor per head multiplies the scores; it is the inverse
    of the paper's temperature. The local patch interaction of XCiT is not part of the layer.

    Args:
        dim: Channels of the feature map.
        num_heads: Attention heads (blocks of channels in the paper); must divide `dim`.
        qkv_bias: True if the query, key and value projections have biases. The output projection always has a bias.

    Raises:
        ArchError: `num_heads` does not divide `dim`.
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True) -> None:
        super().__init__(dim, num_heads)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.temperature = nn.Parameter(torch.ones(num_heads))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Returns the attention output, a feature map of the same shape (B, H, W, C) as the input."""
        q_BAND, k_BAND, v_BAND = split_heads(self.qkv(x_BHWC.flatten(1, 2)), 3, self.num_heads)
        # float16 can represent this eps, but not the default of 1e-12.
        q_BAND, k_BAND = (F.normalize(x_BAND, dim=2, eps=1e-6) for x_BAND in (q_BAND, k_BAND))
        scores_BADE = q_BAND.transpose(2, 3) @ k_BAND * self.temperature[:, None, None]
        y_BAND = v_BAND @ scores_BADE.softmax(-1).to(v_BAND.dtype).transpose(2, 3)
        y_BHWC: Tensor = self.proj(join_heads(y_BAND)).reshape(x_BHWC.shape)
        return y_BHWC


class ELFATT(HeadedLayer):
    """ELFATT: half of the heads use linear attention over the whole map, the others softmax attention inside windows.

    A global head computes softmax(Q) softmax(K)ᵀ V. The softmax of the queries is over channels and that of the keys is
    over tokens, so that the weights of each token sum to one (as in "Efficient Attention", arXiv 1812.01243). Global
    heads do not see padding.

    A local head computes softmax attention inside its window (a block in the paper). For these heads, the map is padded
    with zeros at the bottom and right to whole windows, and cropped at the end. Padding tokens serve as keys.

    Both kinds of heads add a 3x3 depthwise convolution of the values; local heads apply it per window. The layer
    includes the output projection, which is not in the paper's equations.

    Args:
        dim: Channels of the feature map.
        num_heads: Attention heads; must divide `dim`. Half of them, rounded down, are global.
        window_size: Side of a local window in tokens.
        qkv_bias: True if the query, key and value projections have biases. The other layers always have biases.

    Raises:
        ArchError: `num_heads` does not divide `dim`.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int, qkv_bias: bool = True) -> None:
        super().__init__(dim, num_heads, window_size=window_size)
        self.window_size = window_size
        self.global_heads = elfatt_global_heads(num_heads)
        self.local_heads = num_heads - self.global_heads
        global_dim, local_dim = self.global_heads * self.head_dim, self.local_heads * self.head_dim
        if self.global_heads:
            self.global_qkv = nn.Linear(dim, 3 * global_dim, bias=qkv_bias)
            self.global_conv = nn.Conv2d(global_dim, global_dim, kernel_size=3, padding=1, groups=global_dim)
        self.local_qkv = nn.Linear(dim, 3 * local_dim, bias=qkv_bias)
        self.local_conv = nn.Conv2d(local_dim, local_dim, kernel_size=3, padding=1, groups=local_dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Returns the attention output, a feature map of the same shape (B, H, W, C) as the input.

        The inputs of the output projection start with the global heads.
        """
        parts = [self._global(x_BHWC)] if self.global_heads else []
        y_BHWC: Tensor = self.proj(torch.cat([*parts, self._local(x_BHWC)], dim=-1))
        return y_BHWC

    def _global(self, x_BHWC: Tensor) -> Tensor:
        B, H, W, _ = x_BHWC.shape
        qkv_BNC = self.global_qkv(x_BHWC.flatten(1, 2))
        q_BAND, k_BAND, v_BAND = split_heads(qkv_BNC, 3, self.global_heads)
        context_BADE = k_BAND.softmax(2).transpose(2, 3) @ v_BAND
        y_BNC = join_heads(q_BAND.softmax(3) @ context_BADE)
        v_BHWC = qkv_BNC.chunk(3, dim=-1)[2].reshape(B, H, W, -1)
        return y_BNC.reshape(B, H, W, -1) + _convolve(self.global_conv, v_BHWC)

    def _local(self, x_BHWC: Tensor) -> Tensor:
        B, H, W, _ = x_BHWC.shape
        s = self.window_size
        x_BSGC = cut_windows(x_BHWC, s)
        _, S, G, _ = x_BSGC.shape
        q, k, v = split_window_heads(self.local_qkv(x_BSGC), self.local_heads)
        y_BSGC = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, S, G, -1)
        v_BGSC = v.transpose(1, 2).reshape(B, S, G, -1).transpose(1, 2)
        local_BGSC = _convolve(self.local_conv, v_BGSC.reshape(B * G, s, s, -1)).reshape(v_BGSC.shape)
        return join_windows(y_BSGC + local_BGSC.transpose(1, 2), s, H, W)


def _convolve(conv: nn.Conv2d, x_BHWC: Tensor) -> Tensor:
    y_BCHW: Tensor = conv(x_BHWC.permute(0, 3, 1, 2))
    return y_BCHW.permute(0, 2, 3, 1)
