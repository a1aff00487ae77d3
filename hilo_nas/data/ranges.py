"""Scaling of the images of more than 8 bits in a set, which are stored until the range of the data set is known."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hilo_nas.data.deep import DeepImage

__all__ = ["DeepImages"]


@dataclasses.dataclass(frozen=True)
class _Stored:
    place: int
    """Index of the image in the image set."""
    image: DeepImage
    """The image without its arrays, which are in the file."""
    start: int
    """Offset in bytes of the image's arrays in the file."""
    shapes: tuple[tuple[int, ...] | None, ...]


class DeepImages:
    """Images with more than 8 bits per channel of one image set, kept in a file until their common range is known.

    Args:
        file: File for their values, open for reading and writing.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._stored: list[_Stored] = []
        self._seen = np.zeros(65536, dtype=bool)

    def __len__(self) -> int:
        return len(self._stored)

    def add(self, place: int, image: DeepImage) -> None:
        """Stores an image until the range is known.

        Args:
            place: Index of the image in the image set.
            image: Values of the image.

        Raises:
            OSError: The file cannot be written.
        """
        parts = (image.values, image.weight, image.ground)
        start = self._file.tell()
        for part in parts:
            if part is not None:
                self._file.write(np.ascontiguousarray(part, dtype=np.float32).tobytes())
        if image.seen is not None:
            self._seen |= image.seen
        empty = np.empty(0, dtype=np.float32)
        bare = dataclasses.replace(
            image, values=empty, weight=None, ground=None, seen=None if image.seen is None else empty
        )
        self._stored.append(_Stored(place, bare, start, tuple(None if p is None else p.shape for p in parts)))

    def find_range(self) -> tuple[float, float]:
        """Returns the smallest and largest finite and visible value of all images, or 0 and 0 if there is none."""
        low = min((stored.image.low for stored in self._stored), default=math.inf)
        high = max((stored.image.high for stored in self._stored), default=-math.inf)
        return (low, high) if low <= high else (0.0, 0.0)

    def write(self, images: Path, low: float, high: float) -> bool:
        """Scales all images and writes them to the image set. Returns True if pixels differ from Pillow's conversion.

        Pillow drops the low byte of 16-bit values, and clips other values to the range from 0 to 255.

        Args:
            images: The `images.npy` of the image set.
            low: Value that becomes 0.
            high: Value that becomes 255.
        """
        pixels = np.load(images, mmap_mode="r+")
        self._file.flush()
        for stored in self._stored:
            self._file.seek(stored.start)
            parts = [self._read(shape) for shape in stored.shapes]
            assert parts[0] is not None
            image = dataclasses.replace(stored.image, values=parts[0], weight=parts[1], ground=parts[2])
            pixels[stored.place] = image.scale(low, high)
        pixels.flush()
        return self._changes(low, high)

    def _read(self, shape: tuple[int, ...] | None) -> np.ndarray | None:
        if shape is None:
            return None
        return np.frombuffer(self._file.read(4 * math.prod(shape)), dtype=np.float32).reshape(shape)

    def _changes(self, low: float, high: float) -> bool:
        words = np.flatnonzero(self._seen)
        factor = 255 / (high - low) if high > low else 0.0
        scaled = np.clip(np.rint((words - low) * factor), 0, 255)
        if (scaled != words >> 8).any():
            return True
        others = [stored.image for stored in self._stored if stored.image.seen is None]
        return any(image.is_float or image.weight is not None for image in others) or (
            bool(others) and (low, high) != (0, 255)
        )

    def to_facts(self, n_images: int, low: float, high: float) -> dict[str, Any]:
        """Returns the `CacheEntry.facts` about the scaled images: `n_scaled`, `value_range`, `n_nan` and others."""
        if not self._stored:
            return {}
        facts: dict[str, Any] = {"n_scaled": len(self._stored), "n_images": n_images, "value_range": [low, high]}
        for name in ("n_nan", "n_infinite"):
            if count := sum(getattr(stored.image, name) > 0 for stored in self._stored):
                facts[name] = count
        if n_floats := sum(stored.image.is_float for stored in self._stored):
            facts["n_float"] = n_floats
        return facts
