"""Parameters and multiply-adds of an architecture, by formula and without torch.

Multiply-adds (`macs`) are those of products and convolutions, the offset convolutions included, at batch 1; softmax,
normalisation, activations and the deformable convolution's interpolation are left out. At 224 pixels this gives 3.724,
7.463 and 13.172 G for LITv2-S, -M and -B. The attention layers' own formulas are in `hilo_nas.layer_cost`. Tests check
both against the module itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from hilo_nas.arch import N_STAGES, ArchConfig
from hilo_nas.errors import UsageError
from hilo_nas.layer_cost import layer_macs, layer_params

__all__ = ["NetworkCost", "count_cost", "count_macs", "count_params", "map_sizes"]

_OFFSET_CHANNELS = 8
"""Two coordinates for each of the four taps of a 2 x 2 deformable convolution."""


def map_sizes(arch: ArchConfig, height: int, width: int | None = None) -> tuple[tuple[int, int], ...]:
    """Returns each stage's map as (height, width) in tokens; sides are padded to the patch, then halved rounding down.

    Args:
        arch: The architecture.
        height: Image height in pixels.
        width: Image width in pixels; the height if left out.

    Raises:
        UsageError: The image is smaller than the network's total stride.
    """
    width = height if width is None else width
    if min(height, width) < arch.stride:
        raise UsageError(
            f"an image must be at least {arch.stride} pixels on each side for a network of stride {arch.stride} "
            f"(patch_size {arch.patch_size}), but got {height} x {width}. Use larger images or a smaller patch_size."
        )
    side = [math.ceil(pixels / arch.patch_size) for pixels in (height, width)]
    return tuple((side[0] >> stage, side[1] >> stage) for stage in range(N_STAGES))


def _knobs(arch: ArchConfig, stage: int) -> dict[str, Any]:
    """What a stage's attention layer may feel."""
    return {name: getattr(arch, name)[stage] for name in ("num_heads", "window_size", "alpha")}


def _hidden_dims(arch: ArchConfig) -> Iterator[int]:
    return (int(dim * ratio) for dim, ratio in zip(arch.embed_dims, arch.mlp_ratios, strict=True))


def count_params(arch: ArchConfig, *, num_classes: int = 1000, in_chans: int = 3) -> int:
    """Returns the number of trainable parameters, classifier included."""
    dims = arch.embed_dims
    total = (in_chans * arch.patch_size**2 + 1) * dims[0] + 2 * dims[0]
    for i, hidden in enumerate(_hidden_dims(arch)):
        dim = dims[i]
        ffn = (dim + 1) * hidden + (9 + 1) * hidden + (hidden + 1) * dim
        attention = layer_params(arch.attention[i], dim, **_knobs(arch, i))
        norms = 2 * dim * (1 if arch.attention[i] == "none" else 2)
        total += arch.depths[i] * (ffn + attention + norms)
        if i + 1 < N_STAGES:  # deformable token merging: convolution, its offsets, batch norm
            total += (4 * dim + 1) * dims[i + 1] + (4 * dim + 1) * _OFFSET_CHANNELS + 2 * dims[i + 1]
    return total + 2 * dims[-1] + (dims[-1] + 1) * num_classes


def count_macs(
    arch: ArchConfig, img_size: int, width: int | None = None, *, num_classes: int = 1000, in_chans: int = 3
) -> int:
    """Returns the multiply-adds for one image of `img_size` x `width` pixels (square if `width` is left out).

    Raises:
        UsageError: The image is smaller than the network's total stride.
    """
    sizes = map_sizes(arch, img_size, width)
    dims = arch.embed_dims
    total = sizes[0][0] * sizes[0][1] * in_chans * arch.patch_size**2 * dims[0]
    for i, hidden in enumerate(_hidden_dims(arch)):
        tokens = sizes[i][0] * sizes[i][1]
        ffn = tokens * hidden * (2 * dims[i] + 9)
        attention = layer_macs(arch.attention[i], dims[i], *sizes[i], **_knobs(arch, i))
        total += arch.depths[i] * (ffn + attention)
        if i + 1 < N_STAGES:
            merged = sizes[i + 1][0] * sizes[i + 1][1]
            total += merged * 4 * dims[i] * (dims[i + 1] + _OFFSET_CHANNELS)
    return total + dims[-1] * num_classes


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """What formulas tell of a network."""

    parameters: int
    """Trainable parameters, classifier included."""
    macs: int
    """Multiply-adds for one image."""


def count_cost(arch: ArchConfig, img_size: int, *, num_classes: int = 1000) -> NetworkCost:
    """Returns both counts for square images of `img_size` pixels.

    Raises:
        UsageError: The image is smaller than the network's total stride.
    """
    return NetworkCost(
        parameters=count_params(arch, num_classes=num_classes), macs=count_macs(arch, img_size, num_classes=num_classes)
    )
