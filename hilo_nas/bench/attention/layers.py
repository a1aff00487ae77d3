"""Attention layers and shapes of the comparison, with published figures.

Source of the published figures: github HubHop/vit-attention-benchmark, by the authors of LITv2 (arXiv 2205.13213). They
are images/s of one layer on an i9-10900X CPU with torch 1.8.1: batch 64, 14 x 14 tokens, dim 768, 12 heads. The
settings are the same here (window 7, spatial reduction 2), except for Linformer. The source projects 196 tokens to 256.
Here the rank is a quarter of the tokens, at most 256, as in the Linformer paper (512 tokens to 128, any number to 256).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from hilo_nas.arch.attentions import ATTENTION_KINDS, LINFORMER
from hilo_nas.errors import UsageError

__all__ = ["HILO", "KINDS", "PUBLISHED", "PUBLISHED_AT", "SHAPES", "Layer", "Shape", "list_layers", "parse_shape"]

_DECLARED = {**ATTENTION_KINDS, LINFORMER.name: LINFORMER}
_ALPHAS = (0.9, 0.0, 0.5, 1.0)
_WINDOWS = (2, 4, 7)
_WINDOW = 7
"""Side of a local window in tokens, as in Swin and in the published benchmark."""
_RANK = 256
_KINDS = {
    "hilo": "HiLo",
    "msa": "MSA",
    "sra": "SRA",
    "pooled": "pooled SRA",
    "linformer": "Linformer",
    "window": "local window",
    "shifted": "shifted window",
    "xca": "XCA",
    "hat": "HAT",
    "carrier": "carrier tokens",
    "elfatt": "ELFATT",
    "clustered": "clustered",
}
KINDS = tuple(_KINDS)
"""Kinds of layers that can be compared. HiLo is always included."""
PUBLISHED = {"HiLo": 1029, "SRA": 710, "local window": 631, "XCA": 583, "MSA": 505, "shifted window": 374}
"""Published speed of one layer in images/s, by the layer's title."""
HILO = {"alpha": 0.9, "window_size": 2}
"""LITv2's settings of HiLo, which all layers are compared with."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """Shape of a vision transformer's stage: feature map, width and heads."""

    side: int
    """Number of tokens along one side of the feature map."""
    dim: int
    num_heads: int

    def __str__(self) -> str:
        return f"{self.side}/{self.dim}/{self.num_heads}"

    @property
    def reduction(self) -> int:
        """Spatial reduction ratio that PVT and HAT-Net use on this map. Keys and values come from 7 x 7 tokens."""
        return max(1, self.side // 7)


SHAPES = (
    Shape(side=14, dim=768, num_heads=12),
    Shape(side=14, dim=384, num_heads=12),
    Shape(side=28, dim=192, num_heads=6),
    Shape(side=56, dim=96, num_heads=3),
)
PUBLISHED_AT = SHAPES[0]


def parse_shape(text: str) -> Shape:
    """Returns the shape for a text such as `14/768/12` (SIDE/DIM/HEADS).

    Raises:
        UsageError: The text is not a shape, or HEADS does not divide DIM.
    """
    found = re.fullmatch(r"(\d+)/(\d+)/(\d+)", text.strip())
    side, dim, heads = (int(part) for part in found.groups()) if found else (0, 0, 0)
    if min(side, dim, heads) < 1 or dim % heads:
        raise UsageError(
            f"a shape must be SIDE/DIM/HEADS, and HEADS must divide DIM, but got {text!r}. Use {SHAPES[0]} for example."
        )
    return Shape(side=side, dim=dim, num_heads=heads)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """One attention layer at one shape."""

    kind: str
    """One of `KINDS`."""
    shape: Shape
    knobs: dict[str, Any]
    """Arguments of the constructor except `dim`."""

    @property
    def title(self) -> str:
        """Name of the kind as used in papers, for example "local window"."""
        return _KINDS[self.kind]

    @property
    def name(self) -> str:
        """Title with the constructor arguments, unique among the layers of a shape."""
        short = {"alpha": "alpha ", "window_size": "window ", "rank": "rank "}
        if self.kind in ("sra", "hat"):
            short["window_size"] = "ratio "
        elif self.kind in ("window", "shifted"):
            short["window_size"] = ""
        return " ".join([self.title, *(f"{short[key]}{value:g}" for key, value in self.knobs.items() if key in short)])

    @property
    def subject(self) -> dict[str, Any]:
        """Description from which a worker builds the layer."""
        return {"layer": _DECLARED[self.kind].layer, "arguments": {"dim": self.shape.dim, **self.knobs}}

    @property
    def is_benchmarked(self) -> bool:
        """True if a speed was published for this layer with these arguments, at the shape `PUBLISHED_AT`."""
        return self.title in PUBLISHED and (self.kind != "hilo" or HILO.items() <= self.knobs.items())

    @property
    def macs(self) -> int:
        """Number of multiply-adds at batch 1, by formula."""
        return _DECLARED[self.kind].macs(self.shape.dim, self.shape.side, self.shape.side, **self.knobs)

    @property
    def params(self) -> int:
        """Number of parameters, by formula."""
        return _DECLARED[self.kind].params(self.shape.dim, **self.knobs)


def list_layers(shape: Shape, kinds: Sequence[str] = KINDS, *, is_quick: bool = False) -> list[Layer]:
    """Returns the layers to compare at a shape, HiLo with LITv2's settings first.

    There are 24 layers at most, so that all share their rounds.

    Args:
        shape: Shape of the stage.
        kinds: Kinds from `KINDS`. HiLo is always included.
        is_quick: True to skip HiLo's grid over alpha and window size.

    Raises:
        UsageError: A kind is unknown.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UsageError(f"a layer must be one of {', '.join(KINDS)}, but got {unknown[0]!r}")
    # A window that does not divide the map needs padding. No network of the paper has such a window.
    windows = [window for window in _WINDOWS if shape.side % window == 0 or window == HILO["window_size"]]
    grid = [{"alpha": alpha, "window_size": window} for window in windows for alpha in _ALPHAS]
    layers = [_layer("hilo", shape, **knobs) for knobs in ([HILO] if is_quick else grid)]
    tokens = shape.side**2
    for kind in KINDS:
        if kind not in kinds or kind == "hilo":
            continue
        if kind == LINFORMER.name:
            layers.append(_layer(kind, shape, tokens=tokens, rank=max(1, min(_RANK, tokens // 4))))
        elif kind in ("sra", "hat"):
            ratios = {2, shape.reduction} if kind == "sra" else {shape.reduction}
            layers += [_layer(kind, shape, window_size=ratio) for ratio in sorted(ratios)]
        elif "window_size" in _DECLARED[kind].uses:
            layers.append(_layer(kind, shape, window_size=min(_WINDOW, shape.side)))
        else:
            layers.append(_layer(kind, shape))
    return layers


def _layer(kind: str, shape: Shape, **knobs: Any) -> Layer:
    return Layer(kind=kind, shape=shape, knobs={"num_heads": shape.num_heads, **knobs})
