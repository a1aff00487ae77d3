"""Sampler of this package for studies that a user creates with Optuna."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from hilo_nas.arch.config import ArchConfig
from hilo_nas.arch.cost import count_cost
from hilo_nas.errors import UsageError
from hilo_nas.searching.sampling.candidates import (
    RANDOM_SHARE,
    Candidate,
    CandidateSource,
    forecast_candidates,
    list_best,
)
from hilo_nas.searching.sampling.samplers import distributions_of
from hilo_nas.space import SearchSpace, find_params, free_violations, list_networks
from hilo_nas.surrogate.features import describe_network
from hilo_nas.surrogate.observations import KnownNetwork, KnownScore
from hilo_nas.surrogate.search_model import Forecast, SearchModel

__all__ = ["HiloSampler"]

_LOCK = threading.Lock()
"""Held during a proposal, so that the threads of `Study.optimize` do not propose one network twice. It is not an
attribute of the sampler, because a sampler can be pickled."""
_MAX_LISTED = 20_000
"""Maximum number of combinations of knob values in a space whose networks are found by their keys."""


class HiloSampler(BaseSampler):
    """Optuna sampler that proposes the network with the largest expected gain in hypervolume.

    The study maximizes two values: images/s and a score. Its parameters are those of a search space: for each name and
    number of choices in `SearchSpace.dimensions`, `trial.suggest_int(name, 0, choices - 1)`. `SearchSpace.decode` turns
    them into an architecture.

    Models of speed and score learn from the trials of the study. The first proposals are random. A network is proposed
    once, also if its trial failed. A failed trial makes similar networks less likely. Limits of the space on
    parameters, multiply-adds and images/s are met. Other limits and constraints are ignored, and so are pruned trials.

    A proposal depends only on the seed, the number of the trial and the other trials.

    Args:
        space: Search space.
        img_size: Side of the timed images in pixels.
        num_classes: Number of outputs of the classifier.
        chance: Score of guessing; the lowest score of the study if left out.
        speeds: Images/s of networks, by architecture or by its key. Only these networks are proposed. Keys need a space
            with at most 20,000 combinations of knob values.
        seed: Seed of the proposals; a random one if left out.

    Raises:
        UsageError: No network of `speeds` is in the space and within its limits, a speed is not above 0, or the images
            are smaller than the stride of a network.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        img_size: int,
        num_classes: int,
        chance: float | None = None,
        speeds: Mapping[str, float] | Mapping[ArchConfig, float] | None = None,
        seed: int | None = None,
    ) -> None:
        self._space, self._img_size, self._num_classes, self._chance = space, img_size, num_classes, chance
        self._seed = Random().randrange(2**31) if seed is None else seed
        self._log_speeds = {} if speeds is None else _read_speeds(speeds)
        self._has_speeds = speeds is not None
        self._source = CandidateSource(
            space,
            img_size=img_size,
            num_classes=num_classes,
            excess=self._excess,
            seed=self._seed,
            pool=None if speeds is None else self._find_all(speeds),
        )
        if self._has_speeds and not self._source.pool:
            raise UsageError(
                f"speeds must contain networks of the space {space.name} within its limits, but got none. "
                "Give architectures, or their keys (ArchConfig.key)."
            )
        self._other = optuna.samplers.RandomSampler(seed=self._seed)
        self._proposed: dict[tuple[str, int], dict[str, int]] = {}
        """Proposals by study and trial, because a running trial has only the parameters that were asked for."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns the whole space, for every trial."""
        return distributions_of(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns the parameters of a new network.

        Raises:
            UsageError: The study does not maximize two values, or a trial has a speed that is not above 0.
            SpaceExhaustedError: No network is left to propose.
        """
        if list(study.directions) != [StudyDirection.MAXIMIZE] * 2:
            raise UsageError(
                "HiloSampler needs a study that maximizes images/s and a score. "
                'Create it with directions=["maximize", "maximize"].'
            )
        with _LOCK:
            proposal = self._propose(study, trial)
            self._proposed[study.study_name, trial.number] = proposal
        return dict(proposal)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Returns a random value of a parameter that is not one of the space.

        Raises:
            UsageError: The parameter is one of the space, but its range is not.
        """
        if param_name in self._space.dimensions:
            last = self._space.dimensions[param_name] - 1
            raise UsageError(
                f"{param_name} must be an integer from 0 to {last}, but got {param_distribution}. "
                f'Use trial.suggest_int("{param_name}", 0, {last}).'
            )
        return self._other.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Sets a new seed of the parameters outside the space. Proposals of networks differ by their trials anyway."""
        self._other.reseed_rng()

    def _propose(self, study: Study, trial: FrozenTrial) -> dict[str, int]:
        random = Random(f"{self._seed}/{trial.number}")
        trials = [own for own in study.get_trials(deepcopy=False) if own.number != trial.number]
        found = [(own, params) for own in trials if (params := self._params_of(study, own)) is not None]
        networks = [self._know(own, params) for own, params in found]
        known = {network.key for network in networks}
        limit = self._space.limits.get("images_per_s")
        model = self._source.fit(networks, chance=self._chance, min_images_per_s=limit)
        best = [] if model is None else list_best(model.known, [params for _, params in found])
        candidates = self._source.list_new(best, is_known=known.__contains__, random=random)
        if model is None or random.random() < RANDOM_SHARE:
            return dict(random.choice(candidates).params)
        return dict(candidates[int(np.argmax(model.gain(self._forecast(model, candidates))))].params)

    def _forecast(self, model: SearchModel, candidates: Sequence[Candidate]) -> Forecast:
        forecast = forecast_candidates(model, candidates)
        if not self._has_speeds:
            return forecast
        return dataclasses.replace(
            forecast,
            speed=np.array([self._log_speeds[own.key] for own in candidates]),
            speed_sd=np.zeros(len(candidates)),
            is_timed=np.ones(len(candidates), dtype=bool),
        )

    def _params_of(self, study: Study, trial: FrozenTrial) -> dict[str, int] | None:
        """Returns the parameters of a trial's network; None if they are unknown."""
        given = dict(trial.params)
        if not trial.state.is_finished():
            queued = trial.system_attrs.get("fixed_params", {})  # of Study.enqueue_trial
            given = {**self._proposed.get((study.study_name, trial.number), {}), **queued, **given}
        if not given.keys() >= self._space.dimensions.keys():
            return None
        return {name: int(given[name]) for name in self._space.dimensions}

    def _know(self, trial: FrozenTrial, params: Mapping[str, int]) -> KnownNetwork:
        arch = self._space.decode(params)
        log_speed = self._log_speeds.get(arch.key())
        scores: tuple[KnownScore, ...] = ()
        if trial.state == OptunaState.COMPLETE:
            images_per_s, value = trial.values
            log_speed = _log(images_per_s, f"trial {trial.number}")
            scores = (KnownScore(value=value, standard_error=0.0),)
        return KnownNetwork(
            key=arch.key(),
            features=describe_network(arch, self._img_size, self._num_classes),
            log_speed=log_speed,
            scores=scores,
            has_failed=trial.state == OptunaState.FAIL,
            is_running=not trial.state.is_finished(),
        )

    def _excess(self, params: Mapping[str, int]) -> float:
        cost = count_cost(self._space.decode(params), self._img_size, num_classes=self._num_classes)
        found = free_violations(self._space.limits, parameters=cost.parameters, macs=cost.macs)
        return sum(max(value, 0.0) for value in found.values())

    def _find_all(self, networks: Iterable[str | ArchConfig]) -> list[dict[str, int]]:
        """Returns the parameters of networks. Those outside the space are left out."""
        archs = [own for own in networks if isinstance(own, ArchConfig)]
        keys = {own for own in networks if isinstance(own, str)}
        found = [params for arch in archs if (params := find_params(self._space, arch)) is not None]
        if not keys:
            return found
        if self._space.n_configs > _MAX_LISTED:
            raise UsageError(
                f"keys of networks need a space with at most {_MAX_LISTED:,} combinations of knob values, but "
                f"{self._space.name} has {self._space.n_configs:,}. Give the architectures instead of their keys."
            )
        listed = list_networks(self._space, img_size=self._img_size, num_classes=self._num_classes)
        return found + [params for arch, params in listed if arch.key() in keys]


def _read_speeds(speeds: Mapping[str, float] | Mapping[ArchConfig, float]) -> dict[str, float]:
    """Returns log images/s by the keys of networks."""
    keys = {own: own.key() if isinstance(own, ArchConfig) else own for own in speeds}
    return {keys[own]: _log(images_per_s, keys[own]) for own, images_per_s in speeds.items()}


def _log(images_per_s: float, name: str) -> float:
    if not 0 < images_per_s < math.inf:
        raise UsageError(f"{name}: images/s must be above 0 and finite, but got {images_per_s}")
    return math.log(images_per_s)
