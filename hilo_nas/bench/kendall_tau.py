"""Kendall's tau among chosen pairs of networks, and how it scatters where other networks had been drawn: on arrays.

A tau is a sum over pairs, so a bootstrap that draws networks with replacement needs no loop: a network that was drawn
twice counts twice in each of its pairs. It never forms a pair with its own copy, which would be a tie that no sample of
different networks holds. All resamples of all pairs are one product of matrices.

Arrays carry a shape suffix: N networks, R resamples.
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
"""[N, N], symmetric: whether two networks are compared."""

LIKE_SPEED = 1.15
"""Two networks are of like speed where neither is more than so many times as fast as the other."""


def all_pairs(networks: int) -> Pairs:
    """Returns [N, N]: every network with every other."""
    return ~np.eye(networks, dtype=np.bool_)


def like_speed_pairs(images_per_s_N: Floats, factor: float = LIKE_SPEED) -> Pairs:
    """Returns [N, N]: the pairs whose speeds differ by no more than the factor; a speed of NaN is like no other."""
    is_within_NN = images_per_s_N[:, None] / images_per_s_N[None, :] <= factor
    return is_within_NN & is_within_NN.T & all_pairs(len(images_per_s_N))


def tau(first_N: Floats, second_N: Floats, pairs_NN: Pairs) -> float:
    """Returns Kendall's tau-b among the pairs given; networks that lack either value (NaN) are left out.

    With `all_pairs` it is that of scipy's `kendalltau`. NaN where no pair is left, or where either value ties in
    all of them.
    """
    return float(resampled_taus(first_N, second_N, pairs_NN, np.ones((1, len(first_N))))[0])


def resampled_taus(first_N: Floats, second_N: Floats, pairs_NN: Pairs, counts_RN: Floats) -> Floats:
    """Returns [R]: tau in each resample; a pair weighs the product of its networks' counts.

    NaN as in `tau`. Costs three products of [R, N] with [N, N].
    """
    compared_NN = _compared(first_N, second_N, pairs_NN)
    first_NN, second_NN = (np.where(compared_NN, _signs(values_N), 0.0) for values_N in (first_N, second_N))
    agreeing_R = _sum_pairs(first_NN * second_NN, counts_RN)
    untied_R = _sum_pairs(np.abs(first_NN), counts_RN) * _sum_pairs(np.abs(second_NN), counts_RN)
    return np.divide(agreeing_R, np.sqrt(untied_R), out=np.full_like(agreeing_R, np.nan), where=untied_R > 0)


def count_pairs(first_N: Floats, second_N: Floats, pairs_NN: Pairs) -> int:
    """Returns how many of the pairs given have both values."""
    return int(_compared(first_N, second_N, pairs_NN).sum()) // 2


def draw_counts(networks: int, resamples: int, seed: int) -> Floats:
    """Returns [R, N]: how often each network stands in each resample of as many networks, drawn with replacement."""
    random = np.random.default_rng(seed)
    return random.multinomial(networks, np.full(networks, 1 / networks), size=resamples).astype(np.float64)


def interval(samples_R: Floats) -> tuple[float, float]:
    """Returns the percentile interval of 95 %; resamples without a value are left out, NaN where none has one."""
    known = samples_R[np.isfinite(samples_R)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)


def _compared(first_N: Floats, second_N: Floats, pairs_NN: Pairs) -> Pairs:
    known_N = ~(np.isnan(first_N) | np.isnan(second_N))
    return pairs_NN & known_N[:, None] & known_N[None, :]


def _signs(values_N: Floats) -> Floats:
    # Compared rather than subtracted: a score may be infinite, and is then more or less than any other.
    return (values_N[:, None] > values_N[None, :]).astype(np.float64) - (values_N[:, None] < values_N[None, :])


def _sum_pairs(values_NN: Floats, counts_RN: Floats) -> Floats:
    """The weighted sum over pairs, each taken once; the diagonal of a symmetric matrix of pairs is 0."""
    sums_R: Floats = ((counts_RN @ values_NN) * counts_RN).sum(axis=1) / 2
    return sums_R
