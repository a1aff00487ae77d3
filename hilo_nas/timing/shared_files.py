"""Small files in folders that all users of a host can write to, protected against symlink attacks.

These functions follow no link, read only regular files, and never change the mode of another user's file. Folders have
the sticky bit, so users cannot remove or replace each other's files. Windows has no such modes: there, the permissions
of the parent folder apply.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from hilo_nas.files.open_flags import HAS_DIR_FD
from hilo_nas.files.open_folders import OpenFolder, opened_folder

__all__ = ["discard", "is_safe", "open_file", "open_folder", "read_text", "write_new"]

_FOLDER_MODE = 0o1777
_FILE_MODE = 0o666
_MOST_BYTES = 4096


def is_safe(found: os.stat_result, user: int) -> bool:
    """Returns True if other users cannot replace this user's files in a folder, by its owner, mode and sticky bit."""
    if found.st_uid in (0, user) or found.st_mode & stat.S_ISVTX:
        return True
    return not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@contextlib.contextmanager
def open_folder(
    path: Path, *, below: OpenFolder | None = None, named: bool, by_handle: bool = HAS_DIR_FD
) -> Iterator[OpenFolder]:
    """Yields a folder, open until the block ends. Creates it, writable by all users, if it does not exist.

    Args:
        path: The folder. A name if `below` is given.
        below: Folder that contains it.
        named: True if the user named the folder. Its owner and mode are then not checked.
        by_handle: False to open files by their paths, as on Windows.

    Raises:
        OSError: It is a link or not a folder, or it cannot be created. Also if it belongs to another user and all users
            can write to it, but it has no sticky bit.
    """
    try:
        if below is None:
            os.mkdir(path)
        else:
            below.make(str(path))
        is_new = True
    except FileExistsError:
        is_new = False
    with opened_folder(path, below=below, by_handle=by_handle) as folder:
        _settle(folder, is_new=is_new, named=named)
        yield folder


def open_file(folder: OpenFolder, name: str) -> int:
    """Returns a file descriptor of a regular file that all users can lock. Creates the file if it does not exist.

    Raises:
        OSError: It is a link or not a regular file, or it cannot be opened.
    """
    # Try without O_CREAT first: in a sticky folder, Linux refuses O_CREAT on another user's file.
    for _ in range(3):
        with contextlib.suppress(FileNotFoundError):
            return _regular(folder.open(name, os.O_RDWR))
        with contextlib.suppress(FileExistsError):
            handle = folder.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, _FILE_MODE)
            _set_mode(handle, _FILE_MODE)  # independent of the umask
            return handle
    raise OSError(errno.EAGAIN, f"another process keeps creating and removing {name}")


def write_new(folder: OpenFolder, name: str, text: str) -> None:
    """Writes a new file that all users can read. Removes an old file of the same name first.

    Raises:
        OSError: The old file cannot be removed, or the new one cannot be written.
    """
    with contextlib.suppress(FileNotFoundError):
        folder.remove(name)
    handle = folder.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        _set_mode(handle, 0o644)
        file.write(text)


def read_text(folder: OpenFolder, name: str) -> str:
    """Returns the first 4096 bytes of a regular file as text. Any user may have written it.

    Raises:
        OSError: It is a link or not a regular file, or it cannot be opened.
    """
    with os.fdopen(_regular(folder.open(name, os.O_RDONLY)), "rb") as file:
        return file.read(_MOST_BYTES).decode("utf-8", errors="replace")


def discard(folder: OpenFolder, name: str) -> None:
    """Removes a file. Does nothing if the file does not exist or cannot be removed."""
    with contextlib.suppress(OSError):
        folder.remove(name)


def _settle(folder: OpenFolder, *, is_new: bool, named: bool) -> None:
    """Makes this user's folder writable by all users, with the sticky bit, and checks folders of other users."""
    found = folder.status
    user = os.geteuid() if hasattr(os, "geteuid") else found.st_uid  # Windows has no such IDs
    if is_new or (found.st_uid == user and found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX):
        folder.set_mode(_FOLDER_MODE)
    elif not named and not is_safe(found, user):
        raise OSError(
            errno.EPERM, f"user {found.st_uid} created it, and other users can write to it, but it has no sticky bit"
        )


def _set_mode(handle: int, mode: int) -> None:
    if hasattr(os, "fchmod"):  # not on Windows
        os.fchmod(handle, mode)


def _regular(handle: int) -> int:
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "it is not a regular file")
