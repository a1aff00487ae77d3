"""Agreement of cheap proxies with long trainings in how they rank networks.

A search compares networks at a given speed, so it needs a proxy to rank networks that are equally fast. Each agreement
is therefore computed twice: over all pairs, and over pairs of similar speed. Over all pairs, the number of parameters
looks good because it separates large networks from small ones.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from hilo_nas.bench.kendall_tau import (
    Floats,
    Pairs,
    all_pairs,
    count_pairs,
    draw_counts,
    interval,
    like_speed_pairs,
    resampled_taus,
    tau,
)
from hilo_nas.errors import MeasurementError

__all__ = [
    "BASELINES",
    "LIKELIHOOD",
    "SPEED",
    "Agreement",
    "CheckedNetwork",
    "Estimate",
    "ProxyAgreement",
    "Taus",
    "agree",
]

BASELINES = ("params", "macs")
"""Proxies without cost. Every other proxy is compared with them."""
LIKELIHOOD = "likelihood"
"""Prefix of the proxy `likelihood@IMAGES`: exp(-loss) of a training on the held-out images, which is the geometric mean
of the probability of the true class."""
SPEED = "images_per_s"
"""Name of the measured speed as a proxy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckedNetwork:
    """One network with its proxies and long trainings."""

    key: str
    images_per_s: float
    """Measured speed, or NaN if the network was not timed. It is compared with the long training like a proxy: its
    Kendall's tau is usually negative, because slower networks are usually better."""
    long: tuple[float, ...]
    """Top-1 of each long training in the order of seeds. Empty if none succeeded."""
    long_seconds: float
    """Duration of this network's first long training, in seconds."""
    proxies: Mapping[str, float]
    """Proxy values by name: top-1 or likelihood of a training after a budget, or a training-free score. Higher is
    better (params and macs are the plain counts). If a value is missing or NaN, only that proxy skips the network."""
    seconds: Mapping[str, float]
    """Cost of each proxy in seconds, by name. Proxies without a known cost are missing."""
    target: float | None = None
    """Top-1 of a long training at the target's image size; None without a target."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A tau or a difference of two taus, with a 95 % interval from resampled networks. NaN if undefined."""

    value: float
    low: float
    high: float
    pairs: int
    """Number of compared pairs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Taus:
    """Kendall's tau, or a difference of two taus, over all pairs of networks and over pairs of similar speed."""

    overall: Estimate
    like_speed: Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProxyAgreement:
    """Agreement of one proxy with the long training."""

    name: str
    is_budget: bool
    """True if the proxy is the score of a short training."""
    networks: int
    """Number of networks for which the proxy has a value."""
    tau: Taus
    """Kendall's tau between the proxy and the first long training of each network."""
    gains: Mapping[str, Taus]
    """Tau of this proxy minus the tau of another proxy, by the name of the other, such as `params`. The others are
    params and macs. A budget is also compared with all other budgets. Only networks with values of both proxies count,
    and both taus use the same resamples."""
    tau_to_mean: Taus | None
    """Tau between the proxy and the mean of the first two long trainings, over networks that have two; None if no
    network has two."""
    tau_to_target: Taus | None
    """Tau between the proxy and the long training at the target's image size; None without a target."""
    seconds: float
    """Mean cost of the proxy in seconds per network; NaN if it is unknown."""
    cost_share: float
    """Cost of the proxy divided by that of one long training of the same networks; NaN if it is unknown."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement of all proxies with the long training."""

    networks: tuple[CheckedNetwork, ...]
    """Networks with a long training. All others are left out."""
    proxies: tuple[ProxyAgreement, ...]
    ceiling: Taus | None
    """Noise ceiling: tau between the first two long trainings, which differ in their seed only. A proxy with less noise
    than a long training can exceed it. None if no network has two long trainings."""
    long_to_target: Taus | None
    """Tau between the first long training and the one at the target's image size; None without a target."""
    top1_low: float
    """Minimum top-1 of the first long trainings."""
    top1_high: float
    """Maximum top-1 of the first long trainings."""
    long_seconds: float
    """Mean duration of one long training in seconds."""
    seed: int
    """Seed of the resamples."""
    resamples: int
    """Number of resamples."""

    @property
    def budgets(self) -> tuple[ProxyAgreement, ...]:
        """Proxies that are scores of short trainings, the cheapest first."""
        return tuple(proxy for proxy in self.proxies if proxy.is_budget)

    def score_before(self, budget: ProxyAgreement) -> ProxyAgreement | None:
        """Returns the score before `budget` at the same number of images; None for the first.

        For `likelihood@4608`, it is `top1@4608`.
        """
        same = [other for other in self.budgets if images_of(other.name) == images_of(budget.name)]
        place = same.index(budget)
        return same[place - 1] if place else None


def images_of(name: str) -> str:
    """Returns the number of images in the name of a budget, as text: `4608` for `top1@4608`."""
    return name.partition("@")[2]


def agree(
    networks: Sequence[CheckedNetwork], *, budgets: Sequence[str] = (), seed: int = 0, resamples: int = 2000
) -> Agreement:
    """Returns the agreement of each proxy with the long training in how they rank networks.

    The ground truth is the first long training of each network, even if it has two. A mean of two has less noise, so
    the networks would differ in their noise. All intervals use the same resamples of networks. A resample skips
    networks without a value.

    Args:
        networks: Networks with their scores. Those without a long training are left out.
        budgets: Names of the proxies that are scores of short trainings, METRIC@IMAGES, the cheapest first. Among
            scores of one training, the default metric of a search comes first.
        seed: Seed of the resamples.
        resamples: Number of resamples. 2,000 take 1 to 2 s with 100 networks and ten proxies.

    Raises:
        MeasurementError: Fewer than two networks have a long training.
    """
    known = tuple(network for network in networks if network.long)
    if len(known) < 2:
        raise MeasurementError(
            f"at least two networks must have a long training, but {len(known)} of {len(networks)} has one. See the "
            "reasons of the failures, or use more --networks."
        )
    resampled = _Resampled(
        every=all_pairs(len(known)),
        like=like_speed_pairs(np.array([network.images_per_s for network in known])),
        counts=draw_counts(len(known), resamples, seed),
    )
    first, second = _long(known, 0), _long(known, 1)
    target = np.array([math.nan if network.target is None else network.target for network in known])
    names = [*budgets, *(name for network in known for name in network.proxies), SPEED]
    values = {name: _values(known, name) for name in dict.fromkeys(names)}
    proxies = tuple(
        ProxyAgreement(
            name=name,
            is_budget=name in budgets,
            networks=int((~np.isnan(own)).sum()),
            tau=resampled.taus(own, first),
            gains={
                other: resampled.gains(own, values[other], first)
                for other in (*BASELINES, *(budgets if name in budgets else ()))
                if other in values and other != name
            },
            tau_to_mean=resampled.taus_if_any(own, (first + second) / 2),
            tau_to_target=resampled.taus_if_any(own, target),
            **_costs(known, name),
        )
        for name, own in values.items()
    )
    return Agreement(
        networks=known,
        proxies=proxies,
        ceiling=resampled.taus_if_any(first, second),
        long_to_target=resampled.taus_if_any(first, target),
        top1_low=float(first.min()),
        top1_high=float(first.max()),
        long_seconds=float(np.mean([network.long_seconds for network in known])),
        seed=seed,
        resamples=resamples,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Resampled:
    """Masks of the compared pairs, and the resamples of networks that all intervals share."""

    every: Pairs
    like: Pairs
    counts: Floats
    """Counts [R, N] from `draw_counts`."""

    def taus(self, own_N: Floats, truth_N: Floats) -> Taus:
        """Returns Kendall's tau between two arrays of values per network. Networks without both values are skipped."""
        found = [
            _estimate(
                tau(own_N, truth_N, pairs_NN),
                resampled_taus(own_N, truth_N, pairs_NN, self.counts),
                count_pairs(own_N, truth_N, pairs_NN),
            )
            for pairs_NN in (self.every, self.like)
        ]
        return Taus(overall=found[0], like_speed=found[1])

    def taus_if_any(self, own_N: Floats, truth_N: Floats) -> Taus | None:
        """Returns Kendall's tau between two arrays of values per network; None if no network has both values."""
        return self.taus(own_N, truth_N) if (~np.isnan(own_N) & ~np.isnan(truth_N)).any() else None

    def gains(self, own_N: Floats, other_N: Floats, truth_N: Floats) -> Taus:
        """Returns the tau between `own_N` and the truth minus that between `other_N` and the truth.

        Only networks with values in both arrays count.
        """
        lacking_N = np.isnan(own_N) | np.isnan(other_N)
        own_N, other_N = (np.where(lacking_N, np.nan, values_N) for values_N in (own_N, other_N))
        found = [
            _estimate(
                tau(own_N, truth_N, pairs_NN) - tau(other_N, truth_N, pairs_NN),
                resampled_taus(own_N, truth_N, pairs_NN, self.counts)
                - resampled_taus(other_N, truth_N, pairs_NN, self.counts),
                count_pairs(own_N, truth_N, pairs_NN),
            )
            for pairs_NN in (self.every, self.like)
        ]
        return Taus(overall=found[0], like_speed=found[1])


def _estimate(value: float, samples_R: Floats, pairs: int) -> Estimate:
    low, high = interval(samples_R)
    return Estimate(value=value, low=low, high=high, pairs=pairs)


def _long(networks: Sequence[CheckedNetwork], seed: int) -> Floats:
    return np.array([network.long[seed] if seed < len(network.long) else math.nan for network in networks])


def _values(networks: Sequence[CheckedNetwork], name: str) -> Floats:
    if name == SPEED:
        return np.array([network.images_per_s for network in networks])
    return np.array([network.proxies.get(name, math.nan) for network in networks], dtype=np.float64)


def _costs(networks: Sequence[CheckedNetwork], name: str) -> dict[str, float]:
    taken = [(network.seconds[name], network.long_seconds) for network in networks if name in network.seconds]
    own, long = sum(seconds for seconds, _ in taken), sum(seconds for _, seconds in taken)
    return {
        "seconds": own / len(taken) if taken else math.nan,
        "cost_share": own / long if long else math.nan,
    }
