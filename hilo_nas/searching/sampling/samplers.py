"""Optuna samplers, wrapped so that every proposal is a feasible and new network."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from hilo_nas.searching.sampling.nearby import find_near, find_nearest_in
from hilo_nas.space import SearchSpace

__all__ = ["FeasibleSampler", "build_sampler", "distributions_of"]


def distributions_of(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Returns the space as Optuna distributions: integers from 0.

    Integers are used because Optuna allows ranges to change on resume, but not categories.
    """
    return {param: IntDistribution(0, n - 1) for param, n in space.dimensions.items()}


def build_sampler(name: str, seed: int) -> BaseSampler:
    """Returns the Optuna sampler for a name in `SAMPLERS`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "gp":
            return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
        if name == "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True)
        if name == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=20)
        return optuna.samplers.RandomSampler(seed=seed)


class FeasibleSampler(BaseSampler):
    """Sampler that moves each proposal of an inner sampler to a nearby feasible and new network.

    A proposal depends only on the finished and running trials, the seed and the number of earlier proposals, because
    the inner sampler is rebuilt for each proposal. A resumed search therefore proposes the same networks as an
    uninterrupted one.

    Args:
        build_inner: Returns an Optuna sampler for a seed, such as `build_sampler`.
        space: Search space.
        excess: Returns how far parameters exceed the limits; feasible if at most 0.
        is_known: Returns True if the network of the parameters was already tried.
        seed: Seed of the search.
        count_proposals: Returns the number of proposals in the study.
        pool: The only parameters that may be proposed; None for the whole space.
    """

    def __init__(
        self,
        build_inner: Callable[[int], BaseSampler],
        space: SearchSpace,
        *,
        excess: Callable[[Mapping[str, int]], float],
        is_known: Callable[[Mapping[str, int]], bool],
        seed: int,
        count_proposals: Callable[[], int],
        pool: Sequence[Mapping[str, int]] | None = None,
    ) -> None:
        self._pool = pool
        self._build_inner = build_inner
        self._space = space
        self._excess = excess
        self._is_known = is_known
        self._seed = seed
        self._distributions = distributions_of(space)
        self._count_proposals = count_proposals
        self._seed_proposal()

    def _seed_proposal(self) -> None:
        """Seeds the random generator and the inner sampler for the next proposal."""
        self._random = Random(f"{self._seed}/{self._count_proposals()}")
        self._inner = self._build_inner(self._random.randrange(2**31))

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns the whole space, for every trial."""
        return self._distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns a complete, feasible and new proposal.

        Raises:
            SpaceExhaustedError: No network is left to propose.
        """
        drawn = self._inner.sample_relative(study, trial, search_space)
        proposal = {
            param: int(drawn[param] if param in drawn else self._inner.sample_independent(study, trial, param, kind))
            for param, kind in search_space.items()
        }
        if self._pool is not None:
            return find_nearest_in(
                self._pool, self._space.dimensions, proposal, excess=self._excess, is_known=self._is_known
            )
        return find_near(self._space, proposal, excess=self._excess, is_known=self._is_known, random=self._random)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Returns one value from the inner sampler."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seeds the proposal and calls the inner sampler's hook."""
        self._seed_proposal()
        self._inner.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Calls the inner sampler's hook with the outcome of the trial."""
        self._inner.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Sets a new random seed."""
        self._seed = Random().randrange(2**31)
        self._seed_proposal()
