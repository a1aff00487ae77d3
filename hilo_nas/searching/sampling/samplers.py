"""Optuna's samplers, wrapped so that every proposal is a network that is allowed and not yet known."""

from __future__ import annotations

import heapq
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from hilo_nas.errors import SpaceExhaustedError
from hilo_nas.space import SearchSpace

__all__ = ["FeasibleSampler", "build_sampler", "distributions_of", "find_near"]

_LOOK_AT_MOST = 20_000
"""Settings looked at around a proposal before the rest of a large space is tried at random."""
_ENUMERATE_UP_TO = 200_000


def distributions_of(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Returns the space as Optuna knows it: integers from 0 (ranges may change on resume, categories may not)."""
    return {param: IntDistribution(0, n - 1) for param, n in space.dimensions.items()}


def build_sampler(name: str, seed: int) -> BaseSampler:
    """Returns Optuna's sampler of one of the names in `SAMPLERS`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "gp":
            return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
        if name == "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True)
        if name == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=20)
        return optuna.samplers.RandomSampler(seed=seed)


def find_near(
    space: SearchSpace,
    params: Mapping[str, int],
    *,
    excess: Callable[[Mapping[str, int]], float],
    is_known: Callable[[Mapping[str, int]], bool],
    random: Random,
) -> dict[str, int]:
    """Returns the setting itself if it is allowed and new, else a near one that is.

    Steps go first towards less excess, then to the nearest by number of steps; ties fall at random.

    Args:
        space: The space.
        params: The proposal.
        excess: How far a setting lies beyond the limits; at most 0 is allowed.
        is_known: Whether a setting's network was tried already.
        random: Breaks ties.

    Raises:
        SpaceExhaustedError: There is none (sure for spaces up to 200,000 settings).
    """
    start = dict(params)
    queue = [(max(excess(start), 0.0), 0, random.random(), start)]
    seen = {tuple(start.values())}
    for _ in range(_LOOK_AT_MOST):
        if not queue:
            break
        beyond, steps, _, setting = heapq.heappop(queue)
        if beyond <= 0 and not is_known(setting):
            return setting
        for neighbour in space.neighbours(setting):
            values = tuple(neighbour.values())
            if values not in seen:
                seen.add(values)
                heapq.heappush(queue, (max(excess(neighbour), 0.0), steps + 1, random.random(), neighbour))
    if queue:  # a large space whose neighbourhood is used up
        rest = _enumerate(space, random) if space.n_configs <= _ENUMERATE_UP_TO else _draw(space, random)
        for setting in rest:
            if excess(setting) <= 0 and not is_known(setting):
                return setting
    raise SpaceExhaustedError


def _enumerate(space: SearchSpace, random: Random) -> Sequence[dict[str, int]]:
    ranges = [range(n) for n in space.dimensions.values()]
    settings = [dict(zip(space.dimensions, values, strict=True)) for values in itertools.product(*ranges)]
    random.shuffle(settings)
    return settings


def _draw(space: SearchSpace, random: Random) -> Sequence[dict[str, int]]:
    return [space.sample(random) for _ in range(_LOOK_AT_MOST)]


def find_in(
    pool: Sequence[Mapping[str, int]],
    dimensions: Mapping[str, int],
    params: Mapping[str, int],
    *,
    excess: Callable[[Mapping[str, int]], float],
    is_known: Callable[[Mapping[str, int]], bool],
) -> dict[str, int]:
    """Returns the setting of a pool that is nearest to the proposal, allowed and new; each knob's range counts as one.

    Raises:
        SpaceExhaustedError: There is none.
    """

    def distance(setting: Mapping[str, int]) -> float:
        return sum(abs(setting[name] - params[name]) / max(n - 1, 1) for name, n in dimensions.items())

    for setting in sorted(pool, key=distance):
        if excess(setting) <= 0 and not is_known(setting):
            return dict(setting)
    raise SpaceExhaustedError


class FeasibleSampler(BaseSampler):
    """Proposals of an inner sampler, each moved to a near network that is allowed and not yet known.

    A proposal depends on the finished trials, the seed and the number of proposals before it, and on nothing else: the
    inner sampler is built again for each. So a resumed search proposes what an uninterrupted one would.

    Args:
        build_inner: Returns Optuna's sampler for a seed; see `build_sampler`.
        space: The space.
        excess: See `find_near`.
        is_known: See `find_near`.
        seed: Seed of the search.
        count_proposals: Returns the number of proposals that the study holds.
        pool: The only settings that may be proposed, where not all of the space may.
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
        """Starts the randomness of the next proposal."""
        self._random = Random(f"{self._seed}/{self._count_proposals()}")
        self._inner = self._build_inner(self._random.randrange(2**31))

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns the whole space, always the same."""
        return self._distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns a whole proposal, moved where it had to be.

        Raises:
            SpaceExhaustedError: There is nothing left to propose.
        """
        drawn = self._inner.sample_relative(study, trial, search_space)
        proposal = {
            param: int(drawn[param] if param in drawn else self._inner.sample_independent(study, trial, param, kind))
            for param, kind in search_space.items()
        }
        if self._pool is not None:
            return find_in(self._pool, self._space.dimensions, proposal, excess=self._excess, is_known=self._is_known)
        return find_near(self._space, proposal, excess=self._excess, is_known=self._is_known, random=self._random)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Returns one value from the inner sampler."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Starts the randomness of the proposal and tells the inner sampler of the trial."""
        self._seed_proposal()
        self._inner.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Tells the inner sampler how the trial ended."""
        self._inner.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Gives the sampler another seed."""
        self._seed = Random().randrange(2**31)
        self._seed_proposal()
