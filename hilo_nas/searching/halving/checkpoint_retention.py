"""Order in which a study discards checkpoints: those that are least likely to be resumed go first."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from hilo_nas.study.pareto import non_dominated_ranks
from hilo_nas.study.records import TrialRecord

__all__ = ["checkpoint_name", "discardable_checkpoints"]


def checkpoint_name(key: str, seed: int) -> str:
    """Returns the name of the checkpoint for the training of a network with a seed: `KEY-SEED`."""
    return f"{key}-{seed}"


def discardable_checkpoints(
    records: Sequence[TrialRecord], seeds: Collection[int], needed: Collection[str] = ()
) -> Iterator[str]:
    """Yields checkpoint names in the order in which they may be discarded.

    Networks without a speed or a score come first, then networks with the worst rank (`non_dominated_ranks`). Among
    networks of equal rank, the oldest trial comes first.

    Args:
        records: Records of the study. Their scores must be on disk.
        seeds: Training seeds of the study, in addition to the seeds of the stored scores.
        needed: Checkpoints to keep, because their trainings are running or will be resumed.
    """
    found = [(r, m, s) for r in records if (m := r.measurement) and (s := r.score)]
    ranks = non_dominated_ranks([(m.images_per_s, s.value) for _, m, s in found])
    rank_of = {record.key: rank for (record, _, _), rank in zip(found, ranks, strict=True)}
    unknown = len(rank_of)
    seeds_of: dict[str, dict[int, None]] = {}
    for record in records:
        trained = seeds_of.setdefault(record.key, dict.fromkeys(seeds))
        trained |= dict.fromkeys(score.seed for score in record.scores)
    ordered = sorted(seeds_of, key=lambda key: -rank_of.get(key, unknown))
    for name in (checkpoint_name(key, seed) for key in ordered for seed in seeds_of[key]):
        if name not in needed:
            yield name
