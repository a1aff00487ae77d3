"""The checkpoints of trainings that may be resumed, one file each, within a disk budget."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

__all__ = ["CheckpointFiles"]


class CheckpointFiles:
    """Checkpoints of one study, in a folder.

    Args:
        folder: The folder; the first training makes it.
        budget_mib: Disk space for the checkpoints that nothing needs; 0 keeps none of them.
    """

    def __init__(self, folder: Path, *, budget_mib: float) -> None:
        self._folder, self._budget = folder, budget_mib * 2**20
        self._has_removed_drafts = False

    def path_of(self, reference: str) -> Path:
        """Returns the absolute path of a checkpoint's file; the first call removes what killed writers left.

        A draft under way looks the same, so that call must come before the first training.
        """
        if not self._has_removed_drafts:
            self._has_removed_drafts = True
            for path in _own_files(self._folder, _DRAFT):
                with contextlib.suppress(OSError):
                    path.unlink()
        return (self._folder / f"{_stem(reference)}.pt").absolute()

    def discard(self, references: Iterable[str]) -> None:
        """Removes the files of checkpoints, the first ones first, until the others fit the budget.

        Only regular files that are named like a checkpoint are removed or count; nothing is followed through a link.
        """
        files = _own_files(self._folder, _FILE)
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
"""A checkpoint's file: a network and a seed."""
_DRAFT = re.compile(rf"\.{_FILE.pattern}\.[a-z0-9_]{{8}}\.tmp")
"""Its draft, see `hilo_nas.proxy.checkpoints`."""


def _stem(reference: str) -> str:
    return reference.replace(":", "-").replace("/", "-")


def _own_files(folder: Path, form: re.Pattern[str]) -> dict[Path, os.stat_result]:
    """Returns the regular files of that form in a folder that is no link."""
    found: dict[Path, os.stat_result] = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            return found
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(path)
                if form.fullmatch(path.name) and stat.S_ISREG(status.st_mode):
                    found[path] = status
    return found
