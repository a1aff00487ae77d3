"""Scatter plots of speeds and values as text."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hilo_nas.proxy.kinds import Metric
from hilo_nas.text.figures import figure

__all__ = ["render_scatter"]

_FRONT, _OTHER = "●", "·"


def render_scatter(
    others: Iterable[tuple[float, float]],
    front: Iterable[tuple[float, float]],
    metric: Metric,
    *,
    width: int,
    height: int,
) -> list[str]:
    """Returns lines of text with a point per network: the speed to the right, on a log scale, the value upwards.

    Args:
        others: Images/s and value of networks that are not on the front.
        front: Images/s and value of the members of the front. They cover other points.
        metric: Metric of the values.
        width: Number of columns, at least 30.
        height: Number of lines, at least 4. The last one is the axis.
    """
    marks = [(speed, value, _OTHER) for speed, value in others] + [(speed, value, _FRONT) for speed, value in front]
    marks = [mark for mark in marks if mark[0] > 0 and math.isfinite(mark[1])]
    if not marks:
        return []
    xs, ys = [math.log(speed) for speed, _, _ in marks], [value for _, value, _ in marks]
    top, bottom = metric.text(max(ys)), metric.text(min(ys))
    margin = max(len(top), len(bottom)) + 1
    columns, rows = width - margin - 1, height - 1
    grid = [[" "] * columns for _ in range(rows)]
    for x, y, (_, _, sign) in zip(xs, ys, marks, strict=True):
        grid[rows - 1 - _place(y, ys, rows)][_place(x, xs, columns)] = sign
    labels = [top, *[""] * (rows - 2), bottom]
    lines = [f"{label:>{margin - 1}} │{''.join(row).rstrip()}" for label, row in zip(labels, grid, strict=True)]
    left, right = figure(math.exp(min(xs)), 3), f"{figure(math.exp(max(xs)), 3)} images/s"
    axis = left + right.rjust(max(columns - len(left), len(right) + 1))
    return [*lines, f"{'':>{margin - 1}} └{axis}"]


def _place(value: float, values: list[float], cells: int) -> int:
    """Returns the cell of a value between the lowest and the highest one."""
    low, high = min(values), max(values)
    return 0 if high <= low else round((value - low) / (high - low) * (cells - 1))
