"""Pareto fronts of plain points; every objective is maximised."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["dominates", "hypervolume", "is_non_dominated", "knee"]

Point = Sequence[float]


def dominates(a: Point, b: Point) -> bool:
    """Returns whether `a` is at least as good as `b` everywhere and better somewhere."""
    return all(x >= y for x, y in zip(a, b, strict=True)) and any(x > y for x, y in zip(a, b, strict=True))


def is_non_dominated(points: Sequence[Point]) -> list[bool]:
    """Returns for each point whether no other dominates it; equal points stand together. Takes n^2 comparisons.

    A point with a NaN is never on the front and dominates none.
    """
    whole = [all(value == value for value in point) for point in points]
    rivals = [point for point, is_whole in zip(points, whole, strict=True) if is_whole]
    return [
        is_whole and not any(dominates(rival, point) for rival in rivals)
        for point, is_whole in zip(points, whole, strict=True)
    ]


def hypervolume(points: Sequence[Point], ref_point: Point) -> float:
    """Returns the area that two-objective points dominate above `ref_point`; points below it, or NaN, add nothing."""
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
