"""A few images of a source in full preprocessing, without a cache: for the calibration of a quantized network."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from hilo_nas.data.decode import decode_image, parse_colour
from hilo_nas.data.readers import open_source
from hilo_nas.data.reading import DEFAULTS, ReadOptions
from hilo_nas.data.sources import Sample, Source, parse_source
from hilo_nas.errors import DataError

__all__ = ["sample_images"]

Pixels = NDArray[np.uint8]


def sample_images(
    source: str, count: int, *, img_size: int, resize: int, options: ReadOptions = DEFAULTS
) -> list[Pixels]:
    """Returns evenly spaced images of a source, each (S, S, 3; uint8). Reads the whole source, but decodes only these.

    A source that does not know its number of images gives random ones, the same in each call. Images that cannot be
    decoded, or that have more than 8 bits per channel, are left out.

    Args:
        source: A source, as for `prepare_data`.
        count: Maximum number of images.
        img_size: Side of the center crop in pixels.
        resize: Shorter side of an image before the crop, in pixels.
        options: Options for reading the source.

    Raises:
        DataError: The source does not exist, or no image can be used.
    """
    opened, background = open_source(parse_source(source), options), parse_colour(options.background)
    samples = _draw(opened.samples(), count) if opened.total is None else _space(opened, opened.total, count)
    margin = (resize - img_size) // 2
    crop = slice(margin, margin + img_size)
    found = [pixels[crop, crop] for sample in samples if (pixels := _decode(sample, resize, background)) is not None]
    if not found:
        raise DataError(
            f"{source} must have images with 8 bits per channel for the calibration in INT8, but has none. Use other "
            "images, or float32."
        )
    return found


def _space(source: Source, total: int, count: int) -> Iterator[Sample]:
    """Yields evenly spaced samples."""
    for index, sample in enumerate(source.samples()):
        if (index + 1) * count // total > index * count // total:
            yield sample


def _draw(samples: Iterable[Sample], count: int) -> list[Sample]:
    """Returns random samples of a stream, each with the same probability (reservoir sampling)."""
    generator, drawn = random.Random(0), []
    for index, sample in enumerate(samples):
        if index < count:
            drawn.append(sample)
        elif (place := generator.randrange(index + 1)) < count:
            drawn[place] = sample
    return drawn


def _decode(sample: Sample, side: int, background: tuple[int, int, int]) -> Pixels | None:
    """Returns the pixels of a sample; None if it cannot be decoded or has more than 8 bits per channel."""
    if isinstance(sample.content, Exception):
        return None
    try:
        pixels = decode_image(sample.content, side, background).pixels
    except Exception:  # Pillow's plugins raise any type of error for a broken file.
        return None
    return pixels if isinstance(pixels, np.ndarray) else None
