"""Agreement of two rankings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

__all__ = ["kendall_tau"]


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Returns Kendall's tau-b of two lists of values for the same things.

    It is 1 where both order all pairs alike, -1 where each pair is turned, about 0 where the orders have nothing in
    common. Ties count against it unless both have them (Kendall 1945). NaN where a list is all ties or holds fewer than
    two values. Takes every pair, so its cost grows with the square of the length.
    """
    agreeing = untied_first = untied_second = 0
    for (a, b), (c, d) in itertools.combinations(zip(first, second, strict=True), 2):
        x, y = (a > c) - (a < c), (b > d) - (b < d)
        agreeing += x * y
        untied_first += x != 0
        untied_second += y != 0
    pairs = math.sqrt(untied_first * untied_second)
    return agreeing / pairs if pairs else math.nan
