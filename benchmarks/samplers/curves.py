"""Curves of replayed searches: shares found by when, areas under them, and how both scatter from seed to seed.

A curve is a step function: what is found stays found until the next trial is over. Every interval is a bootstrap over
seeds, 95 %, and the same resamples serve all searches, which start alike with the same seed: differences are paired.

Arrays carry a shape suffix: S seeds, R resamples, G points of a grid.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.samplers.replay import Replay, Step

__all__ = ["Curve", "Spread", "area_by_cost", "area_by_evaluations", "crossing", "curve_of", "draw_weights", "spread"]

Floats = NDArray[np.float64]
RESAMPLES = 2_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spread:
    """A mean over seeds and its 95 % interval; NaN for what one seed cannot tell."""

    mean: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """What one replay had found by when."""

    costs: Sequence[float]
    """After each trial; ascending."""
    shares: Sequence[float]

    def share_at(self, cost: float) -> float:
        """Returns the share found with no more than that cost."""
        done = int(np.searchsorted(self.costs, cost * (1 + 1e-12), side="right"))
        return self.shares[done - 1] if done else 0.0

    def cost_of(self, share: float) -> float:
        """Returns the cost at which that share was first found; infinite where it never was."""
        return next((cost for cost, found in zip(self.costs, self.shares, strict=True) if found >= share), math.inf)


def draw_weights(seeds: int, resamples: int = RESAMPLES) -> Floats:
    """Returns [R, S]: how much each seed weighs in each resample; the same for the same numbers."""
    random = np.random.default_rng(0)
    return random.multinomial(seeds, [1 / seeds] * seeds, size=resamples) / seeds


def spread(values_S: Sequence[float], weights_RS: Floats) -> Spread:
    """Returns the mean of a value per seed with its interval."""
    means_R = weights_RS @ np.asarray(values_S)
    return Spread(mean=float(np.mean(values_S)), **_ends(means_R, len(values_S)))


def crossing(curves: Sequence[Curve], targets_S: Sequence[float], weights_RS: Floats) -> Spread:
    """Returns the cost at which the curves' mean first reaches the targets' mean; infinite where it never does.

    Means are compared with means: a search that is compared with itself crosses where its target was taken.

    Args:
        curves: One for each seed.
        targets_S: A share for each seed.
        weights_RS: Resamples of the seeds.
    """
    grid_G = np.unique(np.concatenate([np.asarray(curve.costs) for curve in curves]))
    shares_SG = np.stack([_on_grid(curve, grid_G) for curve in curves])
    weights_RS = np.concatenate([np.full((1, len(curves)), 1 / len(curves)), weights_RS])
    reached_RG = weights_RS @ shares_SG >= (weights_RS @ np.asarray(targets_S))[:, None] - 1e-12
    costs_R = np.where(reached_RG.any(axis=1), grid_G[reached_RG.argmax(axis=1)], np.inf)
    return Spread(mean=float(costs_R[0]), **_ends(costs_R[1:], len(curves)))


def area_by_evaluations(steps: Sequence[Step], trials: int) -> float:
    """Returns the mean of the shares found after each of the first so many networks."""
    shares = [step.share for step in steps[:trials]]
    return sum(shares) / len(shares)


def area_by_cost(curve: Curve, cost: float) -> float:
    """Returns the share found, averaged over the cost from 0 to the one given."""
    ends = [min(own, cost) for own in (*curve.costs[1:], cost)]
    pieces = zip(curve.costs, ends, curve.shares, strict=True)
    return sum(max(end - start, 0.0) * share for start, end, share in pieces) / cost


def _on_grid(curve: Curve, grid_G: Floats) -> Floats:
    done_G = np.searchsorted(np.asarray(curve.costs), grid_G, side="right")
    return np.concatenate([[0.0], curve.shares])[done_G]


def _ends(values_R: Floats, seeds: int) -> dict[str, float]:
    if seeds == 1:
        return {"low": math.nan, "high": math.nan}
    # No interpolation: between a number and an infinite one there is nothing.
    low, high = np.quantile(values_R, [0.025, 0.975], method="nearest")
    return {"low": float(low), "high": float(high)}


def curve_of(replay: Replay, unit: str, scale: float = 1.0) -> Curve:
    """Returns a replay's curve over a field of `Step`, in parts of a scale."""
    return Curve(
        costs=[getattr(step, unit) / scale for step in replay.steps], shares=[step.share for step in replay.steps]
    )
