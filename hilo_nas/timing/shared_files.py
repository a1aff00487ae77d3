"""Small files in folders that all users of a host can write to, protected against symlink attacks.

These functions follow no link, read only regular files, and never change the mode of another user's file. Folders have
the sticky bit, so users cannot remove or replace each other's files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

__all__ = ["discard", "is_safe", "open_file", "open_folder", "read_text", "write_new"]

_FOLDER_MODE = 0o1777
_FILE_MODE = 0o666
_MOST_BYTES = 4096
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags of all open calls. O_NONBLOCK prevents a FIFO from blocking the process that opens it."""


def is_safe(found: os.stat_result, user: int) -> bool:
    """Returns True if other users cannot replace this user's files in a folder, by its owner, mode and sticky bit."""
    if found.st_uid in (0, user) or found.st_mode & stat.S_ISVTX:
        return True
    return not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@contextlib.contextmanager
def open_folder(name: str | Path, *, below: int | None = None, named: bool) -> Iterator[int]:
    """Yields a file descriptor of a folder. Creates the folder, writable by all users, if it does not exist.

    Args:
        name: The folder.
        below: File descriptor of the parent folder if the name is not a path.
        named: True if the user named the folder. Its owner and mode are then not checked.

    Raises:
        OSError: It is a link or not a folder, or it cannot be created. Also if it belongs to another user and all users
            can write to it, but it has no sticky bit.
    """
    try:
        os.mkdir(name, dir_fd=below)
        is_new = True
    except FileExistsError:
        is_new = False
    handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=below)
    try:
        _settle(handle, is_new=is_new, named=named)
        yield handle
    finally:
        os.close(handle)


def open_file(folder: int, name: str) -> int:
    """Returns a file descriptor of a regular file that all users can lock. Creates the file if it does not exist.

    Raises:
        OSError: It is a link or not a regular file, or it cannot be opened.
    """
    # Try without O_CREAT first: in a sticky folder, Linux refuses O_CREAT on another user's file.
    for _ in range(3):
        with contextlib.suppress(FileNotFoundError):
            return _regular(os.open(name, os.O_RDWR | _FLAGS, dir_fd=folder))
        with contextlib.suppress(FileExistsError):
            handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, _FILE_MODE, dir_fd=folder)
            os.fchmod(handle, _FILE_MODE)  # independent of the umask
            return handle
    raise OSError(errno.EAGAIN, f"another process keeps creating and removing {name}")


def write_new(folder: int, name: str, text: str) -> None:
    """Writes a new file that all users can read. Removes an old file of the same name first.

    Raises:
        OSError: The old file cannot be removed, or the new one cannot be written.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o644, dir_fd=folder)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        os.fchmod(handle, 0o644)
        file.write(text)


def read_text(folder: int, name: str) -> str:
    """Returns the first 4096 bytes of a regular file as text. Any user may have written it.

    Raises:
        OSError: It is a link or not a regular file, or it cannot be opened.
    """
    with os.fdopen(_regular(os.open(name, os.O_RDONLY | _FLAGS, dir_fd=folder)), "rb") as file:
        return file.read(_MOST_BYTES).decode("utf-8", errors="replace")


def discard(folder: int, name: str) -> None:
    """Removes a file. Does nothing if the file does not exist or cannot be removed."""
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=folder)


def _settle(handle: int, *, is_new: bool, named: bool) -> None:
    """Makes this user's folder writable by all users, with the sticky bit, and checks folders of other users."""
    found, user = os.fstat(handle), os.geteuid()
    if is_new or (found.st_uid == user and found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX):
        os.fchmod(handle, _FOLDER_MODE)
    elif not named and not is_safe(found, user):
        raise OSError(
            errno.EPERM, f"user {found.st_uid} created it, and other users can write to it, but it has no sticky bit"
        )


def _regular(handle: int) -> int:
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "it is not a regular file")
