"""The backbones that are compared, and what was published of them.

Top-1 on ImageNet-1K: for LITv2 from the paper (arXiv 2205.13213); for the others from timm's table
`results/results-imagenet.csv` (github huggingface/pytorch-image-models, 30 October 2025), of weights trained on
ImageNet-1K alone, without a teacher where timm has such, and at 224 px where the table has that.
Of those that the paper names, CoAtNet-0 is timm's own variant (`coatnet_0_rw`), and CaiT has no weights for 224 px. Of
MobileNetV4 it is the hybrid medium one, which has attention and comes nearest in accuracy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from hilo_nas.arch.config import PRESETS
from hilo_nas.errors import UsageError

__all__ = ["BASE", "PEERS", "PUBLISHED_SPEEDS", "Peer", "choose_peers"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peer:
    """A network of the comparison."""

    name: str
    """A preset's name, or timm's."""
    top1: float
    """Published share of ImageNet-1K's validation images that is classified rightly."""
    top1_img_size: int = 224
    weights: str
    """Which weights it is of: timm's tag, or the paper."""
    has_img_size: bool = False
    """Whether the network is built for one image size."""

    def subject(self, img_size: int) -> dict[str, Any]:
        """Returns what a worker builds it from."""
        if self.name in PRESETS:
            return {"arch": PRESETS[self.name].to_dict()}
        return {"timm": self.name, **({"arguments": {"img_size": img_size}} if self.has_img_size else {})}


BASE = "litv2_small"
"""The network that all are compared with."""
PEERS = (
    Peer(name=BASE, top1=0.820, weights="paper"),
    Peer(name="litv2_medium", top1=0.833, weights="paper"),
    Peer(name="litv2_base", top1=0.836, weights="paper"),
    Peer(name="resnet50", top1=0.80382, weights="a1_in1k"),
    Peer(name="pvt_v2_b2", top1=0.82062, weights="in1k"),
    Peer(name="twins_pcpvt_small", top1=0.81116, weights="in1k", has_img_size=True),
    Peer(name="swin_tiny_patch4_window7_224", top1=0.81388, weights="ms_in1k", has_img_size=True),
    Peer(name="tnt_s_patch16_224", top1=0.81506, weights="in1k", has_img_size=True),
    Peer(name="coatnet_0_rw_224", top1=0.82396, weights="sw_in1k", has_img_size=True),
    Peer(name="cait_xs24_384", top1=0.84064, top1_img_size=384, weights="fb_dist_in1k", has_img_size=True),
    Peer(name="xcit_small_12_p16_224", top1=0.81982, weights="fb_in1k", has_img_size=True),
    Peer(name="convnext_tiny", top1=0.82066, weights="fb_in1k"),
    Peer(name="focalnet_tiny_srf", top1=0.82146, weights="ms_in1k"),
    Peer(name="deit_small_patch16_224", top1=0.79856, weights="fb_in1k", has_img_size=True),
    Peer(name="efficientvit_b2", top1=0.82162, weights="r224_in1k"),
    Peer(name="fastvit_sa12", top1=0.80846, top1_img_size=256, weights="apple_in1k"),
    Peer(name="repvit_m1_1", top1=0.80826, weights="dist_300e_in1k"),
    Peer(name="mobilenetv4_hybrid_medium", top1=0.80432, weights="e500_r224_in1k"),
)
PUBLISHED_SPEEDS = {
    "A100": (1874, 1424),
    "V100": (1304, 1123),
    "RTX 6000": (928, 877),
    "RTX 3090": (1471, 1279),
}
"""Images/s of LITv2-S and ResNet-50 in the paper, by GPU, at batch 64."""


def choose_peers(names: Sequence[str] = ()) -> list[Peer]:
    """Returns the networks of those names, the base first; all for none.

    Raises:
        UsageError: A name is not among them.
    """
    known = {peer.name: peer for peer in PEERS}
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"a network must be one of {', '.join(known)}, but got {unknown[0]!r}")
    return [peer for peer in PEERS if not names or peer.name in names or peer.name == BASE]
