"""Folder of a place, which the next place of the same user removes if the process was killed.

A lock in the folder tells whether its place runs. It also holds between hosts and containers that share the folder of
temporary files, where process IDs say nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from hilo_nas.errors import StorageError
from hilo_nas.files.file_lock import load_lock_system
from hilo_nas.files.open_flags import NO_FOLLOW

__all__ = ["PlaceFolder"]

_PREFIX = "hilo-nas-place-"
_LOCK = "lock"
_MOST_TRIES = 10
"""Number of folders that may be lost to another place, which found their lock free."""


class PlaceFolder:
    """New folder of a running place. Removes those of this user's places that were killed.

    Attributes:
        path: The folder.

    Raises:
        StorageError: The folder of temporary files cannot be written.
    """

    def __init__(self) -> None:
        _remove_left()
        try:
            self.path, self._handle = _create()
        except OSError as error:
            folder = tempfile.gettempdir()
            raise StorageError(
                f"the folder of temporary files {folder} cannot be written ({error.strerror or error}). Free it, or "
                "set TMPDIR on the node."
            ) from error

    def close(self) -> None:
        """Removes the folder."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        shutil.rmtree(self.path, ignore_errors=True)


def _create() -> tuple[Path, int | None]:
    """Returns a new folder and the descriptor of its lock; None if the file system has no locks.

    Raises:
        OSError: The folder cannot be written.
    """
    for _ in range(_MOST_TRIES):
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        handle = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if load_lock_system().try_lock(handle, alone=True) is not None and (path / _LOCK).exists():
                return path, handle
        except OSError:
            (path / _LOCK).unlink()  # without the file, the folder is never removed by another place
            os.close(handle)
            return path, None
        os.close(handle)
    raise OSError(f"{_MOST_TRIES} folders were removed by other processes")


def _remove_left() -> None:
    """Removes the folders of this user whose lock is free. A folder without a lock stays."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if hasattr(os, "getuid") and os.lstat(path).st_uid != os.getuid():
                continue
            handle = os.open(path / _LOCK, os.O_RDWR | NO_FOLLOW)
            try:
                if load_lock_system().try_lock(handle, alone=True) is not None:
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(handle)
