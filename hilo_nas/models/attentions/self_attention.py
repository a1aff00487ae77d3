"""Plain multi-head self-attention over all tokens of a map.

Papers: "Attention Is All You Need" (arXiv 1706.03762), section 3.2.2; "An Image is Worth 16x16 Words" (arXiv
2010.11929) for images.
Differences: None. Queries, keys and values share one projection; attention is fused.

Shape suffixes: B batch, H W feature map, N tokens, C channels, A heads, D head dimension.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hilo_nas.models.attentions.heads import HeadedLayer, join_heads, split_heads

__all__ = ["MSA"]


class MSA(HeadedLayer):
    """Multi-head self-attention: every token attends to every token.

    Args:
        dim: Channels of the feature map.
        num_heads: Attention heads; must divide `dim`.
        qkv_bias: True if the query, key and value projections have biases. The output projection always has a bias.

    Raises:
        ArchError: `num_heads` does not divide `dim`.
    """

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True) -> None:
        super().__init__(dim, num_heads)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Returns the attention output, a feature map of the same shape (B, H, W, C) as the input."""
        q_BAND, k_BAND, v_BAND = split_heads(self.qkv(x_BHWC.flatten(1, 2)), 3, self.num_heads)
        y_BAND = F.scaled_dot_product_attention(q_BAND, k_BAND, v_BAND)
        y_BHWC: Tensor = self.proj(join_heads(y_BAND)).reshape(x_BHWC.shape)
        return y_BHWC
