"""The trainings that a study has set aside, within a disk budget: those least likely to be gone on with go first."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from hilo_nas.pareto import non_dominated_ranks
from hilo_nas.records import TrialRecord

__all__ = ["Checkpoints"]


class Checkpoints:
    """One file per network and seed.

    Args:
        folder: Where they lie.
        budget_mib: What they may take on disk in all.
        seed: Of the study's trainings.
    """

    def __init__(self, folder: Path, *, budget_mib: float, seed: int) -> None:
        self._folder, self._budget, self._seed = folder, budget_mib * 2**20, seed

    def path_of(self, key: str, seed: int) -> Path | None:
        """Returns the file of a network's training; None where nothing is to be kept."""
        if not self._budget:
            return None
        return self._folder / f"{key.replace(':', '-').replace('/', '-')}-{seed}.pt"

    def holds(self, key: str) -> bool:
        """Returns whether a network's training can be gone on with."""
        path = self.path_of(key, self._seed)
        return path is not None and path.is_file()

    def prune(self, records: Sequence[TrialRecord]) -> None:
        """Drops files until the rest fits the budget: of unknown networks, then the worst fronts, there the oldest.

        The file written last stays, whatever its size: its training is under way.

        Args:
            records: The study's.
        """
        files = {path: path.stat() for path in self._folder.glob("*.pt")} if self._folder.is_dir() else {}
        size = sum(stat.st_size for stat in files.values())
        if size <= self._budget:
            return
        ranks = self._ranks(records)
        newest = max(files, key=lambda path: files[path].st_mtime_ns)
        order = sorted(files, key=lambda path: (-ranks.get(path, len(ranks)), files[path].st_mtime_ns))
        for path in order:
            if size <= self._budget:
                return
            if path != newest:
                with contextlib.suppress(OSError):
                    path.unlink()
                    size -= files[path].st_size

    def _ranks(self, records: Sequence[TrialRecord]) -> dict[Path, int]:
        """The front that each network would be on, by its last score; 0 is the best."""
        found = [(r, m, s) for r in records if (m := r.measurement) and (s := r.score)]
        ranks = non_dominated_ranks([(m.images_per_s, s.proxy_top1) for _, m, s in found])
        pairs = ((self.path_of(r.key, self._seed), rank) for (r, _, _), rank in zip(found, ranks, strict=True))
        return {path: rank for path, rank in pairs if path is not None}
