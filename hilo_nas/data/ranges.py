"""Images of more than 8 bits on their way into a set: set aside until the data set's range is known, then scaled."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hilo_nas.data.deep import DeepImage

__all__ = ["DeepImages"]


@dataclasses.dataclass(frozen=True)
class _Aside:
    place: int
    """Number of the image in the set."""
    image: DeepImage
    """The image, its arrays emptied."""
    start: int
    """Where its arrays begin in the file."""
    shapes: tuple[tuple[int, ...] | None, ...]


class DeepImages:
    """The images of a set that are deeper than 8 bits.

    Args:
        file: Takes their values, open for reading and writing.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._aside: list[_Aside] = []
        self._seen = np.zeros(65536, dtype=bool)

    def __len__(self) -> int:
        return len(self._aside)

    def add(self, place: int, image: DeepImage) -> None:
        """Sets an image aside.

        Args:
            place: Its number in the set.
            image: Its values.

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
        self._aside.append(_Aside(place, bare, start, tuple(None if p is None else p.shape for p in parts)))

    def find_range(self) -> tuple[float, float]:
        """Returns the least and the greatest value of all images that are finite and visible; 0 and 0 where none is."""
        low = min((aside.image.low for aside in self._aside), default=math.inf)
        high = max((aside.image.high for aside in self._aside), default=-math.inf)
        return (low, high) if low <= high else (0.0, 0.0)

    def write(self, images: Path, low: float, high: float) -> bool:
        """Scales all images into the set's pixels and returns whether that changes any compared with Pillow's way.

        That is to drop the low byte of 16-bit values, and to clip other values at 0 and 255.

        Args:
            images: The `images.npy` of the set.
            low: Value that becomes 0.
            high: Value that becomes 255.
        """
        pixels = np.load(images, mmap_mode="r+")
        self._file.flush()
        for aside in self._aside:
            self._file.seek(aside.start)
            parts = [self._read(shape) for shape in aside.shapes]
            assert parts[0] is not None
            image = dataclasses.replace(aside.image, values=parts[0], weight=parts[1], ground=parts[2])
            pixels[aside.place] = image.scale(low, high)
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
        others = [aside.image for aside in self._aside if aside.image.seen is None]
        return any(image.is_float or image.weight is not None for image in others) or (
            bool(others) and (low, high) != (0, 255)
        )

    def to_facts(self, n_images: int, low: float, high: float) -> dict[str, Any]:
        """Returns how many of all images were scaled, by which range, and what they held, for the facts of a set."""
        if not self._aside:
            return {}
        facts: dict[str, Any] = {"n_scaled": len(self._aside), "n_images": n_images, "value_range": [low, high]}
        for name in ("n_nan", "n_infinite"):
            if count := sum(getattr(aside.image, name) > 0 for aside in self._aside):
                facts[name] = count
        if n_floats := sum(aside.image.is_float for aside in self._aside):
            facts["n_float"] = n_floats
        return facts
