"""Pareto fronts of points. All objectives are maximized."""

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
    """Returns True if `a` is at least as good as `b` in all objectives and better in one of them."""
    return all(x >= y for x, y in zip(a, b, strict=True)) and any(x > y for x, y in zip(a, b, strict=True))


def is_non_dominated(points: Sequence[Point]) -> list[bool]:
    """Returns for each point True if no other point dominates it. Equal points get the same result.

    A point with a NaN is never on the front and dominates no point. With two objectives, the cost is O(n log n), about
    10 ms for 3,000 points. With more objectives, each point is compared with the whole front.
    """
    keep = [False] * len(points)
    front: list[Point] = []
    for i in _descending(points):
        own = points[i]
        keep[i] = not any(dominates(rival, own) for rival in (front[-1:] if len(own) == 2 else front))
        if keep[i]:
            front.append(own)
    return keep


def _descending(points: Sequence[Point]) -> list[int]:
    """Returns the indices of the points without a NaN in descending order. No point is dominated by a later one.

    With two objectives, the second objective increases along a front that is collected in this order. A point that its
    last member does not dominate is dominated by no member.
    """
    whole = [i for i, point in enumerate(points) if all(value == value for value in point)]
    return sorted(whole, key=lambda i: tuple(points[i]), reverse=True)


def non_dominated_ranks(points: Sequence[Point]) -> list[int]:
    """Returns the rank of each point in non-dominated sorting. Rank 0 is the front, rank 1 the front of the rest, etc.

    Equal points have the same rank. Points with a NaN have the last rank. The algorithm finds the front of each point
    by binary search (ENS-BS, Zhang et al. 2015), which needs far fewer comparisons than removing one front at a time.
    With two objectives, each step compares with only one point of a front, so the cost is O(n log n).
    """
    fronts: list[list[Point]] = []
    ranks: dict[int, int] = {}
    # A point that some front dominates is also dominated by all fronts before it.
    for i in _descending(points):
        own = points[i]
        compared = slice(-1, None) if len(own) == 2 else slice(None)
        rank = bisect_left(fronts, True, key=lambda front: not any(dominates(rival, own) for rival in front[compared]))
        if rank == len(fronts):
            fronts.append([])
        fronts[rank].append(own)
        ranks[i] = rank
    return [ranks.get(i, len(fronts)) for i in range(len(points))]


def epsilon_net_order(points: Sequence[Point]) -> list[int]:
    """Returns the indices of a front's points in an order in which every prefix covers the front evenly.

    The first point is the best in the last objective. Each next point is the farthest from all points before it, with
    each objective scaled to the range of `points`. With two objectives, the second point is the other end of the front.
    Ties are broken by the last objective, then by the lower index, so copies of a point come last.

    The order is from MO-ASHA (Schmucker et al. 2021, arXiv 2106.12639), based on Clarkson's farthest-point net. The
    authors' code (syne-tune) starts with the best point in the first objective and does not scale.
    """
    return _farthest_first(_scaled(points), range(len(points)))


def promotion_order(points: Sequence[Point]) -> list[int]:
    """Returns the indices of all points in the order of promotion: by rank, then in the order of an epsilon-net.

    Objectives are scaled to the range of all points, not of each front, so two close points on a front remain close.
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
        # Without rounding, floating-point errors would decide ties.
        gaps = {i: min(gap, round(math.dist(scaled[i], scaled[own]), 12)) for i, gap in gaps.items()}
    return order


def _scaled(points: Sequence[Point]) -> list[Point]:
    """Returns the points with each objective scaled to 0 to 1. Infinite values become 0 or 1, and a NaN becomes 0."""
    columns = []
    for column in zip(*points, strict=True):
        finite = [value for value in column if math.isfinite(value)] or [0.0]
        low, span = min(finite), max(finite) - min(finite) or 1.0
        columns.append([0.0 if value != value else min(max((value - low) / span, 0.0), 1.0) for value in column])
    return list(zip(*columns, strict=True))


def hypervolume(points: Sequence[Point], ref_point: Point) -> float:
    """Returns the area that points with two objectives dominate above `ref_point`.

    Args:
        points: n x 2, both maximized. A point that has a NaN or is not above `ref_point` in both adds nothing.
        ref_point: Lower corner of the area. Choose a lower bound of all points of interest in each objective.
    """
    area, ceiling = 0.0, ref_point[1]
    for x, y in sorted(((x, y) for x, y in points if x > ref_point[0] and y > ref_point[1]), reverse=True):
        if y > ceiling:
            area += (x - ref_point[0]) * (y - ceiling)
            ceiling = y
    return area


def knee(points: Sequence[Point]) -> int:
    """Returns the index of the knee: the non-dominated point farthest above the line between the front's ends.

    The points have two objectives, each scaled to the range of the front. If the front has one or two points, the knee
    is the point with the higher second objective.

    Raises:
        ValueError: The front is empty.
    """
    front = [i for i, on_front in enumerate(is_non_dominated(points)) if on_front]
    if not front:
        raise ValueError("points must contain one without a NaN, but the front is empty")
    low = [min(points[i][axis] for i in front) for axis in (0, 1)]
    high = [max(points[i][axis] for i in front) for axis in (0, 1)]
    span = [top - bottom or 1.0 for bottom, top in zip(low, high, strict=True)]

    def height(i: int) -> tuple[float, float]:
        scaled = [(points[i][axis] - low[axis]) / span[axis] for axis in (0, 1)]
        # Both ends are on the line x + y = 1. Without rounding, floating-point errors would decide ties.
        return round(sum(scaled), 12), points[i][1]

    return max(front, key=height)
