"""Which checkpoints of trainings a study gives up first: those that are least likely to be resumed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from hilo_nas.study.pareto import non_dominated_ranks
from hilo_nas.study.records import TrialRecord

__all__ = ["checkpoint_of", "dispensable"]


def checkpoint_of(key: str, seed: int) -> str:
    """Returns the name of the checkpoint of a network's training with a seed."""
    return f"{key}-{seed}"


def dispensable(records: Sequence[TrialRecord], seeds: Collection[int], needed: Collection[str] = ()) -> Iterator[str]:
    """Yields checkpoints in the order in which they may go: those of the worst fronts first, the oldest trial first.

    A network without a speed or a score comes first of all.

    Args:
        records: The study's; their scores must be on disk.
        seeds: Of its trainings, besides those that the scores are of.
        needed: Checkpoints of trainings that are under way or are to be resumed, which are left out.
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
    for name in (checkpoint_of(key, seed) for key in ordered for seed in seeds_of[key]):
        if name not in needed:
            yield name
