"""A short training and what it found, as plain values that survive JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from hilo_nas.errors import UsageError
from hilo_nas.measurement.plain import build_value

__all__ = ["PROXY_PRECISIONS", "RECIPE", "ProxyPlan", "ProxyScore"]

RECIPE = "adamw-1"
"""Version of the proxy training's recipe; it changes with anything that may change a score (`proxy/recipe.py`,
`proxy/batches.py`), and scores of different recipes are never compared."""

PROXY_PRECISIONS = ("fp32", "amp-bf16", "amp-fp16")
METRICS = ("top1", "balanced")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProxyPlan:
    """A short training, apart from its architecture, its data, its seed and the device that runs it."""

    img_size: int
    """Side of the square training images in pixels."""
    batch_size: int
    images: int
    """Training images seen in all, repeats included."""
    precision: str = "fp32"
    """`fp32`, or autocast over float32 weights: `amp-bf16` or `amp-fp16`."""
    metric: str = "top1"
    """`top1`, or `balanced` for the mean of the classes' recalls."""
    val_fraction: float = 0.2
    """Share of the training split held out for scoring, stratified; unused with validation data of its own."""
    val_images: int = 4000
    """Held-out images at most; at 4,000 the standard error of a top-1 of 0.5 is 0.8 points."""
    hflip: bool = True
    """Whether images may be mirrored; false for digits and letters."""
    recipe: str = RECIPE
    """Version of the training's recipe."""

    def __post_init__(self) -> None:
        faults = [
            f"{name} must be at least 1, but got {getattr(self, name)}"
            for name in ("img_size", "batch_size", "images", "val_images")
            if getattr(self, name) < 1
        ]
        if self.precision not in PROXY_PRECISIONS:
            # AdamW's steps vanish below the resolution of half-precision weights.
            faults.append(f"proxy precision must be one of {', '.join(PROXY_PRECISIONS)}, but got {self.precision!r}")
        if self.metric not in METRICS:
            faults.append(f"metric must be one of {', '.join(METRICS)}, but got {self.metric!r}")
        if not 0.0 < self.val_fraction < 1.0:
            faults.append(f"val_fraction must lie between 0 and 1, but got {self.val_fraction}")
        if faults:
            raise UsageError("\n".join(faults))

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data."""
        return dataclasses.asdict(self)

    def hash(self, data_hash: str) -> str:
        """Returns the name of this training on that data; only scores of one name are compared."""
        text = json.dumps({**self.to_dict(), "data": data_hash}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProxyScore:
    """Accuracy of one network after one short training."""

    plan_hash: str
    """`ProxyPlan.hash` of the plan and the data; not of the device."""
    metric: str
    proxy_top1: float
    """Share of held-out images whose class was found, in [0, 1] (with `balanced`, the classes' mean)."""
    proxy_top1_se: float
    """Standard error of it from the finite number of held-out images; the seed's own noise is not in it."""
    loss: float
    """Mean cross-entropy on the held-out images."""
    n_val: int
    images_seen: int
    seconds: float
    seed: int
    micro_batch_size: int
    """Images per forward pass; smaller than the plan's batch where memory ran out: then gradients were accumulated, and
    batch norm took its statistics from so many images."""
    device: str
    versions: dict[str, str]
    scored_at: str
    """UTC, ISO 8601."""

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ProxyScore:
        """Builds the score that `dataclasses.asdict` described."""
        return build_value(cls, fields)
