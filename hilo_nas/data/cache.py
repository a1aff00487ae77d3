"""Decoded images on disk: every image of a source, resized once, in files that any number of processes map at once.

Below the cache's folder:

    data/sets/<key>-<size>px/        images.npy (N, H, W, 3; uint8), labels.npy (N), digests.npy (N, 2), members.npy
                                     (the images' names, parted by NUL), meta.json
    data/index/<fingerprint>.json    which set's key a path held when it was last read
    data/building/, data/locks/      work under way, and the lock that its builder holds while it lives

A key is of the content and of the images' names, which tell groups: the same images under other names are another set.
A set appears by one rename, so that it is there wholly or not at all. This file does not import torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import filelock
import numpy as np

from hilo_nas.errors import NotFoundError, StorageError
from hilo_nas.events import DataPrepared, Emit, Notice

__all__ = [
    "FORMAT",
    "CacheEntry",
    "clear_caches",
    "default_cache_dir",
    "find_or_build",
    "list_caches",
    "load_arrays",
    "load_entry",
    "load_members",
]

FORMAT = 2
"""Version of the files in a set; a set of another version is built anew."""

_HEARTBEAT_S = 10.0
"""Seconds between signs of life while another process builds."""


def default_cache_dir() -> Path:
    """Returns `$HILO_NAS_CACHE_DIR`, or `hilo-nas` in the user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`)."""
    if folder := os.environ.get("HILO_NAS_CACHE_DIR"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "hilo-nas"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """One set of decoded images."""

    path: Path
    name: str
    """The source that it was first read from, without its folder."""
    content_hash: str
    """SHA-256 over class names and image files; the same wherever and under whatever file names they lie."""
    img_size: int
    """Side of the images in pixels."""
    class_names: tuple[str, ...]
    n_images: int
    class_counts: tuple[int, ...]
    """Images of each class."""
    size_mib: float
    """What it takes on disk."""


def load_entry(path: Path) -> CacheEntry | None:
    """Returns the set in that folder, or None where it is absent, not whole, or of another version."""
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
        images, labels, digests = (np.load(path / f"{part}.npy", mmap_mode="r") for part in _PARTS)
        np.load(path / "members.npy", mmap_mode="r")
        n, side = meta["n_images"], meta["img_size"]
        shapes = (images.shape, labels.shape, digests.shape)
        if meta["format"] != FORMAT or shapes != ((n, side, side, 3), (n,), (n, 2)):
            return None
        return CacheEntry(
            path=path,
            name=meta["name"],
            content_hash=meta["content_hash"],
            img_size=side,
            class_names=tuple(meta["class_names"]),
            n_images=n,
            class_counts=tuple(meta["class_counts"]),
            size_mib=sum(file.stat().st_size for file in path.iterdir()) / 2**20,
        )
    except (OSError, ValueError, EOFError, KeyError, TypeError):
        return None


_PARTS = ("images", "labels", "digests")


def load_arrays(path: Path) -> tuple[CacheEntry, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the set, its images (N, H, W, 3; uint8, mapped), labels (N; int64) and digests (N, 2; uint64).

    The images are mapped copy-on-write: they share the system's memory among processes, and writes stay private.

    Raises:
        StorageError: The set is gone or damaged.
    """
    entry = load_entry(path)
    if entry is None:
        raise StorageError(f"the image cache {path} is gone or damaged. Run the search again: it is rebuilt.")
    images = np.load(path / "images.npy", mmap_mode="c")
    return entry, images, np.load(path / "labels.npy"), np.load(path / "digests.npy")


def load_members(path: Path) -> list[str]:
    """Returns the images' names, each its path inside the source that the set was read from.

    Raises:
        StorageError: The set is gone or damaged.
    """
    entry = load_entry(path)
    members = np.load(path / "members.npy").tobytes().decode(errors="surrogateescape").split("\0") if entry else []
    if entry is None or len(members) != entry.n_images:
        raise StorageError(f"the image cache {path} is gone or damaged. Run the search again: it is rebuilt.")
    return members


def find_or_build(
    cache_dir: Path, fingerprint: str, img_size: int, build: Callable[[Path], tuple[str, str]], emit: Emit
) -> CacheEntry:
    """Returns the set of that source at that size, and builds it where it is absent or damaged.

    Of several processes that want it at once, one builds and the others wait. What a killed builder left behind is
    removed by the next.

    Args:
        cache_dir: The cache's folder; made where it is absent.
        fingerprint: `read_fingerprint` of the source.
        img_size: Side of the images in pixels.
        build: Writes the files of a set into an empty folder and returns the content hash and the set's key.
        emit: Takes a `Notice` where another process builds already, and while it does, `DataPrepared` with nothing done
            every few seconds, so that waiting is not taken for hanging.

    Raises:
        StorageError: The cache's folder cannot be written, or the disk is full.
        DataError: From `build`.
    """
    root = cache_dir / "data"
    if entry := _find(root, fingerprint, img_size):
        return entry
    job = f"{fingerprint[:16]}-{img_size}px"
    with _storage_errors(cache_dir):
        for folder in ("sets", "index", "building", "locks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        with _locked(root, job, emit):
            if entry := _find(root, fingerprint, img_size):
                return entry
            _sweep(root, but=job)
            workshop = root / "building" / job
            shutil.rmtree(workshop, ignore_errors=True)
            workshop.mkdir()
            try:
                content_hash, key = build(workshop)
                entry = _publish(workshop, _place(root, key, img_size))
            finally:
                shutil.rmtree(workshop, ignore_errors=True)
            _write_index(root, fingerprint, content_hash, key)
            return entry


def list_caches(cache_dir: Path | None = None) -> list[CacheEntry]:
    """Returns every whole set, sorted by name and size; empty where there is no cache.

    Raises:
        StorageError: The folder cannot be read.
    """
    cache_dir = cache_dir or default_cache_dir()
    sets = cache_dir / "data" / "sets"
    with _storage_errors(cache_dir, "read"):
        entries = [load_entry(path) for path in sets.iterdir()] if sets.is_dir() else []
    return sorted((e for e in entries if e), key=lambda e: (e.name, e.img_size, e.content_hash))


def clear_caches(cache_dir: Path | None = None, names: Sequence[str] = ()) -> list[CacheEntry]:
    """Removes the sets of those names (or content hashes, or beginnings of them), or all, and returns what was removed.

    Damaged sets and remains of killed builders go with them; a set that is being built stays.

    Raises:
        NotFoundError: No set has such a name.
        StorageError: The folder cannot be read or written.
    """
    cache_dir = cache_dir or default_cache_dir()
    root, entries = cache_dir / "data", list_caches(cache_dir)
    chosen = [e for e in entries if not names or any(_is_named(e, name) for name in names)]
    for name in names:
        if not any(_is_named(e, name) for e in entries):
            known = ", ".join(sorted({e.name for e in entries})) or "nothing"
            raise NotFoundError(f"no cached images are named {name!r}; the cache {cache_dir} holds {known}")
    with _storage_errors(cache_dir):
        whole = {e.path for e in entries}
        damaged = [p for p in (root / "sets").iterdir() if p not in whole] if (root / "sets").is_dir() else []
        for path in [*(e.path for e in chosen), *damaged]:
            shutil.rmtree(path)
        left = {e.content_hash for e in entries} - {e.content_hash for e in chosen}
        for file in (root / "index").glob("*.json"):
            if _read_index(file, "content_hash") not in left:
                file.unlink(missing_ok=True)
        _sweep(root)
    return chosen


def _is_named(entry: CacheEntry, name: str) -> bool:
    return entry.name == name or (len(name) >= 4 and entry.content_hash.startswith(name))


def _find(root: Path, fingerprint: str, img_size: int) -> CacheEntry | None:
    key = _read_index(root / "index" / f"{fingerprint}.json", "key")
    return load_entry(_place(root, key, img_size)) if key else None


def _place(root: Path, key: str, img_size: int) -> Path:
    return root / "sets" / f"{key}-{img_size}px"


def _read_index(file: Path, field: str) -> str | None:
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))[field])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_index(root: Path, fingerprint: str, content_hash: str, key: str) -> None:
    target = root / "index" / f"{fingerprint}.json"
    draft = target.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps({"content_hash": content_hash, "key": key}), encoding="utf-8")
    draft.replace(target)


def _publish(workshop: Path, target: Path) -> CacheEntry:
    """Moves a finished set to its place; where an equal one stands there whole already, that one is kept."""
    if not load_entry(target):
        shutil.rmtree(target, ignore_errors=True)
        try:
            workshop.rename(target)
        except OSError as error:
            # Another process, which read the same images from another folder, was faster.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    entry = load_entry(target)
    if entry is None:
        raise StorageError(f"the image cache {target} was damaged while it was written; run the command again")
    return entry


@contextlib.contextmanager
def _locked(root: Path, job: str, emit: Emit) -> Iterator[None]:
    """Holds the builder's lock, which the system frees when its process dies."""
    lock = filelock.FileLock(root / "locks" / f"{job}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        emit(Notice(text="waiting for another process that decodes the same images"))
        while True:
            try:
                lock.acquire(timeout=_HEARTBEAT_S)
                break
            except filelock.Timeout:
                emit(DataPrepared(done=0, total=None))
    try:
        yield
    finally:
        lock.release()


def _sweep(root: Path, but: str | None = None) -> None:
    """Removes what killed builders left: folders whose lock nobody holds."""
    remains = list((root / "building").iterdir()) if (root / "building").is_dir() else []
    for path in remains:
        if path.name == but:
            continue
        with contextlib.suppress(filelock.Timeout), filelock.FileLock(root / "locks" / f"{path.name}.lock", timeout=0):
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _storage_errors(cache_dir: Path, verb: str = "written") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else f"it cannot be {verb} ({error.strerror or error})"
        way_out = "Free some space with `hilo-nas cache clear`, or set" if full else "Allow it, or set"
        raise StorageError(
            f"the image cache {cache_dir}: {reason}. {way_out} HILO_NAS_CACHE_DIR to another folder."
        ) from error
