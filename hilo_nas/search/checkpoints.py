"""The trainings that a study has set aside, within a disk budget: those least likely to be gone on with go first."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Collection, Sequence
from pathlib import Path

from hilo_nas.pareto import non_dominated_ranks
from hilo_nas.records import TrialRecord

__all__ = ["Checkpoints"]


class Checkpoints:
    """One file per network and seed.

    Args:
        folder: Where they lie.
        budget_mib: What they may take on disk in all, beside those that are needed; 0 keeps no other.
        seed: Of the study's trainings.
    """

    def __init__(self, folder: Path, *, budget_mib: float, seed: int) -> None:
        self._folder, self._budget, self._seed = folder, budget_mib * 2**20, seed

    def path_of(self, key: str, seed: int | None = None) -> Path:
        """Returns the file of a network's training, by the study's seed if no other is given."""
        return self._folder / f"{_stem(key)}-{self._seed if seed is None else seed}.pt"

    def holds(self, key: str) -> bool:
        """Returns whether a network's training can be gone on with."""
        return self.path_of(key).is_file()

    def prune(self, records: Sequence[TrialRecord], needed: Collection[Path] = ()) -> None:
        """Drops files until the rest fits the budget: of unknown networks, then the worst fronts, there the oldest.

        Only files whose names are those of a network and a seed are dropped or count, and nothing is followed through
        a link.

        Call it when the scores of what is not needed are on disk.

        Args:
            records: The study's.
            needed: Files of trainings that are under way or to be gone on with, which stay, whatever their size.
        """
        files = {path: status for path, status in _own_files(self._folder, _FILE).items() if path not in needed}
        size = sum(status.st_size for status in files.values())
        if size <= self._budget:
            return
        ranks = _ranks(records)
        unknown = len(ranks)

        def order(path: Path) -> tuple[int, int]:
            return -ranks.get(path.stem.rpartition("-")[0], unknown), files[path].st_mtime_ns

        for path in sorted(files, key=order):
            if size <= self._budget:
                return
            with contextlib.suppress(OSError):
                path.unlink()
                size -= files[path].st_size

    def remove_drafts(self) -> None:
        """Removes what killed writers left.

        Call it before the first training, because a draft under way looks the same.
        """
        for path in _own_files(self._folder, _DRAFT):
            with contextlib.suppress(OSError):
                path.unlink()


_FILE = re.compile(r"([0-9a-f]{12}|timm-[\w.-]+)-\d+\.pt")
"""A network's file, see `Checkpoints.path_of`."""
_DRAFT = re.compile(rf"\.{_FILE.pattern}\.[a-z0-9_]{{8}}\.tmp")
"""Its draft, see `hilo_nas.proxy.checkpoints`."""


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


def _stem(key: str) -> str:
    """A network's name in those of its files."""
    return key.replace(":", "-").replace("/", "-")


def _ranks(records: Sequence[TrialRecord]) -> dict[str, int]:
    """The front that each network would be on, by its last score and the name of its files; 0 is the best."""
    found = [(r, m, s) for r in records if (m := r.measurement) and (s := r.score)]
    ranks = non_dominated_ranks([(m.images_per_s, s.value) for _, m, s in found])
    return {_stem(record.key): rank for (record, _, _), rank in zip(found, ranks, strict=True)}
