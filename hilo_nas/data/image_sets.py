"""The files of one set of decoded images: what they hold, whether they are whole, and whether they were changed.

A set is a folder with images.npy (N, H, W, 3; uint8), labels.npy (N), digests.npy (N, 2), members.npy (the images'
names, parted by NUL) and meta.json, which holds a digest of itself and one of each block of the other files. Digests
are compared when a file's size, times or inode differ from stamp.json, which is written after each comparison.

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
"""Version of the files in a set; a set of another version is built anew."""

ARRAYS = {"images": np.uint8, "labels": np.int64, "digests": np.uint64, "members": np.uint8}
"""The files of numbers, without their ending, and what they hold."""

_BLOCK_BYTES = 4 * 2**20
_ABSENT = (None, errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Errors that say something about a set; others, such as too few file handles, say nothing and are raised."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """One set of decoded images."""

    path: Path
    name: str
    """The source that it was first read from, without its folder."""
    content_hash: str
    """SHA-256 over class names and image files; the same wherever and under whatever file names they lie.

    Where turning, compositing or scaling changed a pixel, that is part of it, with the background and the range; so is
    that Pillow gives other values than the files hold."""
    img_size: int
    """Side of the images in pixels."""
    class_names: tuple[str, ...]
    n_images: int
    class_counts: tuple[int, ...]
    """Images of each class."""
    size_mib: float
    """Size on disk."""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What was met and decided while the images were read, as JSON.

    `sizes` (width and height of the `smallest`, `median` and `largest` image), `n_turned`, `n_composited` with
    `background`, `n_scaled` of `n_images` with `value_range` (and `n_float`, `n_nan`, `n_infinite`: images with such
    values), `n_first_frame`, `n_cut` (images that are not square), `broken` (names and reasons of images left out),
    and `skipped`, `split`, `class_level` and `left_out` of the source, and whether it `has_rows` (of Parquet or Arrow).
    What is zero or empty is left out."""


def load_entry(path: Path) -> CacheEntry | None:
    """Returns the set in that folder, or None where it is absent, not whole, or of another version.

    Pixels are not looked at; see `is_intact`.

    Raises:
        OSError: The system refuses to open it, for instance for want of file handles: nothing is known of the set.
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
    except Exception:  # A damaged header makes numpy raise what it meets: SyntaxError, MemoryError, TokenError, ...
        return None


def write_meta(path: Path, meta: Mapping[str, Any]) -> None:
    """Writes a set's description, with its own digest, through to the disk."""
    with open(path / "meta.json", "wb") as file:
        file.write(json.dumps({**meta, "digest": _digest_meta(meta)}, indent=1).encode())
        file.flush()
        os.fsync(file.fileno())


def _load_meta(path: Path) -> dict[str, Any]:
    """Returns the description.

    Raises:
        ValueError: It is damaged.
        OSError: It cannot be read.
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
    """Checks that opening the file cannot hang and leads nowhere else.

    Raises:
        ValueError: It is a link, a pipe or another thing.
        OSError: It is not there.
    """
    if not stat.S_ISREG(os.lstat(file).st_mode):
        raise ValueError(f"{file} is no regular file")


def digest_files(path: Path) -> dict[str, list[str]]:
    """Returns the SHA-256 of each block of 4 MiB of a set's arrays."""
    digests = {}
    for name in ARRAYS:
        with open(path / f"{name}.npy", "rb", buffering=0) as file:
            blocks = iter(lambda file=file: file.read(_BLOCK_BYTES), b"")  # type: ignore[misc]
            digests[name] = [hashlib.sha256(block).hexdigest() for block in blocks]
    return digests


_known_stamps: dict[Path, dict[str, list[int]]] = {}
"""Stamps of sets whose digests this process has compared."""


def is_intact(path: Path) -> bool:
    """Returns whether a set's arrays hold what was written; compares digests where their files look touched.

    At 32 pixels, the digests of 50,000 images (150 MB) take about 0.25 s; the stamps take below a millisecond.

    Raises:
        OSError: The set cannot be read.
    """
    stamps = _read_stamps(path)
    if _known_stamps.get(path) == stamps or _load_stamps(path) == stamps:
        return True
    if digest_files(path) != _load_meta(path)["blocks"]:
        return False
    _known_stamps[path] = stamps
    draft = path / f"stamp.{os.getpid()}.tmp"
    with contextlib.suppress(OSError):  # A cache of another user serves as well.
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
    """Returns the set, its images (N, H, W, 3; uint8, mapped), labels (N; int64) and digests (N, 2; uint64).

    The images are mapped copy-on-write: they share the system's memory among processes, and writes stay private.

    Raises:
        StorageError: The set is gone, damaged or changed, or cannot be opened.
    """
    entry = _load_intact(path)
    images = _load_array(path / "images.npy", "c")
    return entry, images, _load_array(path / "labels.npy", None), _load_array(path / "digests.npy", None)


def load_members(path: Path) -> list[str]:
    """Returns the images' names, each its path inside the source that the set was read from.

    Raises:
        StorageError: The set is gone, damaged or changed, or cannot be opened.
    """
    entry = _load_intact(path)
    members = _load_array(path / "members.npy", None).tobytes().decode(errors="surrogateescape").split("\0")
    if len(members) != entry.n_images:
        raise StorageError(_gone(path))
    return members


def _load_intact(path: Path) -> CacheEntry:
    try:
        entry = load_entry(path)
        if entry is None or not is_intact(path):
            raise StorageError(_gone(path))
    except OSError as error:
        raise StorageError(f"the image cache {path} cannot be read ({error.strerror or error})") from error
    return entry


def _gone(path: Path) -> str:
    return f"the image cache {path} is gone or damaged. Run the search again: it is rebuilt."
