"""Promotion rule: asynchronous successive halving with two objectives, stopping variant.

Each training is scored at rungs. At a rung, training continues only if the network is among the best that have reached
the rung so far. No network waits for others, and a stopped network is not resumed (ASHA: Li et al. 2018, arXiv
1810.05934; stopping variant: Klein et al. 2020, arXiv 2003.10865). Networks are ranked as in MO-ASHA (Schmucker et al.
2021, arXiv 2106.12639): by non-dominated front, then by how evenly they cover their front. Halving on the score alone
would discard the fast end of every front.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence

from hilo_nas.study.pareto import Point, promotion_order

__all__ = ["RungEntry", "RungTable", "expected_training_share", "is_promoted"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RungEntry:
    """Result of one network at one rung."""

    key: str
    """Key of the network (`TrialRecord.key`). Equal keys mean the same network."""
    images: int
    """Number of training images seen at the rung."""
    images_per_s: float
    value: float
    """Proxy score at the rung."""
    always_promoted: bool = False
    """True if the network is promoted regardless of its values, as anchors are. Others are still compared with it."""

    @property
    def point(self) -> tuple[float, float]:
        """Logarithm of images/s, and score; both are maximised.

        The logarithm makes equal speed ratios equal distances.
        """
        return math.log(self.images_per_s), self.value


class RungTable:
    """Results of networks at the rungs of a study, and promotion decisions from them.

    Decisions depend only on the entries, not on their order, except among entries with identical points. A table
    rebuilt from stored records therefore decides like the original one. Decisions change as entries are added, so ask
    for each network once, when it arrives at the rung.

    Args:
        rungs: Intermediate budgets in training images, ascending, without the full budget.
        reduction_factor: One of this many networks is promoted; above 1.
        entries: Initial entries.
    """

    def __init__(self, rungs: Sequence[int], reduction_factor: float, entries: Iterable[RungEntry] = ()) -> None:
        self.rungs = tuple(rungs)
        self.reduction_factor = reduction_factor
        self._entries: dict[int, dict[str, RungEntry]] = {images: {} for images in self.rungs}
        for entry in entries:
            self.add(entry)

    def add(self, entry: RungEntry) -> None:
        """Adds an entry. Replaces an earlier entry with the same key and rung."""
        self._entries[entry.images][entry.key] = entry

    def is_promoted(self, key: str, images: int) -> bool:
        """Returns True if the training of a network continues after a rung. Its entry at the rung must exist."""
        arrived = self._entries[images]
        if arrived[key].always_promoted:
            return True
        return is_promoted(self.points_at(images), list(arrived).index(key), self.reduction_factor)

    def points_at(self, images: int) -> list[tuple[float, float]]:
        """Returns the objectives of all networks at a rung, in the order of arrival."""
        return [entry.point for entry in self._entries[images].values()]


def is_promoted(points: Sequence[Point], candidate: int, reduction_factor: float) -> bool:
    """Returns True if a point is among the best `1 / reduction_factor` of the points at a rung.

    If there are at most `reduction_factor` points, all are promoted, because a single network cannot represent a front.
    Otherwise the number of promoted points is rounded up. At least two are then kept, so both ends of the front can
    survive. In syne-tune, the documented rule also promotes all points if there are fewer than `reduction_factor`, but
    its rule for two objectives promotes only the first. The rule here promotes more networks. It costs about four more
    trainings per 300 networks that reach a rung.

    A point with a NaN comes from a failed training and is never promoted.

    Args:
        points: Objectives of all networks at the rung, all maximised.
        candidate: Index of the point to decide on.
        reduction_factor: Above 1.
    """
    assert reduction_factor > 1
    if any(math.isnan(value) for value in points[candidate]):
        return False
    if len(points) <= reduction_factor:
        return True
    return candidate in promotion_order(points)[: math.ceil(len(points) / reduction_factor)]


def expected_training_share(budgets: Sequence[int], reduction_factor: float | None) -> float:
    """Returns the expected training cost per network as a share of a full training.

    Assumes that one of `reduction_factor` networks is promoted at each rung.

    Args:
        budgets: Training images at each scoring, the full budget last.
        reduction_factor: None if all networks are promoted.
    """
    if reduction_factor is None:
        return 1.0
    increments = [high - low for low, high in itertools.pairwise((0, *budgets))]
    return sum(images / reduction_factor**rung for rung, images in enumerate(increments)) / budgets[-1]
