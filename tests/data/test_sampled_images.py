"""A few images of a source for a calibration: spread over the source, cropped, composited, and usable ones only."""

import sys

import numpy as np
import pytest

from hilo_nas.data.reading import ReadOptions
from hilo_nas.data.sampled_images import sample_images
from hilo_nas.errors import DataError

SOURCE = """import numpy as np
from PIL import Image


def count(n=250):
    for i in range(n):
        yield np.full((8, 12), i, dtype=np.uint8), "ab"[i > 124]


def listed():
    return list(count())


def deep():
    yield np.full((8, 8), 1000, dtype=np.uint16), "a"
    yield np.full((8, 8), 2000, dtype=np.uint16), "b"


def clear():
    yield Image.new("RGBA", (8, 8)), "a"
    yield b"no image", "b"
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))  # an import of the user's function adds its folder
    path = tmp_path / "grey_images.py"
    path.write_text(SOURCE)
    return path


def grey_values(images):
    return [int(image[0, 0, 0]) for image in images]


@pytest.mark.parametrize("count", [1, 100, 249, 250, 300])
def test_images_of_a_known_number_are_evenly_spaced(source, count):
    found = sample_images(f"{source}:listed", count, img_size=4, resize=5)
    values = grey_values(found)
    assert len(values) == min(count, 250)
    steps = np.diff([-1, *values])
    assert steps.max() - steps.min() <= 1
    assert values[-1] == 249


def test_images_of_an_unknown_number_are_drawn_from_all_of_them(source):
    values = grey_values(sample_images(f"{source}:count", 100, img_size=4, resize=5))
    assert len(set(values)) == 100
    assert 30 < sum(value > 124 for value in values) < 70
    assert values == grey_values(sample_images(f"{source}:count", 100, img_size=4, resize=5))


def test_images_are_cropped_to_their_center(source):
    (image,) = sample_images(f"{source}:listed", 1, img_size=4, resize=6)
    assert image.shape == (4, 4, 3)


def test_transparent_pixels_get_the_background_and_broken_images_are_left_out(source):
    options = ReadOptions.from_dict({"background": "black"})
    assert grey_values(sample_images(f"{source}:clear", 5, img_size=4, resize=4, options=options)) == [0]
    assert grey_values(sample_images(f"{source}:clear", 5, img_size=4, resize=4)) == [255]


def test_images_of_more_than_eight_bits_cannot_calibrate(source):
    with pytest.raises(DataError, match="must have images with 8 bits per channel for the calibration in INT8"):
        sample_images(f"{source}:deep", 5, img_size=4, resize=4)
