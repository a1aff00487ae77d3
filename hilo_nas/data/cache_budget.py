"""Disk budget of the image cache: the sets that were not used for the longest time are removed first."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path

from hilo_nas.data.cache import CacheEntry, list_caches
from hilo_nas.data.ownership import is_own_set, remove_folder
from hilo_nas.data.set_uses import last_use, unused
from hilo_nas.events import Emit, Notice
from hilo_nas.text.plurals import agree, count_of

__all__ = ["trim_cache"]

_MIB_PER_GIB = 1024


def trim_cache(cache_dir: Path, max_gib: float, *, needed: Collection[Path], emit: Emit) -> list[CacheEntry]:
    """Removes image sets until the others fit a budget. Returns the removed ones.

    Sets that a running process uses are kept, and so are folders with other names or with further files.

    Args:
        cache_dir: Folder of the cache.
        max_gib: Budget in GiB.
        needed: Folders of sets that are kept in any case.
        emit: Receives a `Notice` that names the removed sets, and a warning if the others do not fit the budget.

    Raises:
        StorageError: The cache cannot be read.
    """
    entries, removed = list_caches(cache_dir), list[CacheEntry]()
    left_mib = sum(entry.size_mib for entry in entries)
    needed = {path.resolve() for path in needed}
    candidates = [entry for entry in entries if entry.path.resolve() not in needed and _is_own(entry.path)]
    for entry in sorted(candidates, key=_last_use):
        if left_mib <= max_gib * _MIB_PER_GIB:
            break
        if _has_removed(entry.path):
            removed.append(entry)
            left_mib -= entry.size_mib
    if removed:
        names = ", ".join(f"{entry.name} at {entry.img_size} px ({entry.size_mib:.1f} MiB)" for entry in removed)
        text = (
            f"data.max_cache_gib={max_gib:g} removed {count_of(len(removed), 'image set')} from {cache_dir}: {names}. "
            f"A search that needs {agree(len(removed), 'it', 'one')} decodes its images again"
        )
        emit(Notice(text=text))
    if left_mib > max_gib * _MIB_PER_GIB:
        text = (
            f"the image cache {cache_dir} must fit data.max_cache_gib={max_gib:g}, but holds "
            f"{left_mib / _MIB_PER_GIB:.3g} GiB, of sets that are needed, are in use or cannot be removed. Raise the "
            "setting"
        )
        emit(Notice(level="warning", text=text))
    return removed


def _last_use(entry: CacheEntry) -> float:
    with contextlib.suppress(OSError):
        return last_use(entry.path)
    return 0.0


def _is_own(path: Path) -> bool:
    """Returns True if a folder has the name and only the files of an image set."""
    with contextlib.suppress(OSError):
        return is_own_set(path, True)
    return False


def _has_removed(path: Path) -> bool:
    """Removes an image set if no process uses it. Returns True if it is gone."""
    with contextlib.suppress(OSError), unused(path) as is_unused:
        if is_unused:
            remove_folder(path)
    return not path.exists()
