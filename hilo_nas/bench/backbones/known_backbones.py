"""Backbones of the comparison, with their published figures.

Sources of ImageNet-1K top-1: the paper for LITv2 (arXiv 2205.13213); timm's `results/results-imagenet.csv` for the
others (github huggingface/pytorch-image-models, 30 October 2025). Weights are trained on ImageNet-1K only. Weights
without a teacher and results at 224 px are used if timm has them.
CoAtNet-0 is timm's variant (`coatnet_0_rw`). CaiT has no weights for 224 px. MobileNetV4 is the hybrid medium variant,
because it has attention and the closest accuracy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from hilo_nas.arch.config import PRESETS
from hilo_nas.errors import UsageError

__all__ = ["BACKBONES", "BASE", "PUBLISHED_SPEEDS", "Backbone", "choose_backbones"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network of the comparison."""

    name: str
    """Name of a preset or of a timm model."""
    top1: float
    """Published top-1 accuracy on ImageNet-1K's validation images, from 0 to 1."""
    top1_img_size: int = 224
    weights: str
    """Weights with this accuracy: timm's tag, or "paper"."""
    has_img_size: bool = False
    """True if the network is built for one image size."""

    def subject(self, img_size: int) -> dict[str, Any]:
        """Returns the description from which a worker builds the network."""
        if self.name in PRESETS:
            return {"arch": PRESETS[self.name].to_dict()}
        return {"timm": self.name, **({"arguments": {"img_size": img_size}} if self.has_img_size else {})}


BASE = "litv2_small"
"""Network that all others are compared with."""
BACKBONES = (
    Backbone(name=BASE, top1=0.820, weights="paper"),
    Backbone(name="litv2_medium", top1=0.833, weights="paper"),
    Backbone(name="litv2_base", top1=0.836, weights="paper"),
    Backbone(name="resnet50", top1=0.80382, weights="a1_in1k"),
    Backbone(name="pvt_v2_b2", top1=0.82062, weights="in1k"),
    Backbone(name="twins_pcpvt_small", top1=0.81116, weights="in1k", has_img_size=True),
    Backbone(name="swin_tiny_patch4_window7_224", top1=0.81388, weights="ms_in1k", has_img_size=True),
    Backbone(name="tnt_s_patch16_224", top1=0.81506, weights="in1k", has_img_size=True),
    Backbone(name="coatnet_0_rw_224", top1=0.82396, weights="sw_in1k", has_img_size=True),
    Backbone(name="cait_xs24_384", top1=0.84064, top1_img_size=384, weights="fb_dist_in1k", has_img_size=True),
    Backbone(name="xcit_small_12_p16_224", top1=0.81982, weights="fb_in1k", has_img_size=True),
    Backbone(name="convnext_tiny", top1=0.82066, weights="fb_in1k"),
    Backbone(name="focalnet_tiny_srf", top1=0.82146, weights="ms_in1k"),
    Backbone(name="deit_small_patch16_224", top1=0.79856, weights="fb_in1k", has_img_size=True),
    Backbone(name="efficientvit_b2", top1=0.82162, weights="r224_in1k"),
    Backbone(name="fastvit_sa12", top1=0.80846, top1_img_size=256, weights="apple_in1k"),
    Backbone(name="repvit_m1_1", top1=0.80826, weights="dist_300e_in1k"),
    Backbone(name="mobilenetv4_hybrid_medium", top1=0.80432, weights="e500_r224_in1k"),
)
PUBLISHED_SPEEDS = {
    "A100": (1874, 1424),
    "V100": (1304, 1123),
    "RTX 6000": (928, 877),
    "RTX 3090": (1471, 1279),
}
"""Images/s of LITv2-S and ResNet-50 by GPU, at batch 64, from the paper."""


def choose_backbones(names: Sequence[str] = ()) -> list[Backbone]:
    """Returns the networks with the given names, and always `BASE`, which comes first. Without names, returns all.

    Raises:
        UsageError: A name is unknown.
    """
    known = {backbone.name: backbone for backbone in BACKBONES}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"a network must be one of {', '.join(known)}, but got {unknown[0]!r}")
    return [backbone for backbone in BACKBONES if not names or backbone.name in names or backbone.name == BASE]
