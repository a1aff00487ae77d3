"""A few images of a source in full preprocessing, without a cache: for the calibration of a quantized network."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hilo_nas.data.decode import decode_image
from hilo_nas.data.readers import open_source
from hilo_nas.data.reading import DEFAULTS, ReadOptions
from hilo_nas.data.sources import Source, parse_source
from hilo_nas.errors import DataError

__all__ = ["sample_images"]

Pixels = NDArray[np.uint8]


def sample_images(
    source: str, count: int, *, img_size: int, resize: int, options: ReadOptions = DEFAULTS
) -> list[Pixels]:
    """Returns evenly spaced images of a source, each (S, S, 3; uint8). Reads the whole source, but decodes only these.

    Images that cannot be decoded, or that have more than 8 bits per channel, are left out.

    Args:
        source: A source, as for `prepare_data`.
        count: Maximum number of images.
        img_size: Side of the center crop in pixels.
        resize: Shorter side of an image before the crop, in pixels.
        options: Options for reading the source.

    Raises:
        DataError: The source does not exist, or no image can be used.
    """
    margin = (resize - img_size) // 2
    crop = slice(margin, margin + img_size)
    found = [pixels[crop, crop] for pixels in _decode(open_source(parse_source(source), options), count, resize)]
    if not found:
        raise DataError(f"{source} must have images with 8 bits per channel for the calibration, but has none")
    return found


def _decode(source: Source, count: int, side: int) -> Iterator[Pixels]:
    step = max((source.total or count) // count, 1)
    for index, sample in enumerate(source.samples()):
        if index >= step * count:
            return
        if index % step or isinstance(sample.content, Exception):
            continue
        try:
            pixels = decode_image(sample.content, side).pixels
        except Exception:  # Pillow's plugins raise any type of error for a broken file.
            continue
        if isinstance(pixels, np.ndarray):
            yield pixels
