"""Kendall's tau over selected pairs of networks, with bootstrap intervals over the networks.

Tau is a sum over pairs. A bootstrap that draws networks with replacement therefore needs no loop: a network that is
drawn twice counts twice in each of its pairs. A network never forms a pair with its own copy, because a sample of
different networks has no such ties. One matrix product computes all pairs of all resamples.

Array names carry a shape suffix: N networks, R resamples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LIKE_SPEED",
    "all_pairs",
    "count_pairs",
    "draw_counts",
    "interval",
    "like_speed_pairs",
    "resampled_taus",
    "tau",
]

Floats = NDArray[np.float64]
Pairs = NDArray[np.bool_]
"""Symmetric mask [N, N]: True if two networks are compared."""

LIKE_SPEED = 1.15
"""Largest ratio of the speeds of two networks that count as similarly fast."""


def all_pairs(networks: int) -> Pairs:
    """Returns the mask [N, N] of all pairs of different networks."""
    return ~np.eye(networks, dtype=np.bool_)


def like_speed_pairs(images_per_s_N: Floats, factor: float = LIKE_SPEED) -> Pairs:
    """Returns the mask [N, N] of pairs whose speeds differ by `factor` at most.

    A network with speed NaN is in no pair.
    """
    is_within_NN = images_per_s_N[:, None] / images_per_s_N[None, :] <= factor
    return is_within_NN & is_within_NN.T & all_pairs(len(images_per_s_N))


def tau(first_N: Floats, second_N: Floats, pairs_NN: Pairs) -> float:
    """Returns Kendall's tau-b over the selected pairs.

    Networks with NaN in either array are skipped. With `all_pairs`, the result equals scipy's `kendalltau`. The result
    is NaN if no pair is left, or if one of the arrays ties in all pairs.
    """
    return float(resampled_taus(first_N, second_N, pairs_NN, np.ones((1, len(first_N))))[0])


def resampled_taus(first_N: Floats, second_N: Floats, pairs_NN: Pairs, counts_RN: Floats) -> Floats:
    """Returns tau [R] of each resample.

    The weight of a pair is the product of its networks' counts. The NaN rules are those of `tau`. The cost is three
    matrix products of [R, N] with [N, N].
    """
    compared_NN = _compared(first_N, second_N, pairs_NN)
    first_NN, second_NN = (np.where(compared_NN, _signs(values_N), 0.0) for values_N in (first_N, second_N))
    agreeing_R = _sum_pairs(first_NN * second_NN, counts_RN)
    untied_R = _sum_pairs(np.abs(first_NN), counts_RN) * _sum_pairs(np.abs(second_NN), counts_RN)
    return np.divide(agreeing_R, np.sqrt(untied_R), out=np.full_like(agreeing_R, np.nan), where=untied_R > 0)


def count_pairs(first_N: Floats, second_N: Floats, pairs_NN: Pairs) -> int:
    """Returns the number of selected pairs in which both networks have both values."""
    return int(_compared(first_N, second_N, pairs_NN).sum()) // 2


def draw_counts(networks: int, resamples: int, seed: int) -> Floats:
    """Returns [R, N]: the count of each network in each resample. A resample draws N networks with replacement."""
    random = np.random.default_rng(seed)
    return random.multinomial(networks, np.full(networks, 1 / networks), size=resamples).astype(np.float64)


def interval(samples_R: Floats) -> tuple[float, float]:
    """Returns the 95 % percentile interval of the finite samples; NaN if there is none."""
    known = samples_R[np.isfinite(samples_R)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)


def _compared(first_N: Floats, second_N: Floats, pairs_NN: Pairs) -> Pairs:
    known_N = ~(np.isnan(first_N) | np.isnan(second_N))
    return pairs_NN & known_N[:, None] & known_N[None, :]


def _signs(values_N: Floats) -> Floats:
    # Comparison instead of subtraction, because scores may be infinite.
    return (values_N[:, None] > values_N[None, :]).astype(np.float64) - (values_N[:, None] < values_N[None, :])


def _sum_pairs(values_NN: Floats, counts_RN: Floats) -> Floats:
    """Returns [R]: the weighted sum over pairs, each counted once. The diagonal of the symmetric matrix must be 0."""
    sums_R: Floats = ((counts_RN @ values_NN) * counts_RN).sum(axis=1) / 2
    return sums_R
