"""Timing resolution from repeated timings of the same networks: scatter, and the smallest measurable difference.

A pass is one timing of all networks. Anchored speeds (images/s) are multiples of the reference network's speed, so they
change with any disturbance of the reference. Ranking uses relative speeds: a network's speed divided by the geometric
mean of all networks in the same pass.
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

__all__ = ["STATISTICS", "Resolution", "compare_statistics", "cv", "relative", "summarize_passes"]

Speeds = Mapping[str, float]
"""Speed of each network in one pass, in any unit."""
Samples = Mapping[str, Sequence[float]]
"""Seconds per round of each network in one pass, including the reference. All share the same rounds."""

_Z_95 = statistics.NormalDist().inv_cdf(0.975)

STATISTICS: dict[str, Callable[[Sequence[float], Sequence[float]], float]] = {
    "mean": lambda own, other: statistics.fmean(other) / statistics.fmean(own),
    "median of ratios": lambda own, other: statistics.median(b / a for a, b in zip(own, other, strict=True)),
    "ratio of minima": lambda own, other: min(other) / min(own),
    "fast rounds": rounds.ratio,
}
"""Statistics that estimate the ratio of two speeds from paired rounds, by name. `Measurement.ratio` uses the last
one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resolution:
    """Agreement of passes over the same networks. Coefficients of variation are fractions: 0.01 is one percent."""

    cv_anchored_median: float
    """Coefficient of variation of a network's anchored speed between passes, as the median over networks."""
    cv_anchored_max: float
    cv_relative_median: float
    """Coefficient of variation of relative speeds, which ranking uses, as the median over networks."""
    cv_relative_max: float
    tau_mean: float
    """Mean of Kendall's tau between the speeds of every two passes. 1 if all passes rank the networks equally."""
    tau_min: float

    @property
    def smallest_ratio(self) -> float:
        """Smallest ratio of two speeds that one pass distinguishes with 95 % confidence."""
        return math.exp(_Z_95 * math.sqrt(2) * self.cv_relative_median)


def summarize_passes(passes: Sequence[Speeds]) -> Resolution:
    """Returns the agreement of passes over the same networks. Needs at least two passes and two networks."""
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
    """Returns the coefficient of variation: the standard deviation divided by the mean."""
    return statistics.stdev(values) / statistics.fmean(values)


def relative(speeds: Speeds) -> dict[str, float]:
    """Returns each speed divided by the geometric mean of all speeds, by network."""
    mean = statistics.geometric_mean(list(speeds.values()))
    return {name: speed / mean for name, speed in speeds.items()}


def compare_statistics(passes: Sequence[Samples], reference: str) -> dict[str, Resolution]:
    """Returns the resolution with each of `STATISTICS`, from the same samples.

    Anchored speeds are relative to the reference. Relative speeds and tau are relative to the mean of the round.

    Args:
        passes: Samples of each pass, including those of the reference.
        reference: Name of the reference in the samples.
    """
    found = {}
    for name, statistic in STATISTICS.items():
        to_reference, to_round = [], []
        for samples in passes:
            own = {network: rounds for network, rounds in samples.items() if network != reference}
            round_means = [statistics.geometric_mean(seconds) for seconds in zip(*own.values(), strict=True)]
            to_reference.append({network: statistic(rounds, samples[reference]) for network, rounds in own.items()})
            to_round.append({network: statistic(rounds, round_means) for network, rounds in own.items()})
        anchored, centred = summarize_passes(to_reference), summarize_passes(to_round)
        found[name] = dataclasses.replace(
            centred, cv_anchored_median=anchored.cv_anchored_median, cv_anchored_max=anchored.cv_anchored_max
        )
    return found
