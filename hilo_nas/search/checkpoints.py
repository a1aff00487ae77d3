"""The trainings that a study has set aside, within a disk budget: those least likely to be gone on with go first."""

from __future__ import annotations

import contextlib
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

        Call it when the scores of what is not needed are on disk.

        Args:
            records: The study's.
            needed: Files of trainings that are under way or to be gone on with, which stay, whatever their size.
        """
        found = self._folder.glob("*.pt") if self._folder.is_dir() else ()
        files = {path: path.stat() for path in found if path not in needed}
        size = sum(stat.st_size for stat in files.values())
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


def _stem(key: str) -> str:
    """A network's name in those of its files."""
    return key.replace(":", "-").replace("/", "-")


def _ranks(records: Sequence[TrialRecord]) -> dict[str, int]:
    """The front that each network would be on, by its last score and the name of its files; 0 is the best."""
    found = [(r, m, s) for r in records if (m := r.measurement) and (s := r.score)]
    ranks = non_dominated_ranks([(m.images_per_s, s.proxy_top1) for _, m, s in found])
    return {_stem(record.key): rank for (record, _, _), rank in zip(found, ranks, strict=True)}
