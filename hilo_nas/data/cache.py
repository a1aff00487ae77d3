"""Decoded images on disk: every image of a source, resized once, in files that any number of processes map at once.

The cache's folder holds a marker (CACHEDIR.TAG) and:

    data/sets/<key>-<size>px/        one set, see `hilo_nas.data.image_sets`
    data/index/<fingerprint>.json    which set's key a path held when it was last read, and samples of its bytes
    data/building/, data/locks/      work under way, and the lock that its builder holds while it lives
    data/reports/                    lists of broken images that were too long for a message

A key is of the content, of the images' names, which tell groups, and of how they were read: the same images under other
names are another set. A set appears by one rename, so that it is there wholly or not at all. Only what has the form of
these entries is ever removed, see `hilo_nas.data.ownership`. This file does not import torch.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock

from hilo_nas.data import ownership
from hilo_nas.data.image_sets import CacheEntry, is_intact, load_arrays, load_entry, load_members
from hilo_nas.data.spot_checks import find_changed, take_samples
from hilo_nas.errors import NotFoundError, StorageError
from hilo_nas.events import DataPrepared, Emit, Notice
from hilo_nas.files.home import home_folder
from hilo_nas.files.plain_files import check_plain, read_text

__all__ = [
    "CacheEntry",
    "clear_caches",
    "default_cache_dir",
    "find_or_build",
    "list_caches",
    "load_arrays",
    "load_entry",
    "load_members",
]

_MOST_INDEX_BYTES = 2**24
"""Largest file of the index that is read; it holds a few samples of a source."""


def default_cache_dir() -> Path:
    """Returns `$HILO_NAS_CACHE_DIR`, or `hilo-nas` in the user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`)."""
    if folder := os.environ.get("HILO_NAS_CACHE_DIR"):
        return Path(folder).expanduser()
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given).expanduser() if given else home_folder("HILO_NAS_CACHE_DIR") / ".cache") / "hilo-nas"


def find_or_build(
    cache_dir: Path,
    fingerprint: str,
    img_size: int,
    build: Callable[[Path], tuple[str, str]],
    emit: Emit,
    files: Callable[[], Iterable[str]] = tuple,
    heartbeat_s: float = 10.0,
) -> CacheEntry:
    """Returns the set of that source at that size, and builds it where it is absent, damaged or out of date.

    Of several processes that want it at once, one builds and the others wait. What a killed builder left behind is
    removed by the next call.

    Args:
        cache_dir: The cache's folder; made where it is absent.
        fingerprint: `read_fingerprint` of the source.
        img_size: Side of the images in pixels.
        build: Writes the files of a set into an empty folder and returns the content hash and the set's key.
        emit: Takes a `Notice` where another process builds already or a set is built anew, and while another builds,
            `DataPrepared` with nothing done every `heartbeat_s`, so that waiting is not taken for hanging.
        files: Lists the source's files; samples of them tell whether it changed although sizes and times did not.
        heartbeat_s: Seconds between two such events.

    Raises:
        StorageError: The cache's folder cannot be read or written, is not a folder of its own, or the disk is full.
        DataError: From `build`.
    """
    root = cache_dir / "data"
    with _storage_errors(cache_dir, "read"):
        ownership.check_links(cache_dir)
        entry = _find(root, fingerprint, img_size, emit)
    if entry:
        with contextlib.suppress(OSError):  # A cache of another user serves as well.
            _sweep(cache_dir)
        return entry
    job = f"{fingerprint[:16]}-{img_size}px"
    with _storage_errors(cache_dir):
        for folder in ownership.FOLDERS:
            (root / folder).mkdir(parents=True, exist_ok=True)
        ownership.mark_cache(cache_dir)
        with _locked(root, job, emit, heartbeat_s):
            if entry := _find(root, fingerprint, img_size, lambda event: None):
                return entry
            _sweep(cache_dir, but=job)
            workshop = root / "building" / job
            _remove(workshop)
            workshop.mkdir()
            try:
                content_hash, key = build(workshop)
                entry = _publish(workshop, _place(root, key, img_size))
            finally:
                ownership.remove_folder(workshop)
            _write_index(root, fingerprint, content_hash, key, take_samples(files(), fingerprint))
            return entry


def list_caches(cache_dir: Path | None = None) -> list[CacheEntry]:
    """Returns every whole set, sorted by name and size; empty where there is no cache.

    Raises:
        StorageError: The folder cannot be read.
    """
    cache_dir = cache_dir or default_cache_dir()
    sets = cache_dir / "data" / "sets"
    with _storage_errors(cache_dir, "read"):
        ownership.check_links(cache_dir)
        entries = [load_entry(path) for path in sets.iterdir()] if sets.is_dir() else []
    return sorted((e for e in entries if e), key=lambda e: (e.name, e.img_size, e.content_hash))


def clear_caches(
    cache_dir: Path | None = None, names: Sequence[str] = (), emit: Emit = lambda event: None
) -> list[CacheEntry]:
    """Removes the sets of those names (or content hashes, or beginnings of them), or all, and returns what was removed.

    Damaged sets, sets of other versions and remains of killed builders go with them; a set that is being built stays,
    and so does whatever is not of hilo-nas.

    Args:
        cache_dir: The cache's folder; None for `default_cache_dir()`.
        names: Which sets; empty for all.
        emit: Takes a warning that names what was left alone.

    Raises:
        NotFoundError: No set has such a name.
        StorageError: The folder cannot be read or written, or holds other things and no marker of a cache.
    """
    cache_dir = cache_dir or default_cache_dir()
    root, entries = cache_dir / "data", list_caches(cache_dir)
    chosen = [e for e in entries if not names or any(_is_named(e, name) for name in names)]
    for name in names:
        if not any(_is_named(e, name) for e in entries):
            known = ", ".join(sorted({e.name for e in entries})) or "nothing"
            raise NotFoundError(f"no cached images are named {name!r}; the cache {cache_dir} holds {known}")
    with _storage_errors(cache_dir):
        if not root.is_dir():
            return []
        foreign = _check_foreign(cache_dir)
        whole = {e.path for e in entries}
        others = [p for p in (root / "sets").iterdir() if p not in whole] if (root / "sets").is_dir() else []
        for path in [*(e.path for e in chosen), *(p for p in others if ownership.is_own_set(p, True))]:
            if path not in foreign:
                ownership.remove_folder(path)
        left = {e.content_hash for e in entries} - {e.content_hash for e in chosen}
        for file in (root / "index").glob("*.json"):
            if file not in foreign and _read_index(file).get("content_hash") not in left:
                file.unlink(missing_ok=True)
        ownership.remove_reports(cache_dir)
        _sweep(cache_dir)
    if foreign:
        emit(Notice(level="warning", text=f"left alone because it is not of hilo-nas: {_shown(foreign)}"))
    return [e for e in chosen if e.path not in foreign]


def _check_foreign(cache_dir: Path) -> list[Path]:
    """Returns what is not of hilo-nas in a cache that has a marker or the form of one.

    Raises:
        StorageError: It has neither.
    """
    foreign = ownership.find_foreign(cache_dir)
    if foreign and not ownership.has_marker(cache_dir):
        raise StorageError(
            f"{cache_dir} must be a folder of the image cache alone, but it has no marker of one and holds "
            f"{_shown(foreign)}: nothing was removed. Name another folder with data.cache_dir, or remove the sets of "
            f"hilo-nas by hand; `hilo-nas cache list` shows those in {cache_dir / 'data' / 'sets'}."
        )
    return foreign


def _shown(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths[:5])) + (f" and {len(paths) - 5:,} more" if len(paths) > 5 else "")


def _is_named(entry: CacheEntry, name: str) -> bool:
    return entry.name == name or (len(name) >= 4 and entry.content_hash.startswith(name))


def _find(root: Path, fingerprint: str, img_size: int, emit: Emit) -> CacheEntry | None:
    """Returns the set that the source gave when it was last read, if set and source are as they were then."""
    index = _read_index(root / "index" / f"{fingerprint}.json")
    if not isinstance(key := index.get("key"), str):
        return None
    place = _place(root, key, img_size)
    entry = load_entry(place)
    if entry is None or not is_intact(place):
        if place.exists():
            why = "is damaged or of an earlier version" if entry is None else "was changed on disk"
            emit(Notice(text=f"the image cache {place} {why}: it is built anew"))
        return None
    if (file := find_changed(index.get("samples", ()))) is not None:
        text = f"{file} changed, although its size and time did not: the images are read again"
        emit(Notice(text=text))
        return None
    return entry


def _place(root: Path, key: str, img_size: int) -> Path:
    return root / "sets" / f"{key}-{img_size}px"


def _read_index(file: Path) -> dict[str, Any]:
    """Returns what an index file holds; nothing where it is absent or damaged."""
    try:
        found = json.loads(read_text(file, _MOST_INDEX_BYTES))
        samples = [[str(path), int(start), str(digest)] for path, start, digest in found.get("samples", ())]
        return {**found, "samples": samples}
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EFBIG):  # a pipe or a huge file, not one that may not be read
            raise
        return {}


def _write_index(root: Path, fingerprint: str, content_hash: str, key: str, samples: list[list[str | int]]) -> None:
    target = root / "index" / f"{fingerprint}.json"
    draft = target.with_suffix(f".{os.getpid()}.tmp")
    text = json.dumps({"content_hash": content_hash, "key": key, "samples": samples})
    draft.write_text(text, encoding="utf-8")
    draft.replace(target)


def _publish(workshop: Path, target: Path) -> CacheEntry:
    """Moves a finished set to its place; where an equal one stands there whole already, that one is kept."""
    if not (load_entry(target) and is_intact(target)):
        _remove(target)
        try:
            workshop.rename(target)
        except OSError as error:
            # Another process, which read the same images from another folder, was faster.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    entry = load_entry(target)
    if entry is None or not is_intact(target):
        raise StorageError(f"the image cache {target} was damaged while it was written; run the command again")
    return entry


def _remove(path: Path) -> None:
    """Removes a set or remains of one.

    Raises:
        StorageError: It is something else, which stays.
    """
    try:
        ownership.remove_folder(path)
    except OSError as error:
        raise StorageError(
            f"{path} must be a folder of the image cache alone, but something else is in its place: "
            f"{error.strerror or error}. Move it away, or set HILO_NAS_CACHE_DIR to another folder."
        ) from error


@contextlib.contextmanager
def _locked(root: Path, job: str, emit: Emit, heartbeat_s: float) -> Iterator[None]:
    """Holds the builder's lock, which the system frees when its process dies."""
    lock = _lock_of(root, job)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        emit(Notice(text="waiting for another process that decodes the same images"))
        while True:
            try:
                lock.acquire(timeout=heartbeat_s)
                break
            except filelock.Timeout:
                emit(DataPrepared(done=0, total=None))
    try:
        yield
    finally:
        lock.release()


def _lock_of(root: Path, job: str) -> filelock.BaseFileLock:
    """Returns the lock of a builder, not yet held.

    Raises:
        StorageError: Its file is a link or no regular file; opening a link may empty what it leads to.
    """
    path = root / "locks" / f"{job}.lock"
    try:
        check_plain(path)
    except OSError as error:
        raise StorageError(
            f"the lock {error.strerror}. Remove it, or use another folder for the image cache."
        ) from error
    return filelock.FileLock(path)


def _sweep(cache_dir: Path, but: str | None = None) -> None:
    """Removes what killed processes left: folders whose lock nobody holds, and torn entries of the index."""
    root = cache_dir / "data"
    for path in (root / "building").iterdir() if (root / "building").is_dir() else ():
        if path.name == but or not ownership.is_own_job(path):
            continue
        # What has a trap for a lock is left alone, and all else is still cleared.
        with contextlib.suppress(filelock.Timeout, StorageError), _lock_of(root, path.name).acquire(timeout=0):
            ownership.remove_folder(path)
    ownership.remove_torn_index(cache_dir)


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
