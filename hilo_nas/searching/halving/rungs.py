"""Which networks are trained on: asynchronous successive halving with two objectives, of the stopping type.

A training is scored on the way, at rungs. At each, a network goes on only if it is among the best of all that reached
the rung so far; nobody waits, and one that is stopped does not come back (ASHA: Li et al. 2018, arXiv 1810.05934; of
the stopping type: Klein et al. 2020, arXiv 2003.10865). The best are the first in the order of MO-ASHA (Schmucker et
al. 2021, arXiv 2106.12639): by front, and along a front those first that cover it most evenly. Halving on top-1 alone
would throw away the whole fast end of a front.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence

from hilo_nas.study.pareto import Point, promotion_order

__all__ = ["RungEntry", "RungTable", "expected_share", "goes_on"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RungEntry:
    """One network's arrival at one rung."""

    key: str
    """The subject's."""
    images: int
    """The rung: training images seen."""
    images_per_s: float
    top1: float
    """The proxy's value at this rung."""
    always: bool = False
    """Whether the network goes on whatever its values are, as anchors do; it is compared all the same."""

    @property
    def point(self) -> tuple[float, float]:
        """The objectives, both maximised: speed counts by its logarithm, so twice as fast is as far everywhere."""
        return math.log(self.images_per_s), self.top1


class RungTable:
    """Who reached which rung of a study, with what; and, of a network that just did, whether it goes on.

    The answer depends on the entries alone, not on the order they came in (exact copies of a point apart), so a table
    that is rebuilt from a study's records answers as the one that grew with them. But it holds for the moment: a
    network that went on may be outdone by later ones, so it is asked once, on arrival.

    Args:
        rungs: The intermediate budgets in training images, ascending, without the full one.
        eta: One of how many goes on.
        entries: Those already there.
    """

    def __init__(self, rungs: Sequence[int], eta: float, entries: Iterable[RungEntry] = ()) -> None:
        self.rungs = tuple(rungs)
        self.eta = eta
        self._entries: dict[int, dict[str, RungEntry]] = {images: {} for images in self.rungs}
        for entry in entries:
            self.add(entry)

    def add(self, entry: RungEntry) -> None:
        """Adds an arrival; a network that reached the rung before has its values replaced, not a second entry."""
        self._entries[entry.images][entry.key] = entry

    def goes_on(self, key: str, images: int) -> bool:
        """Returns whether a network that was added at a rung is trained beyond it."""
        arrived = self._entries[images]
        return arrived[key].always or goes_on(self.points_at(images), list(arrived).index(key), self.eta)

    def points_at(self, images: int) -> list[tuple[float, float]]:
        """Returns the objectives of all that reached a rung, in the order of their arrival."""
        return [entry.point for entry in self._entries[images].values()]


def goes_on(points: Sequence[Point], candidate: int, eta: float) -> bool:
    """Returns whether one of the points that reached a rung is among the best 1/eta of them, itself included.

    Up to eta points, all go on: the best third of three is one network, and one cannot stand for a front. Beyond, the
    share is rounded up, so that at least two are kept: the ends of the front, whoever comes first. Syne-tune's
    documentation lets fewer than eta go on, its rule for two objectives the first alone. Being a little kinder to those
    who come early costs about four trainings over 300 arrivals.

    A point with a NaN is a training that came to nothing: it never goes on.

    Args:
        points: Everyone at the rung; all objectives are maximised.
        candidate: The position of the one that is asked about.
        eta: Above 1.
    """
    assert eta > 1
    if any(math.isnan(value) for value in points[candidate]):
        return False
    if len(points) <= eta:
        return True
    return candidate in promotion_order(points)[: math.ceil(len(points) / eta)]


def expected_share(budgets: Sequence[int], eta: float | None) -> float:
    """Returns what training costs on average where one of `eta` networks goes on at each rung, as share of all of it.

    Args:
        budgets: Images seen at each scoring, the full budget last.
        eta: None where all go on.
    """
    if eta is None:
        return 1.0
    legs = [high - low for low, high in itertools.pairwise((0, *budgets))]
    return sum(leg / eta**rung for rung, leg in enumerate(legs)) / budgets[-1]
