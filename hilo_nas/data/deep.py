"""Images of more than 8 bits per channel, and their scaling to 8 bits by the range of a data set.

Values are resized before the range is known. The order does not matter, because resizing and scaling are linear.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from PIL import Image

__all__ = ["DeepImage", "DeepValues", "fit_deep"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeepValues:
    """Values of an image with more than 8 bits per channel, in full size."""

    values: np.ndarray
    """Values, (H, W, C) with C = 1 or 3, integers or floats."""
    alpha: np.ndarray | None
    """Opacity, (H, W), from 0 to 1. None if no pixel is transparent."""
    is_restored: bool = False
    """True if Pillow's values differ from those in the file by more than the low bytes that Pillow drops."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeepImage:
    """A resized image whose values are not scaled to 8 bits yet."""

    low: float
    """Smallest finite and visible value. Infinity if there is none."""
    high: float
    """Largest finite and visible value. Minus infinity if there is none."""
    values: np.ndarray
    """Values minus `offset`, times the weight, (S, S, C; float32)."""
    offset: float
    weight: np.ndarray | None
    """Finite and visible share of each pixel, (S, S, C; float32). None if it is 1 everywhere."""
    ground: np.ndarray | None
    """Contribution of transparent and infinite pixels, from 0 to 255, (S, S, 3; float32). None if `weight` is None."""
    n_nan: int
    """Number of pixels with a NaN in a channel. NaN becomes the low end of the range."""
    n_infinite: int
    """Number of pixels with an infinity in a channel. Infinities become the ends of the range."""
    is_float: bool
    seen: np.ndarray | None
    """True for each value from 0 to 65535 that occurs, (65536; bool). None if other values may occur or pixels are
    transparent."""

    def scale(self, low: float, high: float) -> np.ndarray:
        """Returns pixels, (S, S, 3; uint8). `low` becomes 0, `high` becomes 255, and values outside are clipped."""
        factor = 255 / (high - low) if high > low else 0.0
        pixels = self.values.astype(np.float64) * factor
        if self.weight is None or self.ground is None:
            pixels += factor * (self.offset - low)
        else:
            pixels = pixels + factor * (self.offset - low) * self.weight + self.ground
        scaled = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        return np.broadcast_to(scaled, (*scaled.shape[:2], 3))

    @property
    def nbytes(self) -> int:
        """Size in memory in bytes."""
        return sum(part.nbytes for part in (self.values, self.weight, self.ground) if part is not None)


def fit_deep(
    deep: DeepValues, fit: Callable[[Image.Image], Image.Image], background: tuple[int, int, int]
) -> DeepImage:
    """Returns the image after turning, resizing and compositing, ready for scaling.

    Args:
        deep: Values of the image.
        fit: Turns and resizes one channel, given as an image of mode F.
        background: Color under transparent pixels.
    """
    values, alpha = deep.values, deep.alpha
    is_float = values.dtype.kind == "f"
    finite = np.isfinite(values) if is_float else None
    is_all_finite = finite is None or bool(finite.all())
    visible = None if alpha is None else np.broadcast_to((alpha > 0)[..., None], values.shape)
    kept = values
    if visible is not None or not is_all_finite:
        kept = values[(np.True_ if visible is None else visible) & (np.True_ if finite is None else finite)]
    low, high = (float(kept.min()), float(kept.max())) if kept.size else (np.inf, -np.inf)
    offset = low if kept.size else 0.0
    seen = None
    if alpha is None and values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        seen = np.zeros(65536, dtype=bool)
        seen[values.ravel()] = True

    def fit_channels(channels: np.ndarray) -> np.ndarray:
        fitted = [
            np.asarray(fit(Image.fromarray(np.ascontiguousarray(channels[..., c], dtype=np.float32))))
            for c in range(channels.shape[2])
        ]
        return np.stack(fitted, axis=2)

    if alpha is None and is_all_finite:
        weight = ground = None
        weighted = fit_channels(values.astype(np.float64) - offset)
    else:
        opaque = np.ones(values.shape[:2]) if alpha is None else alpha
        share = opaque[..., None] * (np.True_ if finite is None else finite)
        centred = np.where(share > 0, values, offset).astype(np.float64) - offset
        under = (1 - opaque)[..., None] * np.array(background, dtype=np.float64)
        if not is_all_finite:
            under = under + 255 * opaque[..., None] * np.isposinf(values)
        weighted, weight, ground = fit_channels(centred * share), fit_channels(share), fit_channels(under)
    return DeepImage(
        low=low,
        high=high,
        values=weighted,
        offset=offset,
        weight=weight,
        ground=ground,
        n_nan=int(np.isnan(values).any(axis=2).sum()) if is_float else 0,
        n_infinite=int(np.isinf(values).any(axis=2).sum()) if is_float else 0,
        is_float=is_float,
        seen=seen,
    )
