"""Checkpoint files of a study within a disk budget, one file per training."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
from collections.abc import Iterable
from pathlib import Path

from hilo_nas.errors import StorageError
from hilo_nas.study.records import write_atomically

__all__ = ["CheckpointFiles"]


class CheckpointFiles:
    """Folder with the checkpoints of one study.

    Args:
        folder: Path of the folder. The first training creates it.
        budget_mib: Disk space in MiB for checkpoints that are not in use. 0 keeps none of them.
    """

    def __init__(self, folder: Path, *, budget_mib: float) -> None:
        self._folder, self._budget = folder, budget_mib * 2**20
        self._has_cleaned_up, self._cleaning = False, threading.Lock()

    def path_of(self, reference: str) -> Path:
        """Returns the absolute path of a checkpoint file.

        The first call removes temporary files of killed processes. It must come before the first training, because the
        temporary file of a running training has the same name pattern.
        """
        with self._cleaning:  # tasks on several devices call this from several threads
            if not self._has_cleaned_up:
                for path in _find_files(self._folder, _TEMPORARY):
                    with contextlib.suppress(OSError):
                        path.unlink()
                self._has_cleaned_up = True
        return (self._folder / f"{_stem(reference)}.pt").absolute()

    def read(self, reference: str) -> bytes | None:
        """Returns the content of a checkpoint; None if it is not stored.

        Raises:
            StorageError: The file cannot be read.
        """
        path = self.path_of(reference)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"cannot read the checkpoint {path.name}: {error.strerror or error}.") from error

    def write(self, reference: str, content: bytes) -> None:
        """Writes a checkpoint atomically. Missing folders are created.

        Raises:
            StorageError: The file cannot be written.
        """
        path = self.path_of(reference)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot write the checkpoint {path.name}: {error.strerror or error}") from error
        write_atomically(path, content)

    def discard(self, references: Iterable[str]) -> None:
        """Removes checkpoint files in the given order until the remaining ones fit the budget.

        Only regular files with the name of a checkpoint count and are removed. Links are not followed.
        """
        files = _find_files(self._folder, _FILE)
        if sum(status.st_size for status in files.values()) <= self._budget:
            return
        paths = (self._folder / f"{_stem(reference)}.pt" for reference in references)
        named = {path: files[path] for path in paths if path in files}
        size = sum(status.st_size for status in named.values())
        for path, status in named.items():
            if size <= self._budget:
                return
            with contextlib.suppress(OSError):
                path.unlink()
                size -= status.st_size


_FILE = re.compile(r"([0-9a-f]{12}|timm-[\w.-]+)-\d+\.pt")
"""Name of a checkpoint file: a network and a seed."""
_TEMPORARY = re.compile(rf"\.{_FILE.pattern}\.[a-z0-9_]{{8}}\.tmp")
"""Name of a temporary file, as `hilo_nas.proxy.checkpoints` creates it."""


def _stem(reference: str) -> str:
    return reference.replace(":", "-").replace("/", "-")


def _find_files(folder: Path, pattern: re.Pattern[str]) -> dict[Path, os.stat_result]:
    """Returns the regular files with matching names in a folder. The result is empty if the folder is a link."""
    found: dict[Path, os.stat_result] = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            return found
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(path)
                if pattern.fullmatch(path.name) and stat.S_ISREG(status.st_mode):
                    found[path] = status
    return found
