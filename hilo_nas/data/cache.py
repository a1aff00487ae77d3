"""Cache of decoded images on disk. Any number of processes map its files at once.

Each image of a source is resized once. The decoded images of one source at one size are an image set. The folder of the
cache holds a marker (CACHEDIR.TAG) and:

    data/sets/<key>-<size>px/        one set, see `hilo_nas.data.image_sets`
    data/index/<fingerprint>.json    key of the set that a path held when it was last read, and samples of its bytes
    data/building/, data/locks/      unfinished sets, and the lock that a builder holds while it runs
    data/uses/                       locks of sets that running processes use, see `hilo_nas.data.set_uses`
    data/reports/                    lists of broken images that were too long for a message

The key depends on the content of the images, on their names, which define groups, and on how they were read. The same
images under other names are a different set. A set appears by one rename, so it is either complete or absent. Only
entries of these forms are ever removed, see `hilo_nas.data.ownership`. This file does not import torch.
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
    "add_set",
    "clear_caches",
    "default_cache_dir",
    "find_or_build",
    "list_caches",
    "load_arrays",
    "load_entry",
    "load_members",
]

_MOST_INDEX_BYTES = 2**24
"""Maximum size of an index file. It holds only a few samples of a source."""


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
    """Returns the cached image set of a source at a size. Builds it if it is absent, damaged or out of date.

    If several processes need the same image set, one builds it and the others wait. The next call removes the files
    that a killed builder left.

    Args:
        cache_dir: Folder of the cache. It is created if missing.
        fingerprint: `read_fingerprint` of the source.
        img_size: Side of the images in pixels.
        build: Writes the files of an image set into an empty folder and returns its content hash and its key.
        emit: Receives a `Notice` if another process is already building the image set, or if it is rebuilt. While
            another process builds, it receives a `DataPrepared` with `done=0` every `heartbeat_s`, to show that the
            process is not stuck.
        files: Lists the files of the source. Samples of their bytes show changes that leave sizes and times equal.
        heartbeat_s: Seconds between two such events.

    Raises:
        StorageError: The folder cannot be read or written, is not a cache, or the disk is full.
        DataError: From `build`.
    """
    root = cache_dir / "data"
    with _storage_errors(cache_dir, "read"):
        ownership.check_links(cache_dir)
        entry = _find(root, fingerprint, img_size, emit)
    if entry:
        with contextlib.suppress(OSError):  # A read-only cache of another user works too.
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
            _sweep(cache_dir, except_job=job)
            build_dir = root / "building" / job
            _remove(build_dir)
            build_dir.mkdir()
            try:
                content_hash, key = build(build_dir)
                entry = _publish(build_dir, _place(root, key, img_size))
            finally:
                ownership.remove_folder(build_dir)
            _write_index(root, fingerprint, content_hash, key, take_samples(files(), fingerprint))
            return entry


def add_set(cache_dir: Path, name: str, fill: Callable[[Path], None], heartbeat_s: float = 10.0) -> CacheEntry:
    """Returns an image set of the cache. If it is absent or damaged, it is added with files from another cache.

    Args:
        cache_dir: Folder of the cache. It is created if missing.
        name: Name of the image set's folder.
        fill: Writes the files of the image set into an empty folder. Their digests are checked afterwards.
        heartbeat_s: Seconds between two attempts to get the lock of another process that adds the same image set.

    Raises:
        StorageError: The name is not valid, the folder cannot be read or written, the disk is full, or the files do not
            match their digests.
    """
    if not ownership.SET_NAME.fullmatch(name):
        raise StorageError(f"an image set must have the name of its hash and its image size, but got {name!r:.80}")
    root = cache_dir / "data"
    with _storage_errors(cache_dir):
        ownership.check_links(cache_dir)
        for folder in ownership.FOLDERS:
            (root / folder).mkdir(parents=True, exist_ok=True)
        ownership.mark_cache(cache_dir)
        job = f"{name[:16]}-{name.rpartition('-')[2]}"
        with _locked(root, job, lambda event: None, heartbeat_s):
            target, build_dir = root / "sets" / name, root / "building" / job
            if (entry := load_entry(target)) and is_intact(target):
                return entry
            _remove(build_dir)
            build_dir.mkdir()
            try:
                fill(build_dir)
                if load_entry(build_dir) is None or not is_intact(build_dir):
                    raise StorageError(f"the image set {name} was damaged on its way. Run the command again.")
                return _publish(build_dir, target)
            finally:
                ownership.remove_folder(build_dir)


def list_caches(cache_dir: Path | None = None) -> list[CacheEntry]:
    """Returns all complete image sets of a cache, sorted by name and size. The list is empty if there is no cache.

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
    """Removes the image sets with the given names or content hashes, or all of them. Returns the removed image sets.

    A prefix of a content hash is enough. Damaged image sets, those of other versions and files of killed builders are
    removed as well. Image sets that are being built and files that hilo-nas did not write are kept.

    Args:
        cache_dir: Folder of the cache. None means `default_cache_dir()`.
        names: Names or content hashes of the image sets. Empty means all.
        emit: Receives a warning that names the files that are kept.

    Raises:
        NotFoundError: No image set has such a name.
        StorageError: The folder cannot be read or written, or it holds other files and no marker of a cache.
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
        emit(Notice(level="warning", text=f"kept because hilo-nas did not write it: {_shown(foreign)}"))
    return [e for e in chosen if e.path not in foreign]


def _check_foreign(cache_dir: Path) -> list[Path]:
    """Returns the files in a cache that hilo-nas did not write.

    Raises:
        StorageError: There are such files, and the folder has no marker of a cache.
    """
    foreign = ownership.find_foreign(cache_dir)
    if foreign and not ownership.has_marker(cache_dir):
        raise StorageError(
            f"{cache_dir} must contain only the image cache, but it has no marker of a cache and holds "
            f"{_shown(foreign)}. Nothing was removed. Set another folder with data.cache_dir, or remove the sets of "
            f"hilo-nas by hand. `hilo-nas cache list` shows those in {cache_dir / 'data' / 'sets'}."
        )
    return foreign


def _shown(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths[:5])) + (f" and {len(paths) - 5:,} more" if len(paths) > 5 else "")


def _is_named(entry: CacheEntry, name: str) -> bool:
    return entry.name == name or (len(name) >= 4 and entry.content_hash.startswith(name))


def _find(root: Path, fingerprint: str, img_size: int, emit: Emit) -> CacheEntry | None:
    """Returns the image set of the last reading of a source. None if the image set or the source has changed since."""
    index = _read_index(root / "index" / f"{fingerprint}.json")
    if not isinstance(key := index.get("key"), str):
        return None
    place = _place(root, key, img_size)
    entry = load_entry(place)
    if entry is None or not is_intact(place):
        if place.exists():
            why = "is damaged or from an earlier version" if entry is None else "was changed on disk"
            emit(Notice(text=f"the image cache {place} {why}: it is rebuilt"))
        return None
    if (file := find_changed(index.get("samples", ()))) is not None:
        text = f"{file} changed, although its size and modification time did not: the images are read again"
        emit(Notice(text=text))
        return None
    return entry


def _place(root: Path, key: str, img_size: int) -> Path:
    return root / "sets" / f"{key}-{img_size}px"


def _read_index(file: Path) -> dict[str, Any]:
    """Returns the content of an index file, or an empty dict if it is absent or damaged."""
    try:
        found = json.loads(read_text(file, _MOST_INDEX_BYTES))
        samples = [[str(path), int(start), str(digest)] for path, start, digest in found.get("samples", ())]
        return {**found, "samples": samples}
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EFBIG):  # not a pipe or a huge file
            raise
        return {}


def _write_index(root: Path, fingerprint: str, content_hash: str, key: str, samples: list[list[str | int]]) -> None:
    target = root / "index" / f"{fingerprint}.json"
    draft = target.with_suffix(f".{os.getpid()}.tmp")
    text = json.dumps({"content_hash": content_hash, "key": key, "samples": samples})
    draft.write_text(text, encoding="utf-8")
    draft.replace(target)


def _publish(build_dir: Path, target: Path) -> CacheEntry:
    """Moves a finished image set into the cache. If a complete image set is already at `target`, it is kept instead."""
    if not (load_entry(target) and is_intact(target)):
        _remove(target)
        try:
            build_dir.rename(target)
        except OSError as error:
            # Another process that read the same images from another folder was faster.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    entry = load_entry(target)
    if entry is None or not is_intact(target):
        raise StorageError(f"the image cache {target} was damaged while it was written. Run the command again")
    return entry


def _remove(path: Path) -> None:
    """Removes the folder of a cached image set, complete or not.

    Raises:
        StorageError: The path is a link or a file, or the folder contains other files or cannot be removed. Other files
            are kept.
    """
    try:
        ownership.remove_folder(path)
    except OSError as error:
        raise StorageError(
            f"{path} must be a folder of the image cache, but it is something else: "
            f"{error.strerror or error}. Move it away, or set HILO_NAS_CACHE_DIR to another folder."
        ) from error


@contextlib.contextmanager
def _locked(root: Path, job: str, emit: Emit, heartbeat_s: float) -> Iterator[None]:
    """Holds the lock of a builder. The operating system releases it when the process ends."""
    lock = _lock_of(root, job)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        emit(Notice(text="waiting for another process that is decoding the same images"))
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
    """Returns the lock of a builder, not yet acquired.

    Raises:
        StorageError: The lock file is a link or not a regular file. Opening a link could truncate its target.
    """
    path = root / "locks" / f"{job}.lock"
    try:
        check_plain(path)
    except OSError as error:
        raise StorageError(
            f"the lock {error.strerror}. Remove it, or use another folder for the image cache."
        ) from error
    return filelock.FileLock(path)


def _sweep(cache_dir: Path, except_job: str | None = None) -> None:
    """Removes the files of killed processes: build folders with a free lock, and incomplete index entries."""
    root = cache_dir / "data"
    for path in (root / "building").iterdir() if (root / "building").is_dir() else ():
        if path.name == except_job or not ownership.is_own_job(path):
            continue
        # A job whose lock file is not a regular file is skipped. The others are still removed.
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
