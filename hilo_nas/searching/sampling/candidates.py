"""Candidates for the next proposal: random networks of a space, and mutations of the best known ones."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random

import numpy as np

from hilo_nas.arch.cost import count_cost
from hilo_nas.errors import SpaceExhaustedError
from hilo_nas.searching.sampling.nearby import find_near
from hilo_nas.space import LIMITS, SearchSpace, free_violations
from hilo_nas.study.manifest import Manifest
from hilo_nas.surrogate.features import FeatureScale, NetworkFeatures, describe_network
from hilo_nas.surrogate.observations import KnownNetwork
from hilo_nas.surrogate.search_model import MIN_TIMED, MIN_TRAINED, Forecast, KnownMeans, SearchModel

__all__ = ["RANDOM_SHARE", "Candidate", "CandidateSource", "forecast_candidates", "list_best", "measure_excess"]

RANDOM_SHARE = 0.07
"""Share of proposals of random networks, as a guard against a wrong model."""
_POOL = 2_000
"""Number of random candidates."""
_MUTATED = 20
"""Number of networks on the front whose neighbours are candidates."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Network that can be proposed."""

    key: str
    params: Mapping[str, int]
    """Flat integer parameters."""
    features: NetworkFeatures


class CandidateSource:
    """Source of the candidates of one search.

    Args:
        space: Search space.
        img_size: Side of the timed images in pixels.
        num_classes: Number of outputs of the classifier.
        excess: Returns how far parameters exceed the limits that formulas know; feasible if at most 0.
        seed: Seed of the random candidates.
        pool: The only parameters that may be proposed; None for the whole space.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        img_size: int,
        num_classes: int,
        excess: Callable[[Mapping[str, int]], float],
        seed: int,
        pool: Sequence[Mapping[str, int]] | None = None,
    ) -> None:
        self._space, self._img_size, self._num_classes = space, img_size, num_classes
        self._excess, self._has_pool = excess, pool is not None
        self._admitted: dict[tuple[int, ...], Candidate | None] = {}
        self.pool = self._draw_pool(seed) if pool is None else self.admit(pool)
        """Candidates that do not depend on the known networks."""
        anchors = [describe_network(anchor.arch, img_size, num_classes) for anchor in space.anchors]
        features = [*(own.features for own in self.pool), *anchors]
        # Limits may leave no network, and a scale needs one.
        self.scale = FeatureScale(features or [self._describe(dict.fromkeys(space.dimensions, 0)).features])
        """Scale of the features of the space."""

    @classmethod
    def of(cls, manifest: Manifest, pool: Sequence[Mapping[str, int]] | None = None) -> CandidateSource:
        """Returns the source of a study's candidates, within the limits of its manifest that formulas know."""
        return cls(
            manifest.space,
            img_size=manifest.objective.img_size,
            num_classes=manifest.data.num_classes,
            excess=measure_excess(manifest),
            seed=manifest.seed,
            pool=pool,
        )

    def fit(
        self,
        networks: Sequence[KnownNetwork],
        *,
        chance: float | None,
        min_images_per_s: float | None,
        previous: SearchModel | None = None,
    ) -> SearchModel | None:
        """Returns the model of the known networks; None if they are too few.

        Args:
            networks: Known networks, in the order of their trials.
            chance: Score of guessing; None if it is unknown.
            min_images_per_s: Speed limit, if there is one.
            previous: Model from fewer known networks of the same search. It only saves time.
        """
        timed = sum(network.log_speed is not None for network in networks)
        if timed < MIN_TIMED or sum(bool(network.scores) for network in networks) < MIN_TRAINED:
            return None
        return SearchModel(
            networks,
            self.scale,
            [own.features for own in self.pool],
            chance=chance,
            min_log_speed=None if min_images_per_s is None else math.log(min_images_per_s),
            previous=previous,
        )

    def list_new(
        self, best: Sequence[Mapping[str, int]], *, is_known: Callable[[str], bool], random: Random
    ) -> list[Candidate]:
        """Returns new and feasible networks, each once.

        Args:
            best: Parameters of the best known networks (`list_best`).
            is_known: Returns True if the network with this key was already tried.
            random: Generator of the mutations.

        Raises:
            SpaceExhaustedError: There is none.
        """
        found = {own.key: own for own in self.pool}
        if not self._has_pool:
            found |= {own.key: own for own in self.admit(self._mutate(best, random))}
        new = [own for own in found.values() if not is_known(own.key)]
        if new:
            return new
        if self._has_pool:
            raise SpaceExhaustedError
        drawn = self._space.sample(random)
        near = find_near(
            self._space,
            drawn,
            excess=self._excess,
            is_known=lambda params: is_known(self.key_of(params)),
            random=random,
        )
        return self.admit([near])

    def key_of(self, params: Mapping[str, int]) -> str:
        """Returns the key of the network of the parameters, without decoding those of a candidate again."""
        candidate = self._admitted.get(self._values_of(params))
        return self._space.decode(params).key() if candidate is None else candidate.key

    def _values_of(self, params: Mapping[str, int]) -> tuple[int, ...]:
        return tuple(params[name] for name in self._space.dimensions)

    def _mutate(self, best: Sequence[Mapping[str, int]], random: Random) -> list[dict[str, int]]:
        """Returns the neighbours of networks, and for each neighbour a neighbour of it."""
        near = [neighbour for params in best for neighbour in self._space.neighbours(params)]
        return near + [random.choice(list(self._space.neighbours(params))) for params in near]

    def admit(self, settings: Iterable[Mapping[str, int]]) -> list[Candidate]:
        """Returns the networks of these parameters that are within the limits that formulas know, in their order."""
        admitted = []
        for params in settings:
            values = self._values_of(params)
            if values not in self._admitted:
                self._admitted[values] = self._describe(params) if self._excess(params) <= 0 else None
            if (candidate := self._admitted[values]) is not None:
                admitted.append(candidate)
        return admitted

    def _describe(self, params: Mapping[str, int]) -> Candidate:
        arch = self._space.decode(params)
        return Candidate(arch.key(), dict(params), describe_network(arch, self._img_size, self._num_classes))

    def _draw_pool(self, seed: int) -> list[Candidate]:
        if self._space.n_configs <= 2 * _POOL:
            return list({own.key: own for own in self.admit(_list_all(self._space))}.values())
        random = Random(f"{seed}/pool")
        found: dict[str, Candidate] = {}
        for _ in range(10 * _POOL):
            if len(found) >= _POOL:
                break
            found |= {own.key: own for own in self.admit([self._space.sample(random)])}
        return list(found.values())


def measure_excess(manifest: Manifest) -> Callable[[Mapping[str, int]], float]:
    """Returns a function of parameters: how far they exceed the limits that formulas know. At most 0 is feasible."""
    space, limits = manifest.space, manifest.limits_in_force
    if not any(LIMITS[name.partition("@")[0]].is_free for name in limits):
        return lambda params: 0.0  # saves half of the time that a pool of candidates takes

    def excess(params: Mapping[str, int]) -> float:
        cost = count_cost(space.decode(params), manifest.objective.img_size, num_classes=manifest.data.num_classes)
        found = free_violations(limits, parameters=cost.parameters, macs=cost.macs)
        return sum(max(value, 0.0) for value in found.values())

    return excess


def forecast_candidates(model: SearchModel, candidates: Sequence[Candidate]) -> Forecast:
    """Returns the predictions of a model for candidates."""
    return model.forecast([own.features for own in candidates], [own.key for own in candidates])


def list_best(known: KnownMeans, params: Sequence[Mapping[str, int] | None]) -> list[Mapping[str, int]]:
    """Returns the parameters of networks on the front of the predicted values, the one with the best value first.

    Args:
        known: Predictions of the known networks.
        params: Their parameters; None for a network outside the space.
    """
    return [own for m in _non_dominated(known)[:_MUTATED] if (own := params[m]) is not None]


def _list_all(space: SearchSpace) -> list[dict[str, int]]:
    """Returns the parameters of all combinations of knob values."""
    ranges = [range(n) for n in space.dimensions.values()]
    return [dict(zip(space.dimensions, values, strict=True)) for values in itertools.product(*ranges)]


def _non_dominated(known: KnownMeans) -> list[int]:
    """Returns the networks on the front of the predicted values, the one with the best value first."""
    found, fastest = [], -math.inf
    for m in np.lexsort((-known.speed, -known.value)):
        if known.speed[m] > fastest:
            found.append(int(m))
            fastest = float(known.speed[m])
    return found
