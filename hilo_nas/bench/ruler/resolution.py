"""What repeated passes over the same networks say of a ruler: how its results scatter, which speeds it tells apart.

A pass gives each network one speed. Anchored speeds (images/s) wander with whatever hits the reference; what ranking
uses is a network's speed over the geometric mean of all in the same pass, here called relative.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hilo_nas.bench.kendall_tau import all_pairs, tau
from hilo_nas.measurement import rounds

__all__ = ["STATISTICS", "Resolution", "compare_statistics", "cv", "relative", "resolve"]

Speeds = Mapping[str, float]
"""Speed of each network in one pass, in any unit."""
Samples = Mapping[str, Sequence[float]]
"""Seconds of each network in one pass, a value per round; all in the same rounds, the reference among them."""

_SURE = statistics.NormalDist().inv_cdf(0.975)

STATISTICS: dict[str, Callable[[Sequence[float], Sequence[float]], float]] = {
    "mean": lambda own, other: statistics.fmean(other) / statistics.fmean(own),
    "median of ratios": lambda own, other: statistics.median(b / a for a, b in zip(own, other, strict=True)),
    "ratio of minima": lambda own, other: min(other) / min(own),
    "fast rounds": rounds.ratio,
}
"""Ways to say from paired rounds how many times as fast as another a network is; the last is the one in use."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resolution:
    """How well passes over the same networks agree. Coefficients of variation are shares: 0.01 is one per cent."""

    cv_anchored_median: float
    """Coefficient of variation between passes of a network's anchored speed: median over the networks."""
    cv_anchored_max: float
    cv_relative_median: float
    """The same of the speed over the mean of the pass, which is what ranking uses."""
    cv_relative_max: float
    tau_mean: float
    """Kendall's tau between every two passes."""
    tau_min: float

    @property
    def smallest_ratio(self) -> float:
        """How many times as fast as another a network must be to be told apart from it in one pass, at 95 %."""
        return math.exp(_SURE * math.sqrt(2) * self.cv_relative_median)


def resolve(passes: Sequence[Speeds]) -> Resolution:
    """Returns how well passes over the same networks agree; takes at least two of either."""
    names = list(passes[0])
    anchored = [cv([speeds[name] for speeds in passes]) for name in names]
    centred = [relative(speeds) for speeds in passes]
    cvs = [cv([speeds[name] for speeds in centred]) for name in names]
    values = [np.array([speeds[name] for name in names]) for speeds in passes]
    pairs = all_pairs(len(names))
    taus = [tau(first, second, pairs) for first, second in itertools.combinations(values, 2)]
    return Resolution(
        cv_anchored_median=statistics.median(anchored),
        cv_anchored_max=max(anchored),
        cv_relative_median=statistics.median(cvs),
        cv_relative_max=max(cvs),
        tau_mean=statistics.fmean(taus),
        tau_min=min(taus),
    )


def cv(values: Sequence[float]) -> float:
    """Returns the coefficient of variation: the standard deviation over the mean."""
    return statistics.stdev(values) / statistics.fmean(values)


def relative(speeds: Speeds) -> dict[str, float]:
    """Returns each speed over the geometric mean of all."""
    mean = statistics.geometric_mean(list(speeds.values()))
    return {name: speed / mean for name, speed in speeds.items()}


def compare_statistics(passes: Sequence[Samples], reference: str) -> dict[str, Resolution]:
    """Returns what each of `STATISTICS` would make of the same samples.

    Anchored is a network beside the reference; relative and tau are beside the mean of the round.

    Args:
        passes: The samples, the reference's under its name among them.
        reference: That name.
    """
    found = {}
    for name, statistic in STATISTICS.items():
        beside_reference, beside_round = [], []
        for samples in passes:
            own = {network: rounds for network, rounds in samples.items() if network != reference}
            of_round = [statistics.geometric_mean(seconds) for seconds in zip(*own.values(), strict=True)]
            beside_reference.append({network: statistic(rounds, samples[reference]) for network, rounds in own.items()})
            beside_round.append({network: statistic(rounds, of_round) for network, rounds in own.items()})
        anchored, centred = resolve(beside_reference), resolve(beside_round)
        found[name] = dataclasses.replace(
            centred, cv_anchored_median=anchored.cv_anchored_median, cv_anchored_max=anchored.cv_anchored_max
        )
    return found
