"""Window attention and shifted-window attention.

Paper: "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows" (arXiv 2103.14030), section 3.2.
Differences: Maps can have any size. There is no relative position bias, because no layer here adds positional
information. If one window covers a side of the map, that side is not shifted. Padding tokens are not masked: they serve
as keys (equal to the bias), as in HiLo.

Shape suffixes: B batch, H W feature map, C channels, S tokens of a window, G windows of a map, A heads.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn

from hilo_nas.models.attentions.heads import HeadedLayer
from hilo_nas.models.attentions.windows import attend_windows, cut_windows, join_windows
from hilo_nas.models.hilo import pad_map

__all__ = ["ShiftedWindowAttention", "WindowAttention"]


class WindowAttention(HeadedLayer):
    """Attention inside non-overlapping square windows.

    The map is padded with zeros at the bottom and right to whole windows, and cropped at the end.

    Args:
        dim: Channels of the feature map.
        num_heads: Attention heads; must divide `dim`.
        window_size: Side of a window in tokens. With 1, every token attends only to itself.
        qkv_bias: True if the query, key and value projections have biases. The output projection always has a bias.

    Raises:
        ArchError: `num_heads` does not divide `dim`.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int, qkv_bias: bool = True) -> None:
        super().__init__(dim, num_heads, window_size=window_size)
        self.window_size = window_size
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Returns the attention output, a feature map of the same shape (B, H, W, C) as the input."""
        return self._attend(x_BHWC, None)

    def _attend(self, x_BHWC: Tensor, mask: Tensor | None) -> Tensor:
        _, H, W, _ = x_BHWC.shape
        y_BSGC = attend_windows(cut_windows(x_BHWC, self.window_size), self.qkv, self.num_heads, mask)
        return join_windows(self.proj(y_BSGC), self.window_size, H, W)


class ShiftedWindowAttention(WindowAttention):
    """Attention inside windows that are shifted down and right by half a window.

    The padded map is shifted cyclically, so that the number of windows stays the same. A mask prevents attention
    between tokens from opposite edges of the map.

    Args:
        dim: Channels of the feature map.
        num_heads: Attention heads; must divide `dim`.
        window_size: Side of a window in tokens. The shift is half of it, rounded down.
        qkv_bias: True if the query, key and value projections have biases. The output projection always has a bias.

    Raises:
        ArchError: `num_heads` does not divide `dim`.
    """

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Returns the attention output, a feature map of the same shape (B, H, W, C) as the input."""
        s = self.window_size
        _, H, W, _ = x_BHWC.shape
        shifts = tuple(s // 2 if side > s else 0 for side in (H, W))
        if not any(shifts):
            return self._attend(x_BHWC, None)
        x_BHWC = torch.roll(pad_map(x_BHWC, s), [-shift for shift in shifts], dims=(1, 2))
        build = _build_mask if torch.compiler.is_compiling() else _cached_mask
        mask = build(x_BHWC.shape[1] // s, x_BHWC.shape[2] // s, s, shifts, self.num_heads, x_BHWC.device)
        return torch.roll(self._attend(x_BHWC, mask), shifts, dims=(1, 2))[:, :H, :W]


def _build_mask(
    rows: int, cols: int, window_size: int, shifts: tuple[int, ...], num_heads: int, device: torch.device
) -> Tensor:
    """Returns the attention mask, True if two tokens were in the same region before the shift; shape (1, G·A, S, S)."""
    s = window_size
    # The cyclic shift moved the first rows of the map to the bottom and the first columns to the right.
    wrapped_H = torch.arange(rows * s, device=device) >= rows * s - shifts[0]
    wrapped_W = torch.arange(cols * s, device=device) >= cols * s - shifts[1]
    region_HW = 2 * wrapped_H[:, None] + wrapped_W.long()
    region_GS = region_HW.reshape(rows, s, cols, s).transpose(1, 2).reshape(rows * cols, s * s)
    same_region_GSS = region_GS[:, :, None] == region_GS[:, None, :]
    return same_region_GSS.repeat_interleave(num_heads, dim=0)[None]


@lru_cache(maxsize=32)
def _cached_mask(
    rows: int, cols: int, window_size: int, shifts: tuple[int, ...], num_heads: int, device: torch.device
) -> Tensor:
    """Returns the mask, cached for all layers with the same arguments.

    The mask is built outside of inference mode, so that training can use it too.
    """
    with torch.inference_mode(False):
        return _build_mask(rows, cols, window_size, shifts, num_heads, device)
