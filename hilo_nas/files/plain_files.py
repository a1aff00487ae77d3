"""Files that others may have put there: regular files of a bounded size are read, and nothing else is opened for long.

A pipe would hang its reader, a device such as /dev/zero never ends, and a link may name a file that must stay.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

__all__ = ["check_no_link", "check_plain", "read_bytes", "read_text"]

_KINDS = ((stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"))


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """Returns a regular file's content; a link to one is followed.

    Raises:
        OSError: It is not there, is no regular file, cannot be read, or is larger than `most_bytes`.
    """
    # Opening a pipe without O_NONBLOCK waits for a writer.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, f"it must be a regular file, but is {_kind(status.st_mode)}", str(path))
        # Setting memory for `most_bytes` aside takes longer than reading a record, and a buffered file longer still.
        size, content = min(status.st_size, most_bytes) + 1, b""
        while len(content) <= most_bytes and (part := os.read(handle, size)):
            content += part
    finally:
        os.close(handle)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it must have at most {most_bytes / 2**20:,g} MiB, but has more", str(path))
    return content


def read_text(path: Path, most_bytes: int) -> str:
    """Returns the text of a regular file in UTF-8; see `read_bytes`.

    Raises:
        OSError: See `read_bytes`.
        UnicodeDecodeError: It is not UTF-8.
    """
    return read_bytes(path, most_bytes).decode("utf-8")


def check_plain(path: Path) -> None:
    """Checks that a name is free or is that of a regular file, so that opening it to write changes that file alone.

    Raises:
        OSError: It is a link, a folder or a special file, or cannot be looked at.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"{path} must be a regular file, but is {_kind(mode)}", str(path))


def check_no_link(path: Path) -> None:
    """Checks that a name is free, or is that of a file or folder and no link to one elsewhere.

    Raises:
        OSError: It is a link, or cannot be looked at.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, f"{path} must not be a link, because what it leads to would be changed", str(path))


def _kind(mode: int) -> str:
    return next((name for test, name in _KINDS if test(mode)), "a special file")
