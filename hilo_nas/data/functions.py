"""Reader of images from a custom function: `--data module:function` or `--data path/to/file.py:function`.

The function is called without arguments in the training process. It returns an iterable (a list, a generator) of
`(image, class_name)` or `(image, class_name, member)`:

* `image` is a PIL image, a numpy array (H, W), (H, W, 1) or (H, W, 3), or the bytes of an image file. Arrays may hold
  integers or floats. Arrays of more than 8 bits are scaled by `ReadOptions.value_range`.
* `class_name` is a string. There must be at least two classes.
* `member` is a string that names the image in messages and for `data.group_by`. The default is `item 0`, `item 1` ...

For example, in `scans.py`:

    from pathlib import Path

    def load():
        for file in sorted(Path("/data/scans").glob("*/*.png")):
            patient, kind = file.stem.split("_")[:2]
            if kind != "blurred":
                yield file.read_bytes(), kind, f"{patient}/{file.name}"

    hilo-nas search litv2_cifar --data scans.py:load --set data.group_by='^[^/]+'

Images are read once into the cache. They are read again only if the file of the function changes. Changes in files that
it imports or reads are not detected. After such a change, run `hilo-nas cache clear scans.py:load`. Training may mirror
the images.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sized
from typing import Any

import numpy as np
from PIL import Image

from hilo_nas.data.sources import Sample, Source, SourceSpec
from hilo_nas.errors import DataError
from hilo_nas.plugins import describe_exception, load_function

__all__ = ["open_function"]

_ITEM = "(image, class_name) or (image, class_name, member)"


def open_function(spec: SourceSpec) -> Source:
    """Calls the function and returns its items as a source. Each item is checked when it is read.

    Raises:
        NotFoundError: There is no such file, module or function.
        UsageError: The object is not a function, or cannot be imported.
        DataError: The function raised an error, or did not return an iterable.
    """
    function = load_function(spec.text)
    with _running(spec):
        items = function()
    if not isinstance(items, Iterable):
        raise DataError(f"{spec.text} must return an iterable of {_ITEM}, but returned {_describe(items)}")

    def samples() -> Iterator[Sample]:
        with _running(spec):
            iterator = iter(items)
        for index in itertools.count():
            with _running(spec):
                item = next(iterator, _END)
            if item is _END:
                return
            yield _sample(spec, index, item)

    return Source(samples=samples, total=len(items) if isinstance(items, Sized) else None, class_counts=None)


_END = object()


@contextlib.contextmanager
def _running(spec: SourceSpec) -> Iterator[None]:
    """Turns an error of the function into a DataError. The log of the worker has the full traceback."""
    try:
        yield
    except (Exception, SystemExit) as error:
        raise DataError(f"{spec.text} raised {describe_exception(error, spec.text)}") from error


def _sample(spec: SourceSpec, index: int, item: Any) -> Sample:
    """Checks an item.

    Raises:
        DataError: The item has a wrong form. The message names the item and the expected form.
    """
    where = f"item {index} of {spec.text}"
    if not isinstance(item, tuple | list) or len(item) not in (2, 3):
        raise DataError(f"{where} must be {_ITEM}, but is {_describe(item)}")
    image, class_name = item[:2]
    member = item[2] if len(item) == 3 else f"item {index}"
    for name, value in (("class_name", class_name), ("member", member)):
        # NUL separates the names in the cache.
        if not isinstance(value, str) or not value or "\0" in value:
            raise DataError(f"{where}: {name} must be a non-empty string without NUL, but is {_describe(value)}")
    return Sample(str(class_name), str(member), _content(where, image))


def _content(where: str, image: Any) -> bytes | Image.Image | np.ndarray | Exception:
    if isinstance(image, bytes):
        return image
    if isinstance(image, np.ndarray) and image.dtype.kind in "uif" and image.size:
        # The arrays are copied because the function may reuse one array for all images.
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[:, :, 0]
        if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3):
            if image.dtype == np.uint8:
                return Image.fromarray(image.copy())
            copied: np.ndarray = image.copy() if image.dtype == np.uint16 else image.astype(np.float32)
            return copied
    elif isinstance(image, Image.Image):
        try:
            image.load()  # the function may close the image when it continues
        except Exception as error:  # Pillow's plugins raise any type of error for a broken file.
            return error
        return image
    raise DataError(
        f"{where}: image must be a PIL image, a numpy array (H, W), (H, W, 1) or (H, W, 3) of integers or floats, or "
        f"the bytes of an image file, but is {_describe(image)}"
    )


def _describe(value: Any) -> str:
    """Returns a short description of a value."""
    if isinstance(value, np.ndarray):
        return f"an array {value.shape} of {value.dtype}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value)
    return "None" if value is None else f"{text if len(text) <= 60 else f'{text[:60]}...'} ({type(value).__name__})"
