"""Small networks of the space `litv2_cifar` for benchmarks. They are the same in every release."""

from __future__ import annotations

from hilo_nas.arch.config import ArchConfig

__all__ = ["SMALL", "SMALL_CLASSES", "SMALL_PX"]

SMALL = {
    "litv2_s_third": ArchConfig(embed_dims=(32, 64, 128, 256), depths=(2, 2, 6, 2), num_heads=(2, 4, 8, 16)),
    "litv2_s_third_patch2": ArchConfig(
        embed_dims=(32, 64, 128, 256), depths=(2, 2, 6, 2), num_heads=(2, 4, 8, 16), patch_size=2
    ),
    "litv2_shallow": ArchConfig(
        embed_dims=(48, 96, 192, 384),
        depths=(1, 1, 2, 1),
        num_heads=(3, 6, 12, 24),
        alpha=(0.5, 0.5, 0.5, 0.5),
        mlp_ratios=(2.0, 2.0, 2.0, 2.0),
        patch_size=2,
    ),
}
"""LITv2-S at a third of its width, with large and with small patches, and a wider network with few blocks."""
SMALL_PX = 32
SMALL_CLASSES = 10
