"""The attention layers that are compared, at the shapes they are compared at, and what was published of them.

Source of the published figures: github HubHop/vit-attention-benchmark, by the authors of LITv2 (arXiv 2205.13213), in
images/s of one layer on an i9-10900X CPU with torch 1.8.1: batch 64, 14 x 14 tokens, dim 768, 12 heads. Its settings
are kept: window 7, spatial reduction 2. Only its Linformer, which mixes 196 tokens to 256, is not: here a quarter of
the tokens is taken, at most 256, as in the Linformer paper (512 tokens to 128, any number to 256).
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
"""Side of a local window: Swin's, and the benchmark's."""
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
"""What may be compared; HiLo always is."""
PUBLISHED = {"HiLo": 1029, "SRA": 710, "local window": 631, "XCA": 583, "MSA": 505, "shifted window": 374}
"""Published images/s by the kind's name."""
HILO = {"alpha": 0.9, "window_size": 2}
"""The HiLo that all are compared with: LITv2's own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """A stage of a vision transformer: its map and its heads."""

    side: int
    """Tokens along one side of the map."""
    dim: int
    num_heads: int

    def __str__(self) -> str:
        return f"{self.side}/{self.dim}/{self.num_heads}"

    @property
    def reduction(self) -> int:
        """The reduction that PVT and HAT-Net use on such a map: keys and values come from 7 x 7 tokens."""
        return max(1, self.side // 7)


SHAPES = (
    Shape(side=14, dim=768, num_heads=12),
    Shape(side=14, dim=384, num_heads=12),
    Shape(side=28, dim=192, num_heads=6),
    Shape(side=56, dim=96, num_heads=3),
)
PUBLISHED_AT = SHAPES[0]


def parse_shape(text: str) -> Shape:
    """Returns the shape of `SIDE/DIM/HEADS`.

    Raises:
        UsageError: The text is no shape, or the heads do not divide the dim.
    """
    found = re.fullmatch(r"(\d+)/(\d+)/(\d+)", text.strip())
    side, dim, heads = (int(part) for part in found.groups()) if found else (0, 0, 0)
    if min(side, dim, heads) < 1 or dim % heads:
        raise UsageError(
            f"a shape must be SIDE/DIM/HEADS, with heads that divide dim, but got {text!r}. Use {SHAPES[0]}, say."
        )
    return Shape(side=side, dim=dim, num_heads=heads)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """One attention layer at one shape."""

    kind: str
    """One of `KINDS`."""
    shape: Shape
    knobs: dict[str, Any]
    """What its constructor takes beside `dim`."""

    @property
    def title(self) -> str:
        """The kind's name, as the field writes it."""
        return _KINDS[self.kind]

    @property
    def name(self) -> str:
        """The kind and its knobs, unique among the layers of a shape."""
        short = {"alpha": "alpha ", "window_size": "window ", "rank": "rank "}
        if self.kind in ("sra", "hat"):
            short["window_size"] = "ratio "
        elif self.kind in ("window", "shifted"):
            short["window_size"] = ""
        return " ".join([self.title, *(f"{short[key]}{value:g}" for key, value in self.knobs.items() if key in short)])

    @property
    def subject(self) -> dict[str, Any]:
        """What a worker builds it from."""
        return {"layer": _DECLARED[self.kind].layer, "arguments": {"dim": self.shape.dim, **self.knobs}}

    @property
    def is_benchmarked(self) -> bool:
        """Whether a figure was published of it, with these knobs and at `PUBLISHED_AT`."""
        return self.title in PUBLISHED and (self.kind != "hilo" or HILO.items() <= self.knobs.items())

    @property
    def macs(self) -> int:
        """Multiply-adds at batch 1, by formula."""
        return _DECLARED[self.kind].macs(self.shape.dim, self.shape.side, self.shape.side, **self.knobs)

    @property
    def params(self) -> int:
        """Weights and biases, by formula."""
        return _DECLARED[self.kind].params(self.shape.dim, **self.knobs)


def list_layers(shape: Shape, kinds: Sequence[str] = KINDS, *, is_quick: bool = False) -> list[Layer]:
    """Returns the layers to compare at a shape, LITv2's HiLo first; 24 at most, so that all share their rounds.

    Args:
        shape: The map and its heads.
        kinds: Names of `KINDS`; HiLo is always there.
        is_quick: Whether HiLo's grid is left out.

    Raises:
        UsageError: A kind is unknown.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UsageError(f"a layer must be one of {', '.join(KINDS)}, but got {unknown[0]!r}")
    # A window that does not divide the map pads it, which no network of the paper does.
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
