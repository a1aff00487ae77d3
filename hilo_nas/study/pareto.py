"""Pareto fronts of plain points; every objective is maximised."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

__all__ = [
    "dominates",
    "epsilon_net_order",
    "hypervolume",
    "is_non_dominated",
    "knee",
    "non_dominated_ranks",
    "promotion_order",
]

Point = Sequence[float]


def dominates(a: Point, b: Point) -> bool:
    """Returns whether `a` is at least as good as `b` everywhere and better somewhere."""
    return all(x >= y for x, y in zip(a, b, strict=True)) and any(x > y for x, y in zip(a, b, strict=True))


def is_non_dominated(points: Sequence[Point]) -> list[bool]:
    """Returns for each point whether no other dominates it; equal points stand together.

    A point with a NaN is never on the front and dominates none. Two objectives take O(n log n): 3,000 points about
    10 ms. More objectives compare each point with the whole front.
    """
    keep = [False] * len(points)
    front: list[Point] = []
    for i in _falling(points):
        own = points[i]
        keep[i] = not any(dominates(rival, own) for rival in (front[-1:] if len(own) == 2 else front))
        if keep[i]:
            front.append(own)
    return keep


def _falling(points: Sequence[Point]) -> list[int]:
    """Positions of the points without a NaN in falling order, in which no point is beaten by a later one.

    Of two objectives, the second rises along a front that is gathered in this order: who is not beaten by its last
    point is beaten by none.
    """
    whole = [i for i, point in enumerate(points) if all(value == value for value in point)]
    return sorted(whole, key=lambda i: tuple(points[i]), reverse=True)


def non_dominated_ranks(points: Sequence[Point]) -> list[int]:
    """Returns for each point which front it is on: 0 is the front, 1 the front of what is left without that, and so on.

    Equal points share a rank. Points with a NaN share the last. A point looks for its front by halving (ENS-BS, Zhang
    et al. 2015), so 300 random points take a fraction of the comparisons that peeling front by front would. With two
    objectives a front is asked once, so that n points take O(n log n).
    """
    fronts: list[list[Point]] = []
    ranks: dict[int, int] = {}
    # What a front beats, all fronts before it beat too.
    for i in _falling(points):
        own = points[i]
        asked = slice(-1, None) if len(own) == 2 else slice(None)
        rank = bisect_left(fronts, True, key=lambda front: not any(dominates(rival, own) for rival in front[asked]))
        if rank == len(fronts):
            fronts.append([])
        fronts[rank].append(own)
        ranks[i] = rank
    return [ranks.get(i, len(fronts)) for i in range(len(points))]


def epsilon_net_order(points: Sequence[Point]) -> list[int]:
    """Returns the positions of a front's points so that any first few of them cover the front as evenly as they can.

    The first is the best in the last objective; each next is the point farthest from those before it, every objective
    scaled to the range of `points`. Of two objectives, the second point is then always the front's other end: along a
    front nothing is farther from an end in either objective. A beginning in the middle would spend the first place on a
    compromise. Ties go to the better last objective, then to the earlier position, so copies of a point come last.

    The order is MO-ASHA's (Schmucker et al. 2021, arXiv 2106.12639), after Clarkson's farthest-point net; the authors'
    code (syne-tune) begins with the best in the first objective and does not scale.
    """
    return _farthest_first(_scaled(points), range(len(points)))


def promotion_order(points: Sequence[Point]) -> list[int]:
    """Returns all positions, those first that are most worth carrying on: by rank, within a rank as an epsilon-net.

    Objectives are scaled to the range of all the points, not of each front: two near points on a front stay near.
    """
    ranks, scaled = non_dominated_ranks(points), _scaled(points)
    order: list[int] = []
    for rank in sorted(set(ranks)):
        order += _farthest_first(scaled, [i for i, own in enumerate(ranks) if own == rank])
    return order


def _farthest_first(scaled: Sequence[Point], members: Sequence[int]) -> list[int]:
    gaps = dict.fromkeys(members, math.inf)
    order: list[int] = []
    while gaps:
        own = max(gaps, key=lambda i: (gaps[i], scaled[i][-1]))
        order.append(own)
        del gaps[own]
        # Rounding keeps ties from hanging on the last bit.
        gaps = {i: min(gap, round(math.dist(scaled[i], scaled[own]), 12)) for i, gap in gaps.items()}
    return order


def _scaled(points: Sequence[Point]) -> list[Point]:
    """Returns the points on a scale of 0 to 1 in each objective; infinite values lie at its ends, a NaN at 0."""
    columns = []
    for column in zip(*points, strict=True):
        finite = [value for value in column if math.isfinite(value)] or [0.0]
        low, span = min(finite), max(finite) - min(finite) or 1.0
        columns.append([0.0 if value != value else min(max((value - low) / span, 0.0), 1.0) for value in column])
    return list(zip(*columns, strict=True))


def hypervolume(points: Sequence[Point], ref_point: Point) -> float:
    """Returns the area that two-objective points dominate above `ref_point`.

    Args:
        points: n x 2, both maximised. Points that are not above `ref_point` in both, or have a NaN, add nothing.
        ref_point: The corner that the area is taken from: in each objective, what no point of interest is below.
    """
    area, ceiling = 0.0, ref_point[1]
    for x, y in sorted(((x, y) for x, y in points if x > ref_point[0] and y > ref_point[1]), reverse=True):
        if y > ceiling:
            area += (x - ref_point[0]) * (y - ceiling)
            ceiling = y
    return area


def knee(points: Sequence[Point]) -> int:
    """Returns the index of the front's knee: the non-dominated point farthest above the line between the front's ends.

    Two objectives, each scaled to the front's own range. A front of one or two points has its knee at the point with
    the higher second objective.

    Raises:
        ValueError: There is no point on the front.
    """
    front = [i for i, on_front in enumerate(is_non_dominated(points)) if on_front]
    if not front:
        raise ValueError("the front holds no point")
    low = [min(points[i][axis] for i in front) for axis in (0, 1)]
    high = [max(points[i][axis] for i in front) for axis in (0, 1)]
    span = [top - bottom or 1.0 for bottom, top in zip(low, high, strict=True)]

    def height(i: int) -> tuple[float, float]:
        scaled = [(points[i][axis] - low[axis]) / span[axis] for axis in (0, 1)]
        # Both ends lie on the line x + y = 1; rounding keeps ties from hanging on the last bit.
        return round(sum(scaled), 12), points[i][1]

    return max(front, key=height)
