"""Parameters and multiply-adds of an architecture, by formula. Does not import torch.

Multiply-adds (`macs`) include matrix products and convolutions at batch size 1, also the offset convolutions of token
merging. They exclude softmax, normalisation, activations and the interpolation of the deformable convolution. At 224
pixels, LITv2-S, -M and -B have 3.724, 7.463 and 13.172 G. Each kind of attention defines its own formulas in
`hilo_nas.arch.attentions`. Tests compare both counts with the module.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from hilo_nas.arch.attentions import attention_named
from hilo_nas.arch.config import N_STAGES, ArchConfig
from hilo_nas.errors import UsageError

__all__ = ["PARTS", "NetworkCost", "count_cost", "count_macs", "count_params", "count_parts", "map_sizes"]

_IN_CHANS = 3
_OFFSET_CHANNELS = 8
"""Offset channels of a 2 x 2 deformable convolution: two coordinates for each of four sampling points."""


def map_sizes(arch: ArchConfig, height: int, width: int | None = None) -> tuple[tuple[int, int], ...]:
    """Returns the map size of each stage as (height, width) in tokens.

    The image is padded to whole patches. Each later stage halves both sides, rounded down.

    Args:
        arch: The architecture.
        height: Image height in pixels.
        width: Image width in pixels. Defaults to the height.

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
    """Returns the head count, window size and alpha of a stage, by name.

    An attention layer ignores those that it does not use.
    """
    return {name: getattr(arch, name)[stage] for name in ("num_heads", "window_size", "alpha")}


def _hidden_dims(arch: ArchConfig) -> Iterator[int]:
    return (int(dim * ratio) for dim, ratio in zip(arch.embed_dims, arch.mlp_ratios, strict=True))


def count_params(arch: ArchConfig, *, num_classes: int = 1000, in_chans: int = _IN_CHANS) -> int:
    """Returns the number of trainable parameters, including the classifier."""
    return sum(_part_params(arch, num_classes, in_chans))


def count_macs(
    arch: ArchConfig, img_size: int, width: int | None = None, *, num_classes: int = 1000, in_chans: int = _IN_CHANS
) -> int:
    """Returns the multiply-adds for one image of `img_size` x `width` pixels. `width` defaults to `img_size`.

    Raises:
        UsageError: The image is smaller than the network's total stride.
    """
    return sum(_part_macs(arch, map_sizes(arch, img_size, width), num_classes, in_chans))


def _part_params(arch: ArchConfig, num_classes: int, in_chans: int) -> list[int]:
    """Returns the number of trainable parameters of each part, in the order of `PARTS`."""
    dims = arch.embed_dims
    stages = []
    for i, hidden in enumerate(_hidden_dims(arch)):
        dim = dims[i]
        ffn = (dim + 1) * hidden + (9 + 1) * hidden + (hidden + 1) * dim
        attention = attention_named(arch.attention[i]).params(dim, **_knobs(arch, i))
        norms = 2 * dim * (1 if arch.attention[i] == "none" else 2)
        merging = 0
        if i:  # deformable token merging: convolution, its offsets, batch norm
            merging = (4 * dims[i - 1] + 1) * dim + (4 * dims[i - 1] + 1) * _OFFSET_CHANNELS + 2 * dim
        stages.append(merging + arch.depths[i] * (ffn + attention + norms))
    return [
        (in_chans * arch.patch_size**2 + 1) * dims[0] + 2 * dims[0],
        *stages,
        2 * dims[-1] + (dims[-1] + 1) * num_classes,
    ]


def _part_macs(arch: ArchConfig, sizes: Sequence[tuple[int, int]], num_classes: int, in_chans: int) -> list[int]:
    """Returns the multiply-adds of each part in `PARTS` for one image; `sizes` are the map sizes of the stages."""
    dims = arch.embed_dims
    stages = []
    for i, hidden in enumerate(_hidden_dims(arch)):
        tokens = sizes[i][0] * sizes[i][1]
        ffn = tokens * hidden * (2 * dims[i] + 9)
        attention = attention_named(arch.attention[i]).macs(dims[i], *sizes[i], **_knobs(arch, i))
        merging = tokens * 4 * dims[i - 1] * (dims[i] + _OFFSET_CHANNELS) if i else 0
        stages.append(merging + arch.depths[i] * (ffn + attention))
    return [sizes[0][0] * sizes[0][1] * in_chans * arch.patch_size**2 * dims[0], *stages, dims[-1] * num_classes]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """Parameters and multiply-adds of a network or of a part of it."""

    parameters: int
    """Number of trainable parameters, including the classifier."""
    macs: int
    """Number of multiply-adds for one image."""


PARTS = ("patches", *(f"stage {i + 1}" for i in range(N_STAGES)), "head")
"""Parts of a network, in order. Stages 2 to 4 include the token merging before their blocks."""


def count_parts(arch: ArchConfig, img_size: int, *, num_classes: int = 1000) -> dict[str, NetworkCost]:
    """Returns parameters and multiply-adds for each part in `PARTS`. The parts sum to the counts of the network.

    Raises:
        UsageError: The image is smaller than the network's total stride.
    """
    counts = zip(
        PARTS,
        _part_params(arch, num_classes, _IN_CHANS),
        _part_macs(arch, map_sizes(arch, img_size), num_classes, _IN_CHANS),
        strict=True,
    )
    return {name: NetworkCost(parameters=parameters, macs=macs) for name, parameters, macs in counts}


def count_cost(arch: ArchConfig, img_size: int, *, num_classes: int = 1000) -> NetworkCost:
    """Returns parameters and multiply-adds of a network, for square images of `img_size` pixels.

    Raises:
        UsageError: The image is smaller than the network's total stride.
    """
    return NetworkCost(
        parameters=count_params(arch, num_classes=num_classes), macs=count_macs(arch, img_size, num_classes=num_classes)
    )
