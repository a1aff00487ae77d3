"""Training budgets of the rungs."""

from __future__ import annotations

import math

from hilo_nas.errors import UsageError

__all__ = ["DEFAULT_RATIO", "rungs_of"]

DEFAULT_RATIO = 3.0
"""Training images at a rung divided by those at the previous rung."""


def rungs_of(budget: int, *, count: int = 3, ratio: float = 3) -> tuple[int, ...]:
    """Returns the intermediate budgets below the full one, ascending, in whole training images.

    For a count of 3 these are budget / ratio^2 and budget / ratio: a budget of 9,000 images and a ratio of 3 give
    (1000, 3000). A small budget has fewer rungs, because duplicates are removed.

    Args:
        budget: The full budget in training images.
        count: Maximum number of scores per training, including the full budget. 1 means no rungs.
        ratio: Ratio of consecutive budgets, above 1.

    Raises:
        UsageError: The count or the ratio is out of range.
    """
    if count < 1:
        raise UsageError(f"proxy.rungs must be at least 1, but got {count}. Use 3, or 1 for no halving.")
    if not 1 < ratio < math.inf:
        raise UsageError(f"proxy.rung_ratio must be a number above 1, but got {ratio:g}. Use 3.")
    found = {max(1, round(budget / ratio**power)) for power in range(1, count)}
    return tuple(sorted(images for images in found if images < budget))
