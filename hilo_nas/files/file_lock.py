"""Locks of open files between processes, for one process alone or shared by several.

The operating system keeps the locks and releases them when their process ends, even after a crash. Unix has such locks
(`flock`). Windows locks ranges of bytes, each for one process alone. There, a shared lock takes one of 64 bytes, and a
lock for one process takes all of them.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["LockSystem", "UnixLocks", "WindowsLocks", "load_lock_system"]

_SLOTS = 64
"""Bytes of a lock on Windows: the number of processes that can share it."""
_TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
"""Error numbers that mean that another process holds the lock."""


class LockSystem(Protocol):
    """Locks of one operating system."""

    def try_lock(self, handle: int, *, alone: bool) -> Callable[[], None] | None:
        """Locks an open file without waiting.

        Args:
            handle: File descriptor, open for reading and writing. A second descriptor of the same file counts as
                another process.
            alone: True for a lock that excludes all others, False for one that excludes only those.

        Returns:
            A function that releases the lock. None if another process holds a lock that excludes this one.

        Raises:
            OSError: The file system has no locks.
        """
        ...


class UnixLocks:
    """Locks by `flock`.

    Args:
        module: The module `fcntl`, or a replacement.
    """

    def __init__(self, module: Any) -> None:
        self._fcntl = module

    def try_lock(self, handle: int, *, alone: bool) -> Callable[[], None] | None:
        """Locks an open file without waiting, as `LockSystem.try_lock`."""
        kind = self._fcntl.LOCK_EX if alone else self._fcntl.LOCK_SH
        try:
            self._fcntl.flock(handle, kind | self._fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        return lambda: self._fcntl.flock(handle, self._fcntl.LOCK_UN)


class WindowsLocks:
    """Locks by `msvcrt.locking`. At most 64 processes share a lock; the next one waits.

    Args:
        module: The module `msvcrt`, or a replacement.
    """

    def __init__(self, module: Any) -> None:
        self._msvcrt = module

    def try_lock(self, handle: int, *, alone: bool) -> Callable[[], None] | None:
        """Locks an open file without waiting, as `LockSystem.try_lock`."""
        ranges = [(0, _SLOTS)] if alone else [(slot, 1) for slot in range(_SLOTS)]
        for start, n_bytes in ranges:
            try:
                self._change(handle, self._msvcrt.LK_NBLCK, start, n_bytes)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
            else:
                return lambda: self._change(handle, self._msvcrt.LK_UNLCK, start, n_bytes)
        return None

    def _change(self, handle: int, how: int, start: int, n_bytes: int) -> None:
        os.lseek(handle, start, os.SEEK_SET)
        self._msvcrt.locking(handle, how, n_bytes)


def load_lock_system(platform: str = sys.platform) -> LockSystem:
    """Returns the locks of an operating system.

    Args:
        platform: Name of the system as in `sys.platform`.
    """
    if platform == "win32":
        return WindowsLocks(importlib.import_module("msvcrt"))
    return UnixLocks(importlib.import_module("fcntl"))
