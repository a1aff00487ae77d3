"""Intervals and errors of speeds.

The interval of a speed in images/s has three sources, which are added as independent errors:

1. The rounds: `interval` draws the paired rounds of a network and the reference again and again (bootstrap) and takes
   the 2.5th and the 97.5th percentile of `rounds.ratio`. `Measurement.ratio_low` and `ratio_high` store it.
2. Other processes: a share of lost cores is an error of the speed (`contention`).
3. The calibration of the reference network in images/s: `study.calibration`. All speeds of a study share this error, so
   comparisons of two networks leave it out.

`Measurement.images_per_s_interval` joins them. `text.figures.with_spread` prints them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

from hilo_nas.measurement.rounds import Rounds, fast_places, ratio

if TYPE_CHECKING:
    from hilo_nas.measurement.timing_result import Measurement

__all__ = ["Z95", "error_apart", "interval", "normal_above_zero", "probability_faster", "standard_error"]

Z95 = 1.96
"""Half-width of the 95 % interval of a normal distribution, in standard errors."""
_RESAMPLES = 300
"""Number of bootstrap samples."""


def interval(own: Rounds, other: Rounds, *, share: float = 0.95) -> tuple[float, float]:
    """Returns the bootstrap interval of `ratio`, from resampled pairs of rounds.

    The samples are rounds, not calls, because a disturbance slows down all calls of a block together. They are pairs
    because a disturbance can affect both networks of a round. The interval excludes changes between timings.
    """
    ratios = sorted(_resampled(own, other, ratio))
    cut = (1 - share) / 2
    return ratios[math.floor(cut * len(ratios))], ratios[math.ceil((1 - cut) * len(ratios)) - 1]


def standard_error(own: Rounds, other: Rounds) -> float:
    """Returns the bootstrap standard error of log(`ratio`), which is approximately the relative error of `ratio`."""
    import numpy as np  # for speed: a front of 3,000 networks needs hundreds of calls

    if len(own) != len(other):
        raise ValueError(f"rounds must be paired, but got {len(own)} and {len(other)}")
    places, (first, last) = np.array(_draw_places(len(own))), fast_places(len(own))
    fast = [np.sort(np.asarray(rounds)[places], axis=1)[:, first:last].mean(axis=1) for rounds in (own, other)]
    return float(np.log(fast[1] / fast[0]).std())


def error_apart(shared: Measurement) -> float:
    """Returns the part of the relative standard error of a speed ratio that the shared rounds do not show.

    This part comes from other processes on the cores, because they slow down each network by a different factor.

    Args:
        shared: Measurement of one of the two networks, with the device state during their rounds.
    """
    return 0.0 if shared.contention is None else shared.contention.relative_error_between


def probability_faster(own: Rounds, other: Rounds, apart: float = 0.0) -> float:
    """Returns the probability that a network is faster than another one, from paired rounds.

    It assumes a normal distribution of log(`ratio`) with the bootstrap standard error. The share of 300 bootstrap
    samples could not distinguish 0.999 from 1.

    Args:
        own: Rounds of the network.
        other: Rounds of the other network.
        apart: Relative standard error that the rounds do not show, from `error_apart`.
    """
    return normal_above_zero(math.log(ratio(own, other)), math.hypot(standard_error(own, other), apart))


def normal_above_zero(mean: float, deviation: float) -> float:
    """Returns the probability that a normally distributed value is above 0. If mean and deviation are 0, it is 0.5."""
    if deviation <= 0:
        return 0.5 if mean == 0 else float(mean > 0)
    return 0.5 * (1 + math.erf(mean / deviation / math.sqrt(2)))


def _resampled(own: Rounds, other: Rounds, statistic: Callable[[Rounds, Rounds], float]) -> list[float]:
    pairs = list(zip(own, other, strict=True))
    return [statistic([pairs[i][0] for i in drawn], [pairs[i][1] for i in drawn]) for drawn in _draw_places(len(pairs))]


@functools.lru_cache(maxsize=64)
def _draw_places(rounds: int) -> Sequence[Sequence[int]]:
    """Returns the round indices of each bootstrap sample. A fixed seed makes intervals reproducible."""
    random = Random(0)
    return [random.choices(range(rounds), k=rounds) for _ in range(_RESAMPLES)]
