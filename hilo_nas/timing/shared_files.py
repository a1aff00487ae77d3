"""Small files in a folder that every user of a host may write, where a name may be a trap.

Nothing is opened through a link, nothing but a regular file is read, and no mode of another user's file is changed.
Folders carry the sticky bit, so that users cannot remove or replace each other's files.
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
"""A FIFO must not hang whoever opens it."""


def is_safe(found: os.stat_result, user: int) -> bool:
    """Returns whether a folder's owner, mode and sticky bit keep other users from replacing this user's files in it."""
    if found.st_uid in (0, user) or found.st_mode & stat.S_ISVTX:
        return True
    return not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@contextlib.contextmanager
def open_folder(name: str | Path, *, below: int | None = None, named: bool) -> Iterator[int]:
    """Yields a handle of a folder, which is made where it is absent, open to every user.

    Args:
        name: The folder.
        below: Handle of the folder that holds it, where the name is no path.
        named: Whether the user named the folder: then its owner and mode are the user's choice.

    Raises:
        OSError: It is a link or no folder, cannot be made, or belongs to another user and is open to all without the
            sticky bit.
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
    """Returns a handle of a regular file that every user may lock; made where it is absent.

    Raises:
        OSError: It is a link or no regular file, or cannot be opened.
    """
    # Without O_CREAT where it is there: in a sticky folder Linux refuses O_CREAT on another user's file.
    for _ in range(3):
        with contextlib.suppress(FileNotFoundError):
            return _regular(os.open(name, os.O_RDWR | _FLAGS, dir_fd=folder))
        with contextlib.suppress(FileExistsError):
            handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, _FILE_MODE, dir_fd=folder)
            os.fchmod(handle, _FILE_MODE)  # whatever the umask
            return handle
    raise OSError(errno.EAGAIN, f"{name} is made and removed again and again")


def write_new(folder: int, name: str, text: str) -> None:
    """Writes a file of this user's own, readable to all; one of that name that is left behind is removed first.

    Raises:
        OSError: It cannot be removed or written.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o644, dir_fd=folder)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        os.fchmod(handle, 0o644)
        file.write(text)


def read_text(folder: int, name: str) -> str:
    """Returns the beginning of a regular file, whoever wrote it.

    Raises:
        OSError: It is a link or no regular file, or cannot be opened.
    """
    with os.fdopen(_regular(os.open(name, os.O_RDONLY | _FLAGS, dir_fd=folder)), "rb") as file:
        return file.read(_MOST_BYTES).decode("utf-8", errors="replace")


def discard(folder: int, name: str) -> None:
    """Removes a file, if it is there and this user may."""
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=folder)


def _settle(handle: int, *, is_new: bool, named: bool) -> None:
    """Opens a folder of this user's to all, with the sticky bit; refuses one that other users could tamper with."""
    found, user = os.fstat(handle), os.geteuid()
    if is_new or (found.st_uid == user and found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX):
        os.fchmod(handle, _FOLDER_MODE)
    elif not named and not is_safe(found, user):
        raise OSError(errno.EPERM, f"user {found.st_uid} made it, open to all and without the sticky bit")


def _regular(handle: int) -> int:
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "it is no regular file")
