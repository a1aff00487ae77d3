"""Parameters and multiply-adds of an architecture, by formula and without torch.

Multiply-adds (`macs`) are those of products and convolutions, the offset convolutions included, at batch 1; softmax,
normalisation, activations and the deformable convolution's interpolation are left out. At 224 pixels this gives 3.724,
7.463 and 13.172 G for LITv2-S, -M and -B. Kinds of attention bring their own formulas (`hilo_nas.arch.attentions`).
Tests check both counts against the module itself.
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


def count_params(arch: ArchConfig, *, num_classes: int = 1000, in_chans: int = _IN_CHANS) -> int:
    """Returns the number of trainable parameters, classifier included."""
    return sum(_part_params(arch, num_classes, in_chans))


def count_macs(
    arch: ArchConfig, img_size: int, width: int | None = None, *, num_classes: int = 1000, in_chans: int = _IN_CHANS
) -> int:
    """Returns the multiply-adds for one image of `img_size` x `width` pixels (square if `width` is left out).

    Raises:
        UsageError: The image is smaller than the network's total stride.
    """
    return sum(_part_macs(arch, map_sizes(arch, img_size, width), num_classes, in_chans))


def _part_params(arch: ArchConfig, num_classes: int, in_chans: int) -> list[int]:
    """Of the patch embedding, of each stage with the merging that it begins with, and of the head."""
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
    """As `_part_params`, for one image whose stages have maps of these sizes."""
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
    """What formulas tell of a network, or of a part of one."""

    parameters: int
    """Trainable parameters, classifier included."""
    macs: int
    """Multiply-adds for one image."""


PARTS = ("patches", *(f"stage {i + 1}" for i in range(N_STAGES)), "head")
"""What a network consists of, in order; a stage begins with the merging that halves the map."""


def count_parts(arch: ArchConfig, img_size: int, *, num_classes: int = 1000) -> dict[str, NetworkCost]:
    """Returns both counts for each of `PARTS`; together they are the whole network's.

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
    """Returns both counts for square images of `img_size` pixels.

    Raises:
        UsageError: The image is smaller than the network's total stride.
    """
    return NetworkCost(
        parameters=count_params(arch, num_classes=num_classes), macs=count_macs(arch, img_size, num_classes=num_classes)
    )
