"""Baselines that `default` names in `search.baselines`: networks of timm, by the side of the timed images.

Each network takes images of any size from 32 pixels on, because a proxy may train at another size than the timings
use. None needs pretrained weights, because a study trains all its networks from the start.

For the smallest images, seven networks below 12 M parameters were trained on 3,008 images of digits at 32 pixels, with
one seed each. Their top-1 on 359 other images: xcit_nano_12_p8_224 98 %, pvt_v2_b0 93 %, convnext_atto 90 %, resnet18
86 %, efficientvit_b0 83 %, regnety_002 48 %, mobilenetv4_conv_small 32 %. The first one needs multiples of 8
pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

__all__ = ["DEFAULT", "DEFAULT_BASELINES", "ImageSizes", "named_baselines"]

DEFAULT = "default"
"""Word in `search.baselines` that `named_baselines` replaces."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSizes:
    """Range of image sizes with its baselines."""

    up_to: float
    """Largest side of the images in pixels."""
    networks: Mapping[str, str]
    """Reason and source of each network, by its name in timm."""


DEFAULT_BASELINES = (
    ImageSizes(
        up_to=64,
        networks={
            "resnet18": "smallest ResNet for ImageNet (He et al., 2016), and the reference of all timings",
            "pvt_v2_b0": "smallest PVT v2 (Wang et al., 2022), the most accurate of these without a fixed size",
        },
    ),
    ImageSizes(
        up_to=128,
        networks={
            "resnet34": "ResNet (He et al., 2016) between those for smaller and for larger images",
            "pvt_v2_b1": "PVT v2 (Wang et al., 2022), one size above the one for smaller images",
        },
    ),
    ImageSizes(
        up_to=float("inf"),
        networks={
            "resnet50": "ResNet that papers about ImageNet compare with (He et al., 2016; Wightman et al., 2021)",
            "convnext_tiny": "convolutional network with the parameters and top-1 of LITv2-S (Liu et al., 2022)",
            "efficientvit_b2": "linear attention for throughput, near LITv2-S in top-1 (Cai et al., 2023)",
        },
    ),
)
"""Rows in the order of their sizes. The last one has no bound."""


def named_baselines(baselines: Sequence[str], img_size: int) -> tuple[str, ...]:
    """Returns baselines without duplicates, and with the networks for an image size instead of `default`.

    Args:
        baselines: Names as in `SearchConfig.search.baselines`.
        img_size: Side of the timed images in pixels.
    """
    row = next(row for row in DEFAULT_BASELINES if img_size <= row.up_to)
    found: dict[str, None] = {}
    for name in baselines:
        found |= dict.fromkeys([f"timm:{own}" for own in row.networks] if name == DEFAULT else [name])
    return tuple(found)
