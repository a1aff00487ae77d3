"""Proposals from models of speed and value: the network with the largest expected gain in hypervolume.

Candidates are random networks of the space and mutations of the best known networks. Before a training, the networks
with the largest gains are timed briefly, as long as their speeds are worth more per second than a training.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np

from hilo_nas.errors import SpaceExhaustedError
from hilo_nas.searching.sampling.optuna_study import Proposal
from hilo_nas.searching.sampling.samplers import find_near
from hilo_nas.space import SearchSpace
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord
from hilo_nas.surrogate.features import FeatureScale, NetworkFeatures, describe_network
from hilo_nas.surrogate.observations import find_timing, know_networks
from hilo_nas.surrogate.search_model import MIN_TIMED, MIN_TRAINED, Forecast, SearchModel

__all__ = ["LookAhead", "ModelSampler"]

_POOL = 2_000
"""Number of random candidates."""
_MUTATED = 20
"""Number of networks on the front whose neighbours are candidates."""
_RANDOM_SHARE = 0.07
"""Share of trainings of random networks, as a guard against a wrong model."""
_TIMED_FIRST = 10
"""Number of random networks that are timed before the first proposal from a model."""
_TIMED_TOGETHER = 8
"""Number of networks with the largest gains whose speeds are considered together."""
_GROUP = "timed_with"
"""Name in the memory of a record for the networks that were timed together: parameter values by key."""
_DEFAULT_TIMING_S = 2.0
"""Assumed seconds of a brief timing before the first one."""


@dataclasses.dataclass(frozen=True)
class _Candidate:
    key: str
    params: Mapping[str, int]
    features: NetworkFeatures


@dataclasses.dataclass(frozen=True)
class LookAhead:
    """Networks to time before the next proposal."""

    networks: Sequence[dict[str, int]]
    """The networks as flat integer parameters."""
    is_brief: bool = True
    """True for a brief timing in shared rounds, False for a full timing of a single network."""
    memory: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Memory for the records of the networks (`TrialRecord.sampler_memory`)."""


class ModelSampler:
    """Sampler of one study.

    A proposal depends only on the records and the seed, so a resumed search proposes what an uninterrupted one would.

    Args:
        manifest: Manifest of the study.
        excess: Returns how far parameters exceed the limits that formulas know; feasible if at most 0.
        is_known: Returns True if the network of the parameters was already tried.
        pool: The only parameters that may be proposed; None for the whole space.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        excess: Callable[[Mapping[str, int]], float],
        is_known: Callable[[Mapping[str, int]], bool],
        pool: Sequence[Mapping[str, int]] | None = None,
    ) -> None:
        self._manifest, self._space = manifest, manifest.space
        self._excess, self._is_known = excess, is_known
        self._can_time = pool is None
        self._admitted: dict[tuple[int, ...], _Candidate | None] = {}
        self._pool = self._draw_pool() if pool is None else self._admit(pool)
        self._scale = FeatureScale(self._describe_space())
        self._latest: tuple[tuple[TrialRecord, ...], SearchModel | None] = ((), None)

    def propose(self, records: Sequence[TrialRecord]) -> Proposal:
        """Returns the network to train next.

        Args:
            records: All records of the study, ordered by number, including running ones.

        Raises:
            SpaceExhaustedError: No new network was found.
        """
        random = self._random(records)
        candidates, model = self._candidates(records, random), self._model(records)
        if model is None or random.random() < _RANDOM_SHARE:
            chosen = random.choice(candidates)
        else:
            chosen = candidates[int(np.argmax(model.gain(self._forecast(model, candidates))))]
        return Proposal(params=dict(chosen.params), sampler_memory={})

    def look_ahead(self, records: Sequence[TrialRecord]) -> LookAhead | None:
        """Returns the networks to time before the next proposal; None if a training is worth more.

        The worth is the expected gain per second. The gain of timings is the expected growth of the largest gain of a
        training when the speeds are known. The network with the largest gain is timed in full before it is proposed,
        because the fastest of many brief timings is often a lucky one.
        """
        if not self._can_time:
            return None
        if missing := self._find_missing(records):
            return self._time_together(missing)
        random = self._random(records)
        searched = [r for r in records if not r.is_baseline and find_timing(r, self._manifest) is not None]
        timed = {record.key for record in searched}
        training_s = _median_seconds(records)
        if len(searched) < _TIMED_FIRST:
            if training_s == 0.0 and any(record.score for record in records):
                return None  # scores cost nothing, so timings are not worth it
            free = [own for own in self._candidates(records, random) if own.key not in timed]
            first = random.sample(free, min(len(free), _TIMED_FIRST - len(searched)))
            return self._time_together([own.params for own in first]) if first else None
        model = self._model(records)
        if model is None or not training_s:
            return None
        candidates = self._candidates(records, random)
        forecast = self._forecast(model, candidates)
        gain_M = model.gain(forecast)
        best = np.argsort(-gain_M, kind="stable")[:_TIMED_TOGETHER]
        unknown = [m for m in best if candidates[m].key not in timed]
        if unknown:
            generator = np.random.default_rng(random.randrange(2**32))
            worth = model.gain_of_timing(forecast.take(best), generator) / (len(unknown) * _timing_seconds(records))
            if worth > float(gain_M.max()) / training_s:
                return self._time_together([candidates[m].params for m in unknown])
        first = best[0]
        if forecast.is_timed[first]:
            return None
        return LookAhead([dict(candidates[first].params)], is_brief=False)

    def _time_together(self, networks: Sequence[Mapping[str, int]]) -> LookAhead:
        """Returns a brief timing of networks, whose records will name all of them.

        If the search is killed before all records are written, the next one times the missing networks first.
        """
        group = {self._space.decode(params).key(): list(params.values()) for params in networks}
        return LookAhead([dict(params) for params in networks], memory={_GROUP: group} if len(group) > 1 else {})

    def _find_missing(self, records: Sequence[TrialRecord]) -> list[dict[str, int]]:
        """Returns the networks without a record that should have been timed together with others."""
        known = {record.key for record in records}
        missing = {
            key: values
            for record in records
            for key, values in record.sampler_memory.get(_GROUP, {}).items()
            if key not in known
        }
        return [dict(zip(self._space.dimensions, values, strict=True)) for values in missing.values()]

    def _random(self, records: Sequence[TrialRecord]) -> Random:
        proposals = sum(record.is_proposal and record.started_at is not None for record in records)
        return Random(f"{self._manifest.seed}/{proposals}")

    def _model(self, records: Sequence[TrialRecord]) -> SearchModel | None:
        """Returns the model of the records; None if they are too few."""
        current = tuple(records)
        if len(current) != len(self._latest[0]) or any(
            own is not known for own, known in zip(current, self._latest[0], strict=True)
        ):
            self._latest = current, self._fit(records)
        return self._latest[1]

    def _fit(self, records: Sequence[TrialRecord]) -> SearchModel | None:
        networks = know_networks(records, self._manifest)
        timed = sum(network.log_speed is not None for network in networks)
        if timed < MIN_TIMED or sum(bool(network.scores) for network in networks) < MIN_TRAINED:
            return None
        floor = self._manifest.limits_in_force.get("images_per_s")
        return SearchModel(
            networks,
            self._scale,
            [candidate.features for candidate in self._pool],
            chance=self._manifest.guessing_score,
            min_log_speed=None if floor is None else math.log(floor),
        )

    @staticmethod
    def _forecast(model: SearchModel, candidates: Sequence[_Candidate]) -> Forecast:
        return model.forecast([own.features for own in candidates], [own.key for own in candidates])

    def _candidates(self, records: Sequence[TrialRecord], random: Random) -> list[_Candidate]:
        """Returns new and feasible networks, each once.

        Raises:
            SpaceExhaustedError: There is none.
        """
        found = {own.key: own for own in self._pool}
        if self._can_time:
            found |= {own.key: own for own in self._admit(self._mutations(records, random))}
        new = [own for own in found.values() if not self._is_known(own.params)]
        if new:
            return new
        if not self._can_time:
            raise SpaceExhaustedError
        drawn = self._space.sample(random)
        return self._admit([find_near(self._space, drawn, excess=self._excess, is_known=self._is_known, random=random)])

    def _mutations(self, records: Sequence[TrialRecord], random: Random) -> list[dict[str, int]]:
        """Returns the neighbours of the best networks, and for each neighbour a neighbour of it."""
        model = self._model(records)
        if model is None:
            return []
        own = [record for record in records if record.subject.arch is not None]
        on_front = _non_dominated(model.known)
        near: list[dict[str, int]] = []
        for m in on_front[:_MUTATED]:
            if (params := own[m].params) is not None:
                near += self._space.neighbours(params)
        return near + [random.choice(list(self._space.neighbours(params))) for params in near]

    def _admit(self, settings: Sequence[Mapping[str, int]]) -> list[_Candidate]:
        """Returns the networks of these parameters that are within the limits that formulas know."""
        admitted = []
        for params in settings:
            values = tuple(params.values())
            if values not in self._admitted:
                self._admitted[values] = self._describe(params) if self._excess(params) <= 0 else None
            if (candidate := self._admitted[values]) is not None:
                admitted.append(candidate)
        return admitted

    def _describe(self, params: Mapping[str, int]) -> _Candidate:
        arch, manifest = self._space.decode(params), self._manifest
        features = describe_network(arch, manifest.objective.img_size, manifest.data.num_classes)
        return _Candidate(arch.key(), dict(params), features)

    def _draw_pool(self) -> list[_Candidate]:
        if self._space.n_configs <= 2 * _POOL:
            return list({own.key: own for own in self._admit(_list_all(self._space))}.values())
        random = Random(f"{self._manifest.seed}/pool")
        found: dict[str, _Candidate] = {}
        for _ in range(10 * _POOL):
            if len(found) >= _POOL:
                break
            found |= {own.key: own for own in self._admit([self._space.sample(random)])}
        return list(found.values())

    def _describe_space(self) -> list[NetworkFeatures]:
        anchors = [
            describe_network(anchor.arch, self._manifest.objective.img_size, self._manifest.data.num_classes)
            for anchor in self._space.anchors
        ]
        return [*(own.features for own in self._pool), *anchors]


def _list_all(space: SearchSpace) -> list[dict[str, int]]:
    """Returns the parameters of all combinations of knob values."""
    ranges = [range(n) for n in space.dimensions.values()]
    return [dict(zip(space.dimensions, values, strict=True)) for values in itertools.product(*ranges)]


def _non_dominated(known: Forecast) -> list[int]:
    """Returns the networks on the front of the predicted values, the one with the best value first."""
    found, fastest = [], -math.inf
    for m in np.lexsort((-known.speed, -known.value)):
        if known.speed[m] > fastest:
            found.append(int(m))
            fastest = float(known.speed[m])
    return found


def _median_seconds(records: Sequence[TrialRecord]) -> float:
    """Returns the median seconds of a network's trainings; 0 before the first one."""
    found = [sum(score.seconds for score in record.scores) for record in records if record.scores]
    return statistics.median(found) if found else 0.0


def _timing_seconds(records: Sequence[TrialRecord]) -> float:
    """Returns the mean seconds of a brief timing."""
    found = [own.seconds for record in records for own in record.measurements if own.is_preliminary]
    return (statistics.fmean(found) if found else 0.0) or _DEFAULT_TIMING_S
