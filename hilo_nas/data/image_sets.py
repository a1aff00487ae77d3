"""Files of an image set (decoded images of one source), with checks for damage and changes.

An image set is a folder with images.npy (N, H, W, 3; uint8), labels.npy (N), digests.npy (N, 2), members.npy (names of
the images, separated by NUL) and meta.json. The last one holds its own digest and a digest of each block of the other
files. Digests are compared if size, times or inode of a file differ from stamp.json, which is written after each
comparison.

This file does not import torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hilo_nas.errors import StorageError

__all__ = [
    "ARRAYS",
    "FORMAT",
    "CacheEntry",
    "digest_files",
    "is_intact",
    "load_arrays",
    "load_entry",
    "load_members",
    "write_meta",
]

FORMAT = 3
"""Version of the files in an image set. An image set of another version is rebuilt."""

ARRAYS = {"images": np.uint8, "labels": np.int64, "digests": np.uint64, "members": np.uint8}
"""Array files by name without extension, and their dtypes."""

_BLOCK_BYTES = 4 * 2**20
_ABSENT = (None, errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Error numbers that mean that an image set is absent or broken. Others, such as too many open files, are raised."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """One image set: the decoded images of a source at one size."""

    path: Path
    name: str
    """Name of the source from which the image set was first read, without the folder of the source."""
    content_hash: str
    """SHA-256 over class names and image files, independent of file names and locations.

    If turning, compositing or scaling changed a pixel, the hash includes this fact, the background color and the value
    range. If Pillow's values differ from those in the files, the hash includes this fact too.
    """
    img_size: int
    """Side of the images in pixels."""
    class_names: tuple[str, ...]
    n_images: int
    class_counts: tuple[int, ...]
    """Number of images of each class."""
    size_mib: float
    """Size on disk in MiB."""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Observations and choices made while the images were read, as JSON.

    Zero and empty values are omitted. The keys are:

    * `sizes`: width and height of the `smallest`, `median` and `largest` image, by area.
    * `n_turned`: number of images that were rotated or mirrored upright by their EXIF orientation.
    * `n_composited`, `background`: number of images with transparent pixels, and the color behind them.
    * `n_scaled`, `n_images`, `value_range`: number of images with more than 8 bits, number of all images, and the range
      of values from which images with more than 8 bits were scaled.
    * `n_float`, `n_nan`, `n_infinite`: numbers of scaled images with such values.
    * `n_first_frame`: number of images with several frames, of which the first was read.
    * `n_cut`: number of images that were cropped to the center because they are not square.
    * `broken`: names of the images that were left out, with reasons.
    * `skipped`: number of files that are not images, by extension.
    * `split`, `class_level`, `left_out`: sentences about the source, as in `hilo_nas.data.sources.Source`.
    * `has_rows`: True for Parquet or Arrow.
    """


def load_entry(path: Path) -> CacheEntry | None:
    """Returns the image set in a folder, or None if it is absent, incomplete or of another version (`FORMAT`).

    Pixels are not checked, see `is_intact`.

    Raises:
        OSError: The system cannot open a file for another reason, for example because too many files are open.
    """
    try:
        meta = _load_meta(path)
        n, side = meta["n_images"], meta["img_size"]
        shapes = {"images": (n, side, side, 3), "labels": (n,), "digests": (n, 2)}
        for name, kind in ARRAYS.items():
            array = _load_array(path / f"{name}.npy", "r")
            if array.dtype != kind or array.ndim == 0 or array.shape != shapes.get(name, array.shape[:1]):
                return None
        names, counts, facts = meta["class_names"], meta["class_counts"], meta["facts"]
        if meta["format"] != FORMAT or not isinstance(facts, dict) or len(names) != len(counts) or sum(counts) != n:
            return None
        return CacheEntry(
            path=path,
            name=str(meta["name"]),
            content_hash=str(meta["content_hash"]),
            img_size=side,
            class_names=tuple(map(str, names)),
            n_images=n,
            class_counts=tuple(map(int, counts)),
            size_mib=sum(file.stat().st_size for file in path.iterdir()) / 2**20,
            facts=facts,
        )
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return None
    except Exception:  # numpy raises many errors for a damaged header: SyntaxError, MemoryError, TokenError, ...
        return None


def write_meta(path: Path, meta: Mapping[str, Any]) -> None:
    """Writes the description of an image set (meta.json) with a digest of the description, and syncs it to the disk."""
    with open(path / "meta.json", "wb") as file:
        file.write(json.dumps({**meta, "digest": _digest_meta(meta)}, indent=1).encode())
        file.flush()
        os.fsync(file.fileno())


def _load_meta(path: Path) -> dict[str, Any]:
    """Returns the description of an image set, from its meta.json.

    Raises:
        ValueError: The file is damaged.
        OSError: The file cannot be read.
    """
    file = path / "meta.json"
    _check_regular(file)
    meta = json.loads(file.read_bytes())
    digest = meta.pop("digest")
    if digest != _digest_meta(meta):
        raise ValueError(f"{file} was changed")
    return dict(meta)


def _digest_meta(meta: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _load_array(file: Path, mode: str | None) -> np.ndarray:
    _check_regular(file)
    array: np.ndarray = np.load(file, mmap_mode=mode)  # type: ignore[arg-type]
    return array


def _check_regular(file: Path) -> None:
    """Checks that the file is a regular file, so that opening it cannot block or follow a link.

    Raises:
        ValueError: The path is a link, a pipe or another special file.
        OSError: There is no such file.
    """
    if not stat.S_ISREG(os.lstat(file).st_mode):
        raise ValueError(f"{file} is not a regular file")


def digest_files(path: Path) -> dict[str, list[str]]:
    """Returns the SHA-256 of each 4 MiB block of the array files of an image set, by the name of the file."""
    digests = {}
    for name in ARRAYS:
        with open(path / f"{name}.npy", "rb", buffering=0) as file:
            blocks = iter(lambda file=file: file.read(_BLOCK_BYTES), b"")  # type: ignore[misc]
            digests[name] = [hashlib.sha256(block).hexdigest() for block in blocks]
    return digests


_known_stamps: dict[Path, dict[str, list[int]]] = {}
"""Stamps (sizes, times, inodes) of the image sets whose digests this process has already compared, by folder."""


def is_intact(path: Path) -> bool:
    """Returns True if the array files of an image set are unchanged. Compares digests if the files look modified.

    At 32 pixels, comparing the digests of 50,000 images (150 MB) takes about 0.25 s. Comparing the stamps takes less
    than a millisecond.

    Raises:
        OSError: The image set cannot be read.
    """
    stamps = _read_stamps(path)
    if _known_stamps.get(path) == stamps or _load_stamps(path) == stamps:
        return True
    if digest_files(path) != _load_meta(path)["blocks"]:
        return False
    _known_stamps[path] = stamps
    draft = path / f"stamp.{os.getpid()}.tmp"
    with contextlib.suppress(OSError):  # A read-only cache of another user works too.
        draft.write_text(json.dumps(stamps), encoding="utf-8")
        draft.replace(path / "stamp.json")
    return True


def _read_stamps(path: Path) -> dict[str, list[int]]:
    stats = {name: os.lstat(path / f"{name}.npy") for name in ARRAYS}
    return {name: [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for name, s in stats.items()}


def _load_stamps(path: Path) -> object:
    try:
        _check_regular(path / "stamp.json")
        return json.loads((path / "stamp.json").read_bytes())
    except (OSError, ValueError):
        return None


def load_arrays(path: Path) -> tuple[CacheEntry, np.ndarray, np.ndarray, np.ndarray]:
    """Returns an image set, its images (N, H, W, 3; uint8, memory-mapped), labels (N; int64), digests (N, 2; uint64).

    The images are mapped copy-on-write. Processes share the memory of the operating system, and writes stay private.

    Raises:
        StorageError: The set is missing, damaged or changed, or cannot be opened.
    """
    entry = _load_intact(path)
    images = _load_array(path / "images.npy", "c")
    return entry, images, _load_array(path / "labels.npy", None), _load_array(path / "digests.npy", None)


def load_members(path: Path) -> list[str]:
    """Returns the names of the images: their paths inside the source from which the image set was read.

    Raises:
        StorageError: The set is missing, damaged or changed, or cannot be opened.
    """
    entry = _load_intact(path)
    members = _load_array(path / "members.npy", None).tobytes().decode(errors="surrogateescape").split("\0")
    if len(members) != entry.n_images:
        raise StorageError(_missing_message(path))
    return members


def _load_intact(path: Path) -> CacheEntry:
    try:
        entry = load_entry(path)
        if entry is None or not is_intact(path):
            raise StorageError(_missing_message(path))
    except OSError as error:
        raise StorageError(f"the image cache {path} cannot be read ({error.strerror or error})") from error
    return entry


def _missing_message(path: Path) -> str:
    return f"the image cache {path} is missing or damaged. Run the search again to rebuild it."
