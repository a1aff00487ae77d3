"""Stages of an architecture as people read them."""

from __future__ import annotations

import dataclasses

from hilo_nas.arch.attentions import attention_named, lofi_heads
from hilo_nas.arch.config import ArchConfig
from hilo_nas.arch.cost import PARTS, count_parts, map_sizes

__all__ = ["StageSummary", "summarize_stages"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageSummary:
    """One stage of an architecture. Values that its attention does not use are None."""

    embed_dim: int
    depth: int
    mlp_ratio: float
    map_side: int
    """Side of the feature map in tokens."""
    attention: str
    """Kind of attention; `none` for blocks that only have a ConvFFN."""
    num_heads: int | None
    hifi_heads: int | None
    """Heads of HiLo that attend within windows."""
    lofi_heads: int | None
    """Heads of HiLo that attend to averaged windows, or globally if `window_size` is 1."""
    window_size: int | None
    parameters: int
    """Parameters of the stage, including the token merging before its blocks."""
    macs: int
    """Multiply-adds of the stage for one image, including the token merging before its blocks."""


def summarize_stages(arch: ArchConfig, img_size: int, *, num_classes: int = 1000) -> tuple[StageSummary, ...]:
    """Returns a summary of each stage of the canonical architecture, for square images of `img_size` pixels.

    Raises:
        UsageError: The image is smaller than the network's total stride.
    """
    arch = arch.canonical()
    parts, sizes = count_parts(arch, img_size, num_classes=num_classes), map_sizes(arch, img_size)
    found = []
    for i, kind in enumerate(arch.attention):
        uses = attention_named(kind).uses
        heads, window = arch.num_heads[i], arch.window_size[i]
        lofi = lofi_heads(heads, arch.alpha[i], window) if "alpha" in uses else None
        found.append(
            StageSummary(
                embed_dim=arch.embed_dims[i],
                depth=arch.depths[i],
                mlp_ratio=arch.mlp_ratios[i],
                map_side=sizes[i][0],
                attention=kind,
                num_heads=heads if "num_heads" in uses else None,
                hifi_heads=None if lofi is None else heads - lofi,
                lofi_heads=lofi,
                window_size=window if "window_size" in uses else None,
                parameters=parts[PARTS[i + 1]].parameters,
                macs=parts[PARTS[i + 1]].macs,
            )
        )
    return tuple(found)
