"""Uses of cached image sets by running processes. A set in use is not removed for the disk budget of the cache.

A process that uses a set holds a shared lock on the file `data/uses/SET.use` of the cache. The system releases it when
the process ends, even after a crash. The modification time of the file is the time of the last use. This file does not
import torch.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from hilo_nas.files.file_lock import LockSystem, load_lock_system
from hilo_nas.files.open_folders import opened_folder

__all__ = ["SetUse", "last_use", "unused"]

_MAX_WAIT_S, _POLL_S = 30.0, 0.02


class SetUse:
    """Use of an image set by this process, until `close` or the end of the object.

    If another process is removing the set, the use begins when that has ended. The set may then be gone.

    A cache that the process cannot write works as well, but its owner may then remove the set.

    Args:
        path: Folder of the image set in a cache.
        system: Locks of the operating system. Defaults to those of this one.
    """

    def __init__(self, path: Path, *, system: LockSystem | None = None) -> None:
        self._end: weakref.finalize[[int], SetUse] | None = None
        with contextlib.suppress(OSError):
            handle = _open(path)
            self._end = weakref.finalize(self, os.close, handle)
            locks, until = system or load_lock_system(), time.monotonic() + _MAX_WAIT_S
            while locks.try_lock(handle, alone=False) is None and time.monotonic() < until:
                time.sleep(_POLL_S)  # another process is removing the set
            os.utime(_file_of(path))

    def close(self) -> None:
        """Ends the use."""
        if self._end is not None:
            self._end()


def last_use(path: Path) -> float:
    """Returns the time when a process last began to use an image set, in seconds since 1970.

    Raises:
        OSError: The set does not exist or cannot be read.
    """
    with contextlib.suppress(FileNotFoundError):
        return os.lstat(_file_of(path)).st_mtime
    return os.lstat(path).st_mtime


@contextlib.contextmanager
def unused(path: Path, *, system: LockSystem | None = None) -> Iterator[bool]:
    """Yields True if no process uses an image set. Until the block ends, none can begin to.

    Args:
        path: Folder of the image set in a cache.
        system: Locks of the operating system. Defaults to those of this one.

    Raises:
        OSError: The folder of the uses cannot be written.
    """
    handle = _open(path)
    try:
        release = (system or load_lock_system()).try_lock(handle, alone=True)
        try:
            yield release is not None
        finally:
            if release is not None:
                release()
    finally:
        os.close(handle)


def _file_of(path: Path) -> Path:
    return path.parents[1] / "uses" / f"{path.name}.use"


def _open(path: Path) -> int:
    """Opens the lock file of an image set. Creates it, with the age of the set, if it does not exist.

    All users may write it, because a use by any of them counts.

    Raises:
        OSError: It cannot be opened, it is a link, or the image set is not in a cache.
    """
    if path.parent.name != "sets":
        raise FileNotFoundError(errno.ENOENT, "the image set is not in a cache", str(path))
    file = _file_of(path)
    file.parent.mkdir(exist_ok=True)
    with opened_folder(file.parent) as folder:
        with contextlib.suppress(FileExistsError):
            handle = folder.open(file.name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            if hasattr(os, "fchmod"):
                os.fchmod(handle, 0o666)
            began = os.lstat(path).st_mtime
            os.utime(file, (began, began), follow_symlinks=False)
            return handle
        try:
            return folder.open(file.name, os.O_RDWR)
        except PermissionError:
            return folder.open(file.name, os.O_RDONLY)  # a file that its owner has closed to others
