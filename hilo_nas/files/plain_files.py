"""Reading and checks of files that other users may have created. Only regular files of a limited size are read.

A read from a pipe can block forever, a device such as /dev/zero never ends, and a write through a link can change a
file elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from hilo_nas.files.open_flags import BINARY, CLOSE_ON_EXEC, NO_WAIT

__all__ = ["check_no_link", "check_plain", "read_bytes", "read_text"]

_KINDS = ((stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"))


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """Returns the content of a regular file. Follows links.

    Raises:
        OSError: The file does not exist, is not a regular file, cannot be read, or is larger than `most_bytes`.
    """
    handle = os.open(path, os.O_RDONLY | NO_WAIT | CLOSE_ON_EXEC | BINARY)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, f"it must be a regular file, but is {_kind(status.st_mode)}", str(path))
        # Request only the file's size. A buffer of `most_bytes` and buffered I/O both take longer than a record.
        size, content = min(status.st_size, most_bytes) + 1, b""
        while len(content) <= most_bytes and (part := os.read(handle, size)):
            content += part
    finally:
        os.close(handle)
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"it must have at most {most_bytes / 2**20:,g} MiB, but has more", str(path))
    return content


def read_text(path: Path, most_bytes: int) -> str:
    """Returns the content of a regular UTF-8 file as text.

    Raises:
        OSError: For the same reasons as in `read_bytes`.
        UnicodeDecodeError: The content is not UTF-8.
    """
    return read_bytes(path, most_bytes).decode("utf-8")


def check_plain(path: Path) -> None:
    """Checks that a path does not exist or is a regular file, so that a write changes only this file.

    Raises:
        OSError: The path is a link, a folder or a special file, or its status cannot be read.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"{path} must be a regular file, but is {_kind(mode)}", str(path))


def check_no_link(path: Path) -> None:
    """Checks that a path does not exist or is not a link.

    Raises:
        OSError: The path is a link, or its status cannot be read.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, f"{path} must not be a link, because its target would be changed", str(path))


def _kind(mode: int) -> str:
    return next((name for test, name in _KINDS if test(mode)), "a special file")
