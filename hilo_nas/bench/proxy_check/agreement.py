"""How well cheap proxies rank networks as a long training does.

A search compares networks at a speed: what it gains by a proxy is the order of networks that are as fast as each other.
So each agreement is told twice, over all pairs and among pairs of like speed, where the number of parameters no longer
helps by merely telling large networks from small ones.
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
"""Proxies that cost nothing, which every other is compared with."""
LIKELIHOOD = "likelihood"
"""What a training's loss on the held-out images says, with `@IMAGES`: the probability that it gives to the true class,
the geometric mean, exp(-loss)."""
SPEED = "images_per_s"
"""The proxy that is the measured speed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckedNetwork:
    """One network, and all that was found of it."""

    key: str
    images_per_s: float
    """Serves as a proxy too, with its sign as measured: where the slower networks are the better ones, as they mostly
    are, its tau is negative. NaN where it was not timed: then it is of like speed with no other."""
    long: tuple[float, ...]
    """Top-1 of each long training, in the order of their seeds; empty where none ended well."""
    long_seconds: float
    """Of one long training."""
    proxies: Mapping[str, float]
    """By name: a training's top-1 or likelihood after a budget, or a cheap score. More is better (for params and macs,
    the value itself). What is missing or NaN leaves the network out for that proxy alone."""
    seconds: Mapping[str, float]
    """What each proxy cost, by its name; missing where it was not taken."""
    target: float | None = None
    """Top-1 of a long training at the size that is to be shipped, where the long trainings above had a smaller one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """A tau or a difference of two, with its interval of 95 % from resampled networks; NaN where it has no value."""

    value: float
    low: float
    high: float
    pairs: int
    """How many pairs were compared."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Taus:
    """An agreement, told twice."""

    overall: Estimate
    like_speed: Estimate
    """Among pairs of like speed alone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProxyAgreement:
    """How one proxy agrees with the long training."""

    name: str
    is_budget: bool
    """Whether it is the score of a short training."""
    networks: int
    """How many have a value of it."""
    tau: Taus
    """To the first long training of each network."""
    gains: Mapping[str, Taus]
    """By baseline, how much more its tau is than the baseline's: on the networks that have both, in the same resamples;
    a baseline has none over itself. Of a budget, over each other budget, too."""
    tau_to_mean: Taus | None
    """To the mean of the first two long trainings, on the networks that have both; None where none has."""
    tau_to_target: Taus | None
    """To the training at the target's size; None where none was made."""
    seconds: float
    """Mean per network; NaN where it was not taken."""
    cost_share: float
    """Its seconds over one long training's, on the same networks; NaN likewise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """All proxies beside the long training."""

    networks: tuple[CheckedNetwork, ...]
    """Those that have a long training; no other counts."""
    proxies: tuple[ProxyAgreement, ...]
    ceiling: Taus | None
    """Between the first two long trainings of the networks that have both: what the seed's noise leaves of the same
    training's order. A proxy with less noise than a long training may stand above it. None where none has two."""
    long_to_target: Taus | None
    """Of the first long training to that at the target's size; None where none was made."""
    top1_low: float
    """The least of the first long trainings' top-1."""
    top1_high: float
    long_seconds: float
    """Mean per network, of one long training."""
    seed: int
    """Draws the resamples."""
    resamples: int

    @property
    def budgets(self) -> tuple[ProxyAgreement, ...]:
        """The proxies that are scores of short trainings, the cheapest first."""
        return tuple(proxy for proxy in self.proxies if proxy.is_budget)

    def score_before(self, budget: ProxyAgreement) -> ProxyAgreement | None:
        """Returns the score of the same training that comes before this one, if there is one."""
        same = [other for other in self.budgets if images_of(other.name) == images_of(budget.name)]
        place = same.index(budget)
        return same[place - 1] if place else None


def images_of(name: str) -> str:
    """Returns what a budget's name says of its training: the images seen."""
    return name.partition("@")[2]


def agree(
    networks: Sequence[CheckedNetwork], *, budgets: Sequence[str] = (), seed: int = 0, resamples: int = 2000
) -> Agreement:
    """Returns how each proxy's order of the networks agrees with the long training's.

    The truth is the first long training of each network, also where it has two: the mean of two would have less noise,
    and some networks' places more than others'. All intervals come from the same resamples of the networks, and each
    resample leaves out what lacks a value.

    Args:
        networks: What was found; those without a long training are left out.
        budgets: The names of the proxies that are scores of short trainings, `METRIC@IMAGES`, the cheapest first; of
            one training, the score that a search takes by itself first.
        seed: Draws the resamples.
        resamples: How many; 2,000 take a second or two with 100 networks and ten proxies.

    Raises:
        MeasurementError: Fewer than two networks have a long training.
    """
    known = tuple(network for network in networks if network.long)
    if len(known) < 2:
        raise MeasurementError(
            f"at least two networks must have a long training to be compared, but {len(known)} of {len(networks)} has "
            "one. See why the others failed, or use more --networks."
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
    """Which pairs are compared, and the resamples that all intervals share."""

    every: Pairs
    like: Pairs
    counts: Floats
    """[R, N], from `draw_counts`."""

    def taus(self, own_N: Floats, truth_N: Floats) -> Taus:
        """Returns the tau of two values."""
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
        """Returns the tau of two values, or None where no network has both."""
        return self.taus(own_N, truth_N) if (~np.isnan(own_N) & ~np.isnan(truth_N)).any() else None

    def gains(self, own_N: Floats, other_N: Floats, truth_N: Floats) -> Taus:
        """Returns how much more one value's tau to the truth is than another's, where a network has both."""
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
