"""HiLo attention: Hi-Fi heads attend inside small windows, Lo-Fi heads attend to a pooled map.

Paper: "Fast Vision Transformers with HiLo Attention" (arXiv 2205.13213), section 3.1.
Behaviour: matches the official dense-prediction layer (github ziplab/LITv2, Apache-2.0), which accepts maps of any
size. The official classification layer gives the same result if the window size divides the map.
Differences: NHWC maps; fused attention; one call for all windows of an image, which share the head axis.

Shape suffixes: B batch, H W feature map, C channels, A heads, D head dimension, N tokens of the map, M tokens of the
pooled map, S tokens of a window, G windows of an image times heads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hilo_nas.arch.attentions import lofi_heads
from hilo_nas.errors import ArchError

__all__ = ["HiLo", "attend_far", "attend_windows", "pad_map", "pool_windows"]


class HiLo(nn.Module):
    """HiLo attention for maps of any size.

    Args:
        dim: Channels of the feature map.
        num_heads: Total number of attention heads; must divide `dim`.
        window_size: Side in tokens of the Hi-Fi windows and of the Lo-Fi pooling; 1 means plain attention.
        alpha: Fraction of the heads that Lo-Fi gets, in [0, 1]: `int(num_heads * alpha)` heads.
        qkv_bias: True if the query, key and value projections have biases. The output projections always have biases.

    Raises:
        ArchError: `num_heads` does not divide `dim`.
    """

    def __init__(self, dim: int, num_heads: int, window_size: int, alpha: float, qkv_bias: bool = True) -> None:
        super().__init__()
        if dim % num_heads:
            raise ArchError(f"num_heads must divide dim ({dim}), but got {num_heads}")
        self.window_size = window_size
        self.head_dim = dim // num_heads
        self.lofi_heads = lofi_heads(num_heads, alpha, window_size)
        self.hifi_heads = num_heads - self.lofi_heads
        if self.lofi_heads:
            lofi_dim = self.lofi_heads * self.head_dim
            self.l_q = nn.Linear(dim, lofi_dim, bias=qkv_bias)
            self.l_kv = nn.Linear(dim, 2 * lofi_dim, bias=qkv_bias)
            self.l_proj = nn.Linear(lofi_dim, lofi_dim)
        if self.hifi_heads:
            hifi_dim = self.hifi_heads * self.head_dim
            self.h_qkv = nn.Linear(dim, 3 * hifi_dim, bias=qkv_bias)
            self.h_proj = nn.Linear(hifi_dim, hifi_dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Returns the attention output, a feature map of the same shape (B, H, W, C) as the input.

        The Hi-Fi channels come first.

        Pads the map with zeros at the bottom and right to whole windows. Padding tokens are not masked: they take part
        in the pooling and serve as keys (equal to the bias). They are cropped from the result.
        """
        _, H, W, _ = x_BHWC.shape
        x_BHWC = pad_map(x_BHWC, self.window_size)
        parts = []
        if self.hifi_heads:
            parts.append(self._hifi(x_BHWC))
        if self.lofi_heads:
            parts.append(self._lofi(x_BHWC))
        y_BHWC = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return y_BHWC[:, :H, :W] if y_BHWC.shape[1:3] != (H, W) else y_BHWC

    def _hifi(self, x_BHWC: Tensor) -> Tensor:
        y_BHWC: Tensor = self.h_proj(attend_windows(self.h_qkv(x_BHWC), self.window_size, self.hifi_heads))
        return y_BHWC

    def _lofi(self, x_BHWC: Tensor) -> Tensor:
        pooled_BHWC = pool_windows(x_BHWC, self.window_size)
        y_BHWC: Tensor = self.l_proj(attend_far(self.l_q(x_BHWC), self.l_kv(pooled_BHWC), self.lofi_heads))
        return y_BHWC

    def extra_repr(self) -> str:
        """Returns the constructor's arguments as text for `print(model)`."""
        return f"window_size={self.window_size}, hifi_heads={self.hifi_heads}, lofi_heads={self.lofi_heads}"


def pad_map(x_BHWC: Tensor, window_size: int) -> Tensor:
    """Returns the map padded with zeros at the bottom and right to whole windows."""
    _, H, W, _ = x_BHWC.shape
    pad_h, pad_w = -H % window_size, -W % window_size
    return F.pad(x_BHWC, (0, 0, 0, pad_w, 0, pad_h)) if pad_h or pad_w else x_BHWC


def pool_windows(x_BHWC: Tensor, window_size: int) -> Tensor:
    """Returns the mean of each window, shape (B, H / window_size, W / window_size, C). Needs a map of whole windows."""
    if window_size == 1:
        return x_BHWC
    return F.avg_pool2d(x_BHWC.permute(0, 3, 1, 2), window_size).permute(0, 2, 3, 1)


def attend_windows(qkv_BHWC: Tensor, window_size: int, heads: int) -> Tensor:
    """Returns attention inside non-overlapping windows (Hi-Fi), shape (B, H, W, heads * D).

    Args:
        qkv_BHWC: Queries, keys and values, concatenated to 3 * heads * D channels. H and W are multiples of
            `window_size`.
        window_size: Side of a window in tokens.
        heads: Attention heads.
    """
    B, H, W, C = qkv_BHWC.shape
    s, D = window_size, C // (3 * heads)
    rows, cols = H // s, W // s
    # Merge rows of windows into the batch axis for the permutation, because some runtimes support at most 8 axes.
    qkv = qkv_BHWC.reshape(B * rows, s, cols, s, 3, heads, D).permute(4, 0, 2, 5, 1, 3, 6)
    q_BGSD, k_BGSD, v_BGSD = qkv.reshape(3, B, rows * cols * heads, s * s, D).unbind(0)
    y_BGSD = F.scaled_dot_product_attention(q_BGSD, k_BGSD, v_BGSD)
    y = y_BGSD.reshape(B * rows, cols, heads, s, s, D).permute(0, 3, 1, 4, 2, 5)
    return y.reshape(B, H, W, heads * D)


def attend_far(q_BHWC: Tensor, kv_BHWC: Tensor, heads: int) -> Tensor:
    """Returns attention of every token to a pooled map (Lo-Fi), shape (B, H, W, heads * D).

    Args:
        q_BHWC: Queries, heads * D channels.
        kv_BHWC: Keys and values, concatenated to 2 * heads * D channels. The map can have any size.
        heads: Attention heads.
    """
    B, H, W, C = q_BHWC.shape
    D = C // heads
    q_BAND = q_BHWC.reshape(B, H * W, heads, D).transpose(1, 2)
    k_BAMD, v_BAMD = kv_BHWC.reshape(B, -1, 2, heads, D).permute(2, 0, 3, 1, 4).unbind(0)
    y_BAND = F.scaled_dot_product_attention(q_BAND, k_BAMD, v_BAMD)
    return y_BAND.transpose(1, 2).reshape(B, H, W, C)
