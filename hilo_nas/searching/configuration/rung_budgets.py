"""Budgets of the rungs of a training."""

from __future__ import annotations

import math

from hilo_nas.errors import UsageError

__all__ = ["DEFAULT_RATIO", "rungs_of"]

DEFAULT_RATIO = 3.0
"""Images at a rung over those at the rung before."""


def rungs_of(budget: int, *, count: int = 3, eta: float = 3) -> tuple[int, ...]:
    """Returns the intermediate budgets below a full one, ascending: (budget / eta^2, budget / eta) for a count of 3.

    Whole training images, without repeats, so a small budget has fewer.

    Args:
        budget: The full budget in training images.
        count: How often a training is scored at most, the full budget included; 1 is no rung.
        eta: The ratio from one to the next, above 1.

    Raises:
        UsageError: There is no such division.
    """
    if count < 1:
        raise UsageError(f"the number of rungs must be at least 1, but got {count}. Use 3, or 1 for no halving.")
    if not 1 < eta < math.inf:
        raise UsageError(f"eta must be a number above 1, but got {eta:g}. Use 3, to carry on the best third.")
    found = {max(1, round(budget / eta**power)) for power in range(1, count)}
    return tuple(sorted(images for images in found if images < budget))
