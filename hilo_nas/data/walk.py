"""Iteration over the files below a folder. It follows links but never enters a cycle."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

__all__ = ["is_special", "list_empty", "walk_files"]


def walk_files(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yields each file below a folder, sorted within its folder, with its path relative to `root` (joined by slashes).

    Pipes and broken links count as files. A folder that contains itself through a link is entered once. A folder that
    is reached through links of a linked folder is entered once in total.

    Raises:
        OSError: A folder cannot be listed.
    """
    entered: set[tuple[int, int]] = set()
    stack: list[tuple[str, str, frozenset[tuple[int, int]], bool]] = [(str(root), "", frozenset(), False)]
    while stack:
        folder, prefix, above, is_linked = stack.pop()
        status = os.stat(folder)
        above |= {(status.st_dev, status.st_ino)}
        inner = []
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            path = f"{prefix}{entry.name}"
            if not _is_folder(entry):
                yield path, entry
                continue
            status = entry.stat()
            key = (status.st_dev, status.st_ino)
            is_link = entry.is_symlink()
            if key in above or (is_link and is_linked and key in entered):
                continue
            if is_link and is_linked:
                entered.add(key)
            inner.append((entry.path, f"{path}/", above, is_linked or is_link))
        stack += reversed(inner)


def list_empty(root: Path) -> list[str]:
    """Returns the empty folders as paths relative to `root`. Links are not followed.

    Raises:
        OSError: A folder cannot be listed.
    """
    found = []
    stack = [(str(root), "")]
    while stack:
        folder, path = stack.pop()
        with os.scandir(folder) as entries:
            inner = list(entries)
        if not inner and path:
            found.append(path)
        stack += [(entry.path, f"{path}/{entry.name}".lstrip("/")) for entry in inner if _is_own_folder(entry)]
    return sorted(found)


def _is_own_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def is_special(entry: os.DirEntry[str]) -> bool:
    """Returns True for a pipe, a socket or a device, and False for a broken link."""
    try:
        return not stat.S_ISREG(entry.stat().st_mode) if not entry.is_file() else False
    except OSError:
        return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself raises an error.
        return False
