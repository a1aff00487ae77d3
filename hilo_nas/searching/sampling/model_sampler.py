"""Proposals from models of speed and value: the network with the largest expected gain in hypervolume per second.

Candidates are random networks of the space and mutations of the best known networks. Before a training, the networks
with the largest gains are timed briefly, as long as their speeds are worth more per second than a training. At a rung,
a training stops if its rest is worth less per second than half of the best other training. It continues later if its
rest is worth most, as in freeze-thaw Bayesian optimization (Swersky et al. 2014, arXiv 1406.3896).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np

from hilo_nas.errors import SpaceExhaustedError
from hilo_nas.searching.sampling.candidates import (
    RANDOM_SHARE,
    Candidate,
    CandidateSource,
    forecast_candidates,
    list_best,
)
from hilo_nas.searching.sampling.optuna_study import Proposal
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TIMED_WITH, TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.transitions import interrupt
from hilo_nas.surrogate.features import describe_network
from hilo_nas.surrogate.gaussian_process import Floats
from hilo_nas.surrogate.observations import know_networks
from hilo_nas.surrogate.search_model import MIN_TRAINED, Forecast, SearchModel
from hilo_nas.surrogate.trial_seconds import TrialSeconds

__all__ = ["LookAhead", "ModelSampler"]

_TIMED_FIRST = 20
"""Number of random networks that are timed before the first proposal from a model."""
_TIMED_TOGETHER = 8
"""Number of networks with the largest gains whose speeds are considered together."""
_OPTIMISM = 2.0
"""Networks are considered for a brief timing by their gain at this many standard deviations above their mean speed."""
_CAUTION = 0.5
"""Gain per second of a continued training, relative to that of the best other one, at which it continues."""


@dataclasses.dataclass(frozen=True)
class _Ranking:
    """Candidates with their predictions and expected gains. Without a model, there are no predictions."""

    candidates: Sequence[Candidate]
    """New networks, and networks whose training was stopped and may continue."""
    forecast: Forecast | None
    seconds: Floats
    """Expected seconds of the full timing and the rest of the training of each candidate. If seconds are not known, the
    share of the training that is left."""
    gain: Floats
    """Expected gain of each candidate per second."""


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
        is_known: Returns True if the network with this key was already tried.
        pool: The only parameters that may be proposed; None for the whole space.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        is_known: Callable[[str], bool],
        pool: Sequence[Mapping[str, int]] | None = None,
    ) -> None:
        self._manifest, self._space = manifest, manifest.space
        self._is_known, self._can_time = is_known, pool is None
        self._source = CandidateSource.of(manifest, pool)
        self._latest: tuple[tuple[TrialRecord, ...], SearchModel | None] = ((), None)
        self._ranking: _Ranking | None = None

    def propose(self, records: Sequence[TrialRecord]) -> Proposal:
        """Returns the network to train next.

        Args:
            records: All records of the study, ordered by number, including running ones.

        Raises:
            SpaceExhaustedError: No new network was found.
        """
        random, ranking = self._random(records), self._rank(records)
        if ranking.forecast is None:
            chosen = self._first(ranking.candidates, records, random)
        elif random.random() < RANDOM_SHARE:
            chosen = random.choice(ranking.candidates)
        else:
            chosen = ranking.candidates[int(np.argmax(ranking.gain))]
        return Proposal(params=dict(chosen.params), sampler_memory={})

    def look_ahead(self, records: Sequence[TrialRecord]) -> LookAhead | None:
        """Returns the networks to time before the next proposal; None if a training is worth more.

        The worth is the expected gain per second. The gain of timings is the expected growth of the largest gain of a
        training when the speeds are known. The network with the largest gain is timed in full before it is proposed,
        because the fastest of many brief timings is often a lucky one.
        """
        if not self._can_time:
            return None
        if (missing := self._find_missing(records)) is not None:
            return missing
        random = self._random(records)
        searched = [r for r in records if not r.is_baseline and r.measurements]
        timed = {record.key for record in searched}
        costs = self._costs(records)
        if len(searched) < _TIMED_FIRST:
            if costs.has_trained and costs.median_training == 0.0:
                return None  # scores cost nothing, so timings are not worth it
            free = [own for own in self._rank(records).candidates if own.key not in timed]
            drawn = random.sample(free, min(len(free), _TIMED_FIRST - len(searched)))
            return self._time_together([own.params for own in drawn]) if drawn else None
        model, ranking = self._model(records), self._rank(records)
        if model is None or ranking.forecast is None or costs.median_training == 0.0:
            return None
        candidates, forecast, gain_M = ranking.candidates, ranking.forecast, ranking.gain
        first = int(np.argmax(gain_M))
        hoped_M = model.gain(forecast.with_speed(forecast.speed + _OPTIMISM * forecast.speed_sd))
        hoped_M[first] = math.inf
        hoped_M /= ranking.seconds
        best = np.argsort(-hoped_M, kind="stable")[:_TIMED_TOGETHER]
        unknown = [m for m in best if candidates[m].key not in timed]
        if unknown:
            generator = np.random.default_rng(random.randrange(2**32))
            seconds = ranking.seconds[best]
            gain = model.gain_of_timing(forecast.take(best), seconds, generator)
            if gain * float(seconds.mean()) > float(gain_M.max()) * len(unknown) * costs.brief_timing:
                return self._time_together([candidates[m].params for m in unknown])
        if candidates[first].key in {record.key for record in records if record.full_measurements}:
            return None
        return LookAhead([dict(candidates[first].params)], is_brief=False)

    def is_worth_more(self, record: TrialRecord, images: int, records: Sequence[TrialRecord]) -> bool:
        """Returns True if the rest of a training is worth its cost, compared with the training of another network.

        The worth is the expected gain per second. The first networks are always trained in full.

        Args:
            record: Record of a network with a score after `images` training images.
            images: Number of training images so far.
            records: Records of the study, with or without this one.
        """
        assert record.subject.arch is not None
        own = interrupt(record)  # as if it were not running
        found = [*(own if other.number == own.number else other for other in records)]
        if own not in found:
            found.append(own)
        budget = self._manifest.plan.budgets[-1]
        trained = sum(other.score_at(budget) is not None for other in found if not other.is_baseline)
        model = self._fit(found) if trained >= MIN_TRAINED else None
        if model is None:
            return True
        try:
            ranking = self._rank(records)
        except SpaceExhaustedError:
            return True  # there is no other network
        is_other_M = np.array([other.key != record.key for other in ranking.candidates])
        if not is_other_M.any():
            return True
        features = describe_network(
            record.subject.arch, self._manifest.objective.img_size, self._manifest.data.num_classes
        )
        forecast = model.forecast([features], [record.key])
        rest = np.array([1 - images / budget])
        gain = float((model.gain(forecast) / self._seconds(self._costs(found), forecast, rest))[0])
        other_M = model.gain(forecast_candidates(model, ranking.candidates)) / ranking.seconds
        return gain >= _CAUTION * float(other_M[is_other_M].max())

    def _time_together(self, networks: Sequence[Mapping[str, int]]) -> LookAhead:
        """Returns a brief timing of networks, whose records will name all of them.

        If the search is killed before all records are written, the next one times the missing networks first.
        """
        group = {self._space.decode(params).key(): list(params.values()) for params in networks}
        return LookAhead([dict(params) for params in networks], memory={TIMED_WITH: group} if len(group) > 1 else {})

    def _find_missing(self, records: Sequence[TrialRecord]) -> LookAhead | None:
        """Returns the timing of networks without a record that should have been timed together with others."""
        known = {record.key for record in records}
        for record in records:
            group = record.sampler_memory.get(TIMED_WITH, {})
            if missing := [values for key, values in group.items() if key not in known]:
                networks = [dict(zip(self._space.dimensions, values, strict=True)) for values in missing]
                return LookAhead(networks, memory={TIMED_WITH: group})
        return None

    def _random(self, records: Sequence[TrialRecord]) -> Random:
        proposals = sum(record.is_proposal and record.started_at is not None for record in records)
        return Random(f"{self._manifest.seed}/{proposals}")

    def _model(self, records: Sequence[TrialRecord]) -> SearchModel | None:
        """Returns the model of the records; None if they are too few."""
        current = tuple(records)
        if len(current) != len(self._latest[0]) or any(
            own is not known for own, known in zip(current, self._latest[0], strict=True)
        ):
            self._latest, self._ranking = (current, self._fit(records)), None
        return self._latest[1]

    def _fit(self, records: Sequence[TrialRecord]) -> SearchModel | None:
        return self._source.fit(
            know_networks(records, self._manifest),
            chance=self._manifest.guessing_score,
            min_images_per_s=self._manifest.limits_in_force.get("images_per_s"),
            previous=self._latest[1],
        )

    def _rank(self, records: Sequence[TrialRecord]) -> _Ranking:
        """Returns the candidates with their expected gains.

        Raises:
            SpaceExhaustedError: There is no new and feasible network.
        """
        model = self._model(records)
        if self._ranking is None:
            candidates, rest_M = self._candidates(records)
            if model is None:
                self._ranking = _Ranking(candidates, None, np.ones_like(rest_M), np.zeros_like(rest_M))
            else:
                forecast = forecast_candidates(model, candidates)
                seconds_M = self._seconds(self._costs(records), forecast, rest_M)
                self._ranking = _Ranking(candidates, forecast, seconds_M, model.gain(forecast) / seconds_M)
        return self._ranking

    def _costs(self, records: Sequence[TrialRecord]) -> TrialSeconds:
        return TrialSeconds(records, self._manifest.plan.budgets[-1])

    def _seconds(self, costs: TrialSeconds, forecast: Forecast, rest_M: Floats) -> Floats:
        """Returns the expected seconds of the trials of candidates; the share of the training if they are not known.

        Args:
            costs: Costs of the search so far.
            forecast: Predictions of the candidates.
            rest_M: Share of the training of each candidate that is left.
        """
        training_M = costs.training(forecast.speed) * rest_M
        return np.where(training_M > 0, training_M + np.where(forecast.is_timed, 0.0, costs.full_timing), rest_M)

    @staticmethod
    def _first(candidates: Sequence[Candidate], records: Sequence[TrialRecord], random: Random) -> Candidate:
        """Returns one of the first networks to train: of those timed, one with many parameters for its speed.

        The largest one comes first, then the fastest one, then one between them.
        """
        speeds = {record.key: record.measurement.images_per_s for record in records if record.measurement}
        timed = [own for own in candidates if own.key in speeds]
        front: list[Candidate] = []
        for own in sorted(timed, key=lambda own: (-own.features.log_costs[0], -speeds[own.key])):
            if not front or speeds[own.key] > speeds[front[-1].key]:
                front.append(own)
        if not front:
            return random.choice(candidates)
        trained = sum(bool(record.scores) for record in records)
        return front[(0, -1, len(front) // 2)[trained % 3]]

    def _candidates(self, records: Sequence[TrialRecord]) -> tuple[list[Candidate], Floats]:
        """Returns new and feasible networks, each once, then stopped ones, and the share of each training that is left.

        A stopped network continues from its checkpoint, which usually exists.

        Raises:
            SpaceExhaustedError: There is no new network, and no stopped one.
        """
        model = self._model(records)
        params = [record.params for record in records if record.subject.arch is not None]
        best = [] if model is None else list_best(model.known, params)
        random = Random(f"{self._manifest.seed}/{len(records)}/candidates")
        budget = self._manifest.plan.budgets[-1]
        stopped = {
            record.key: record
            for record in records
            if record.state == TrialState.STOPPED and record.params and record.score_at(budget) is None
        }
        try:
            new = self._source.list_new(best, is_known=self._is_known, random=random)
        except SpaceExhaustedError:
            if not stopped:
                raise
            new = []
        continued = self._source.admit([record.params for record in stopped.values() if record.params])
        reached = [max(score.images_seen for score in stopped[own.key].scores) for own in continued]
        rest = [1.0] * len(new) + [1.0 - images / budget for images in reached]
        return [*new, *continued], np.array(rest)
