"""Curves of replayed searches, areas under the curves, and bootstrap intervals over seeds.

A curve is a step function: the share of the hypervolume found, over the cost. It changes only at the end of a trial.
Intervals are 95 % bootstrap intervals over seeds. All searches use the same resamples. Differences are paired, because
searches with the same seed start alike.

Array names carry a shape suffix: S seeds, R resamples, G grid points.
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
    """Mean over seeds and its 95 % interval. The interval is NaN if there is only one seed."""

    mean: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """Share of the hypervolume that a replay found, over its cost."""

    costs: Sequence[float]
    """Cost after each trial, ascending."""
    shares: Sequence[float]
    """Share after each trial."""

    def share_at(self, cost: float) -> float:
        """Returns the share found at a cost."""
        done = int(np.searchsorted(self.costs, cost * (1 + 1e-12), side="right"))
        return self.shares[done - 1] if done else 0.0

    def cost_of(self, share: float) -> float:
        """Returns the cost at which a share is first reached; infinite if it is never reached."""
        return next((cost for cost, found in zip(self.costs, self.shares, strict=True) if found >= share), math.inf)


def draw_weights(seeds: int, resamples: int = RESAMPLES) -> Floats:
    """Returns [R, S]: the weight of each seed in each resample. The result is deterministic."""
    random = np.random.default_rng(0)
    return random.multinomial(seeds, [1 / seeds] * seeds, size=resamples) / seeds


def spread(values_S: Sequence[float], weights_RS: Floats) -> Spread:
    """Returns the mean over seeds with its interval."""
    means_R = weights_RS @ np.asarray(values_S)
    return Spread(mean=float(np.mean(values_S)), **_ends(means_R, len(values_S)))


def crossing(curves: Sequence[Curve], targets_S: Sequence[float], weights_RS: Floats) -> Spread:
    """Returns the cost at which the mean curve first reaches the mean target; infinite if it never does.

    Curves and targets are averaged over seeds before they are compared, not seed by seed.

    Args:
        curves: Curve of each seed.
        targets_S: Target share of each seed.
        weights_RS: Weights of the seeds in each resample.
    """
    grid_G = np.unique(np.concatenate([np.asarray(curve.costs) for curve in curves]))
    shares_SG = np.stack([_on_grid(curve, grid_G) for curve in curves])
    weights_RS = np.concatenate([np.full((1, len(curves)), 1 / len(curves)), weights_RS])
    reached_RG = weights_RS @ shares_SG >= (weights_RS @ np.asarray(targets_S))[:, None] - 1e-12
    costs_R = np.where(reached_RG.any(axis=1), grid_G[reached_RG.argmax(axis=1)], np.inf)
    return Spread(mean=float(costs_R[0]), **_ends(costs_R[1:], len(curves)))


def area_by_evaluations(steps: Sequence[Step], trials: int) -> float:
    """Returns the mean share over the first `trials` networks."""
    shares = [step.share for step in steps[:trials]]
    return sum(shares) / len(shares)


def area_by_cost(curve: Curve, cost: float) -> float:
    """Returns the mean share over costs from 0 to `cost`."""
    ends = [min(own, cost) for own in (*curve.costs[1:], cost)]
    pieces = zip(curve.costs, ends, curve.shares, strict=True)
    return sum(max(end - start, 0.0) * share for start, end, share in pieces) / cost


def _on_grid(curve: Curve, grid_G: Floats) -> Floats:
    done_G = np.searchsorted(np.asarray(curve.costs), grid_G, side="right")
    return np.concatenate([[0.0], curve.shares])[done_G]


def _ends(values_R: Floats, seeds: int) -> dict[str, float]:
    if seeds == 1:
        return {"low": math.nan, "high": math.nan}
    # No interpolation, because values may be infinite.
    low, high = np.quantile(values_R, [0.025, 0.975], method="nearest")
    return {"low": float(low), "high": float(high)}


def curve_of(replay: Replay, unit: str, scale: float = 1.0) -> Curve:
    """Returns the share of the hypervolume over the cost of a replay.

    Args:
        replay: The replay.
        unit: Field of `Step` with the cost, such as `images` or `seconds`.
        scale: Divisor of the cost.
    """
    return Curve(
        costs=[getattr(step, unit) / scale for step in replay.steps], shares=[step.share for step in replay.steps]
    )
