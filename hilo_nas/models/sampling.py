"""Where a 2x2 deformable convolution of stride 2 looks: rows of the map, and the weights of bilinear interpolation.

Source: "Deformable Convolutional Networks" (arXiv 1703.06211), equations 2 to 4; corners outside the map count as
zeros, as in torchvision's `deform_conv2d`, whose values and gradients are matched.

Shape suffixes: B batch, C channels, H W map, P points: four per output pixel, K corners: four per point.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["TAPS", "sampling_points"]

TAPS = 4
"""Points that an output pixel looks at: a 2x2 window, row by row."""


def sampling_points(offset_BCHW: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Returns which pixels of a map are looked at, and with which weights.

    Args:
        offset_BCHW: How far each point lies from its place in the window, shape (B, 8, H // 2, W // 2): down and right
            of the first point, then of the second, in pixels of the map.
        height: Rows of the map that is looked at.
        width: Its columns.

    Returns:
        `index_PK` (int64), rows of the map flattened to (B * height * width, C), and `weight_PK` (float32, float64 for
        offsets in that); points are ordered by image, row and column of the output, then by place in the window.
        A corner outside the map has the weight 0 and the index of a pixel that exists. Weights follow offsets in
        autograd.
    """
    B, _, rows, cols = offset_BCHW.shape
    kind = torch.float64 if offset_BCHW.dtype == torch.float64 else torch.float32
    device = offset_BCHW.device
    place = torch.arange(2, device=device, dtype=kind)
    row = 2 * torch.arange(rows, device=device, dtype=kind).view(-1, 1, 1) + place.repeat_interleave(2)
    col = 2 * torch.arange(cols, device=device, dtype=kind).view(-1, 1) + place.repeat(2)
    offset = offset_BCHW.reshape(B, TAPS, 2, rows, cols).permute(2, 0, 3, 4, 1).to(kind)
    # Beyond one pixel outside there is nothing to see; so far-away points keep numbers that fit an index.
    top, bottom, top_weight, bottom_weight = _corners((offset[0] + row).clamp(-1, height), height)
    left, right, left_weight, right_weight = _corners((offset[1] + col).clamp(-1, width), width)
    image = torch.arange(B, device=device).view(-1, 1, 1, 1) * (height * width)
    top, bottom = image + top * width, image + bottom * width
    # Corner by corner: axes of two or four are slow to broadcast over. Seen 1.3 to 6 times as fast on AMD EPYC
    # (Zen 4), with the backward pass and torch 2.15; it may change.
    index = torch.stack((top + left, top + right, bottom + left, bottom + right), dim=-1)
    weights = [y * x for y in (top_weight, bottom_weight) for x in (left_weight, right_weight)]
    return index.view(-1, 4), torch.stack(weights, dim=-1).view(-1, 4)


def _corners(position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The pixels of an axis before and after each position, then their weights: NaN for a position that is NaN."""
    floor = position.detach().floor()
    share = position - floor
    low = floor.long()
    low_weight = (1 - share) * ((floor >= 0) & (floor < size))
    high_weight = share * (floor < size - 1)
    return low.clamp(0, size - 1), (low + 1).clamp(0, size - 1), low_weight, high_weight
