"""State of other processes of this host, on Unix and on Windows."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

__all__ = ["ProcessWatch", "is_running"]

_SYNCHRONIZE = 0x00100000
"""Access right that a wait for a process needs on Windows."""
_WAIT_TIMEOUT = 258
"""Result of a wait on Windows if the process is still running."""


def is_running(pid: int, *, windows: Any = None) -> bool:
    """Returns True if a process with this ID is running. It may belong to another user.

    On Windows, `os.kill(pid, 0)` sends Ctrl-C to a process. The process is opened there instead.

    Args:
        pid: ID of the process. One that no process can have gives False.
        windows: The module `_winapi`, or a replacement. Defaults to that of this system, and to None on Unix.
    """
    if windows is None and sys.platform == "win32":
        windows = importlib.import_module("_winapi")
    if windows is not None:
        return _is_running_on_windows(pid, windows)
    if pid <= 0:  # the kernel takes these for groups of processes
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # a process of another user
        return True
    return True


def _is_running_on_windows(pid: int, windows: Any) -> bool:
    try:
        watch = ProcessWatch(pid, windows=windows)
    except PermissionError:  # a process of another user
        return True
    except (OSError, OverflowError):
        return False
    try:
        return watch.is_running()
    finally:
        watch.close()


class ProcessWatch:
    """Open process on Windows. Its ID is not given to another process until `close`.

    Args:
        pid: ID of the process.
        windows: The module `_winapi`, or a replacement.

    Raises:
        PermissionError: The process belongs to another user.
        OSError: No process has this ID.
    """

    def __init__(self, pid: int, *, windows: Any = None) -> None:
        self._windows = importlib.import_module("_winapi") if windows is None else windows
        self._handle = self._windows.OpenProcess(_SYNCHRONIZE, False, pid)

    def is_running(self) -> bool:
        """Returns True until the process ends."""
        return bool(self._windows.WaitForSingleObject(self._handle, 0) == _WAIT_TIMEOUT)

    def close(self) -> None:
        """Closes the process. It continues to run."""
        self._windows.CloseHandle(self._handle)
