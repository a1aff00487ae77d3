"""Model of a search: predicted speed, value, chance of feasibility and expected gain of any network of the space.

The reference point of the hypervolume is the speed limit, or else a low quantile of the predicted speeds, and the score
of guessing, or else the lowest known value. The front in the expected gain consists of posterior means, not of measured
scores, because the largest of many noisy scores is too high.

Array names carry a shape suffix: U known networks, M networks to predict, K kernels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from hilo_nas.surrogate.features import Features, FeatureScale, NetworkFeatures
from hilo_nas.surrogate.gaussian_process import Floats
from hilo_nas.surrogate.improvement import expected_improvement, staircase
from hilo_nas.surrogate.kernels import KERNELS
from hilo_nas.surrogate.network_model import NetworkModel, Observations, Prediction, compute_kernels
from hilo_nas.surrogate.observations import KnownNetwork, KnownScore

__all__ = ["MIN_TIMED", "MIN_TRAINED", "Forecast", "KnownMeans", "SearchModel"]

MIN_TIMED, MIN_TRAINED = 5, 3
"""Number of timed and of trained networks from which models are fitted."""
_SLOW_QUANTILE = 0.02
"""Quantile of the predicted speeds that is the reference speed of a study without a speed limit."""
_POOL_FOR_SPEEDS = 300
"""Number of networks of the pool from which the reference speed follows."""
_SPEED_NOISE = 0.02
"""Least relative error of a timing, which a model of log images/s assumes."""
_BRIEF_NOISE = 0.1
"""Least relative error of a brief timing. Its rounds show only a part: all networks of a group share the error of the
reference (`timing.throughput`)."""
_OUTCOME_NOISE = 0.1
"""Relative variance of the outcome of a training, 1 or -1, that does not follow from its network."""


_MANY_SCORES = 600
"""Number of scores above which only the last ones of most trainings are used, because time grows with its cube."""
_Scored = tuple[int, KnownScore, str]
"""Row of a network, one of its scores, and the name of the training."""


@dataclasses.dataclass(frozen=True)
class Forecast:
    """Predictions for M networks. Full timings replace predicted speeds."""

    speed: Floats
    """Mean log images/s."""
    speed_sd: Floats
    """Standard deviation of the log images/s: 0 for a timed network, and its error for one that was timed briefly."""
    is_timed: NDArray[np.bool_]
    """True for networks with a full timing."""
    value: Floats
    """Mean value at the full budget."""
    value_sd: Floats
    """Standard deviation of the latent value, without the noise of a training."""
    feasible: Floats
    """Probability that the network meets all measured limits and does not fail."""

    def with_speed(self, speed: Floats) -> Forecast:
        """Returns the predictions if the log images/s were known."""
        return dataclasses.replace(self, speed=speed, speed_sd=np.zeros_like(speed))

    def take(self, rows: NDArray[np.intp]) -> Forecast:
        """Returns the predictions of some of the networks."""
        return Forecast(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True)
class KnownMeans:
    """Predicted means of known networks. Their deviations would cost half of the time of a proposal."""

    speed: Floats
    """Log images/s, the measured one of networks that are timed in full."""
    value: Floats
    """Mean value at the full budget."""


class SearchModel:
    """Models of a study, fitted to its known networks.

    Args:
        networks: Known networks, in the order of their trials. At least `MIN_TIMED` are timed and `MIN_TRAINED` have a
            score.
        scale: Scale of the features.
        pool: Networks of the space, from which the reference speed follows.
        chance: Score of guessing; None if the proxy's metric has none.
        min_log_speed: Speed limit as log images/s, if there is one.
        previous: Model of the same study from fewer observations. It saves time, and changes no result.
    """

    def __init__(
        self,
        networks: Sequence[KnownNetwork],
        scale: FeatureScale,
        pool: Sequence[NetworkFeatures],
        *,
        chance: float | None = None,
        min_log_speed: float | None = None,
        previous: SearchModel | None = None,
    ) -> None:
        self._networks, self._scale = list(networks), scale
        self._previous: SearchModel | None = previous
        self._row_of = {network.key: row for row, network in enumerate(self._networks)}
        self._features = scale.transform([network.features for network in self._networks])
        self._kernels_KUU = self._extend_kernels()
        self._speed = self._fit_speeds()
        self._limits = self._fit_limits()
        self._failures = self._fit_failures()
        self._value = self._fit_values()
        self.known = known = self._predict_known()
        """Predicted means of the known networks, in their order."""
        if min_log_speed is None:
            some = pool[:: -(-len(pool) // _POOL_FOR_SPEEDS)] if pool else ()
            speeds = self._predict(self._speed, scale.transform(some)).mean if some else known.speed
            min_log_speed = float(np.quantile(np.concatenate([speeds, known.speed]), _SLOW_QUANTILE))
        if chance is None:
            chance = min(score.value for network in self._networks for score in network.scores)
        self.ref_point = (min_log_speed, chance)
        """Reference point of the hypervolume: log images/s and value."""
        rows = [
            row
            for row, network in enumerate(self._networks)
            if network.is_running or (network.is_trained and all(value <= 0 for value in network.violations.values()))
        ]
        self.steps = staircase(known.speed[rows], known.value[rows], self.ref_point)
        """Front of the fully trained and running networks by their predicted values (`improvement.staircase`)."""
        self._previous = None  # models of all earlier proposals would stay in memory

    def _predict_known(self) -> KnownMeans:
        speed_U = self._speed.predict_mean(self._kernels_KUU)
        for row, network in enumerate(self._networks):
            if network.is_timed and network.log_speed is not None:
                speed_U[row] = network.log_speed
        return KnownMeans(speed_U, self._value.predict_mean(self._kernels_KUU))

    @cached_property
    def known_value_sd(self) -> Floats:
        """Standard deviations of the latent values of the known networks, in their order. Slow for many networks."""
        return self._value.predict(self._kernels_KUU, _diagonal(self._features)).sd

    def _extend_kernels(self) -> Floats:
        """Returns the kernels between the known networks. Those between networks of the previous model are copied."""
        features, previous = self._features, self._previous
        old = 0 if previous is None else len(previous._features)
        if previous is None or not np.array_equal(features.ids[:old], previous._features.ids):
            return compute_kernels(features, features)
        cross_KUN = compute_kernels(features, features.take(slice(old, None)))
        kernels_KUU = np.empty((len(KERNELS), len(features), len(features)))
        kernels_KUU[:, :old, :old] = previous._kernels_KUU
        kernels_KUU[:, :, old:] = cross_KUN
        kernels_KUU[:, old:, :old] = cross_KUN[:, :old].transpose(0, 2, 1)
        return kernels_KUU

    def _fit_speeds(self) -> NetworkModel:
        rows = [row for row, network in enumerate(self._networks) if network.log_speed is not None]
        networks = [self._networks[row] for row in rows]
        speeds = [network.log_speed for network in networks if network.log_speed is not None]
        least = [_BRIEF_NOISE if network.is_preliminary else _SPEED_NOISE for network in networks]
        errors = [max(network.log_speed_error, error) ** 2 for network, error in zip(networks, least, strict=True)]
        return NetworkModel(
            self._kernels_KUU,
            Observations.of_networks(rows, speeds, errors, [network.group or network.key for network in networks]),
            noise_log_sd=0.5,
            previous=self._previous._speed if self._previous else None,
        )

    def _fit_limits(self) -> dict[str, NetworkModel]:
        """Returns a model of the violation of each measured limit that some network with timings violates or meets."""
        names = sorted(
            {name for network in self._networks if network.log_speed is not None for name in network.violations}
        )
        models = {}
        for name in names:
            rows = [row for row, network in enumerate(self._networks) if name in network.violations]
            values = [self._networks[row].violations[name] for row in rows]
            if len(rows) >= MIN_TIMED and min(values) < max(values):
                noise = [_SPEED_NOISE**2] * len(rows)
                observations = Observations.of_networks(rows, values, noise)
                previous = self._previous._limits.get(name) if self._previous else None
                models[name] = NetworkModel(self._kernels_KUU, observations, previous=previous)
        return models

    def _fit_values(self) -> NetworkModel:
        found = _thin(
            [
                (row, score, f"{network.key}/{score.seed}")
                for row, network in enumerate(self._networks)
                for score in network.scores
            ]
        )
        trainings = {name: number for number, name in enumerate(dict.fromkeys(name for *_, name in found))}
        values = np.array([score.value for _, score, _ in found])
        noise = np.array([score.standard_error**2 for _, score, _ in found])
        observations = Observations(
            np.array([row for row, *_ in found], dtype=np.intp),
            values,
            np.maximum(noise, 1e-4 * values.var() + 1e-12 * float(np.abs(values).max()) ** 2),
            np.array([score.budgets_left for _, score, _ in found], dtype=np.intp),
            np.array([trainings[name] for *_, name in found], dtype=np.intp),
        )
        model = NetworkModel(
            self._kernels_KUU, observations, previous=self._previous._value if self._previous else None
        )
        running = [row for row, network in enumerate(self._networks) if network.is_running and not network.is_trained]
        if not running:
            return model
        # A running network counts by its mean, with the variance that its score will leave.
        mean = model.predict(self._kernels_KUU[:, :, running], np.ones((len(KERNELS), len(running)))).mean
        return model.extended(np.array(running, dtype=np.intp), mean)

    def _predict(self, model: NetworkModel, features: Features) -> Prediction:
        cross_KUM = compute_kernels(self._features, features)
        return model.predict(cross_KUM, _diagonal(features))

    def forecast(self, networks: Sequence[NetworkFeatures], keys: Sequence[str]) -> Forecast:
        """Returns the predictions for networks, which may be known ones.

        Args:
            networks: Features of the networks.
            keys: Their keys.
        """
        features = self._scale.transform(networks)
        return self._forecast(compute_kernels(self._features, features), _diagonal(features), keys)

    def _forecast(self, cross_KUM: Floats, diagonal_KM: Floats, keys: Sequence[str]) -> Forecast:
        speed = self._speed.predict(cross_KUM, diagonal_KM)
        speed_M, speed_sd_M = speed.mean.copy(), speed.sd.copy()
        value = self._value.predict(cross_KUM, diagonal_KM)
        feasible_M = self._chance_of_success(cross_KUM, diagonal_KM)
        for name, model in self._limits.items():
            excess = model.predict(cross_KUM, diagonal_KM)
            chance_M = ndtr(-excess.mean / excess.sd)
            for m, key in enumerate(keys):
                row = self._row_of.get(key)
                if row is not None and self._networks[row].is_timed and name in self._networks[row].violations:
                    chance_M[m] = float(self._networks[row].violations[name] <= 0)
            feasible_M = feasible_M * chance_M
        is_timed_M = np.zeros(len(keys), dtype=bool)
        for m, key in enumerate(keys):
            row = self._row_of.get(key)
            network = None if row is None else self._networks[row]
            if network is not None and network.log_speed is not None:
                is_timed_M[m] = network.is_timed
                if network.is_timed:
                    speed_M[m], speed_sd_M[m] = network.log_speed, 0.0
        return Forecast(speed_M, speed_sd_M, is_timed_M, value.mean, value.sd, feasible_M)

    def _fit_failures(self) -> NetworkModel | None:
        """Returns a model of 1 for failures and -1 for successes; None if they are too few or all the same."""
        tried = [row for row, network in enumerate(self._networks) if network.has_failed or network.scores]
        outcomes = [1.0 if self._networks[row].has_failed else -1.0 for row in tried]
        if len(tried) < MIN_TIMED or len(set(outcomes)) < 2:
            return None
        return NetworkModel(self._kernels_KUU, Observations.of_networks(tried, outcomes, [_OUTCOME_NOISE] * len(tried)))

    def _chance_of_success(self, cross_KUM: Floats, diagonal_KM: Floats) -> Floats:
        """Returns the probability that a training does not fail, from failures of similar networks."""
        if self._failures is None:
            return np.ones(cross_KUM.shape[2])
        outcome = self._failures.predict(cross_KUM, diagonal_KM)
        return np.asarray(ndtr(-outcome.mean / np.hypot(outcome.sd, self._failures.noise_sd)))

    @property
    def score_sd(self) -> float:
        """Standard deviation of a score at the full budget around the latent value."""
        return self._value.noise_sd

    def draw_values(self, networks: Sequence[NetworkFeatures], draws: int, generator: np.random.Generator) -> Floats:
        """Returns joint draws of the latent values of networks at the full budget, shape [draws, networks]."""
        features = self._scale.transform(networks)
        cross_KUM, kernels_KMM = compute_kernels(self._features, features), compute_kernels(features, features)
        return self._value.draw(cross_KUM, kernels_KMM, draws, generator)

    def gain(self, forecast: Forecast) -> Floats:
        """Returns the expected gain in hypervolume from a full training of each network, shape [M].

        The unit is log images/s times value. Infeasible networks gain nothing.
        """
        found_M = expected_improvement(self.steps, forecast.speed, forecast.speed_sd, forecast.value, forecast.value_sd)
        return np.asarray(found_M * forecast.feasible)

    def gain_of_timing(self, forecast: Forecast, cost_M: Floats, random: np.random.Generator, draws: int = 64) -> float:
        """Returns the expected growth of the largest gain per cost if the speeds of these networks were known.

        Args:
            forecast: Predictions of the networks.
            cost_M: Cost of the training of each network.
            random: Generator of the draws.
            draws: Number of draws of the speeds.
        """
        drawn_DM = forecast.speed + forecast.speed_sd * random.standard_normal((draws, len(forecast.speed)))
        best = [float((self.gain(forecast.with_speed(drawn_M)) / cost_M).max()) for drawn_M in drawn_DM]
        return max(math.fsum(best) / draws - float((self.gain(forecast) / cost_M).max()), 0.0)


def _thin(found: Sequence[_Scored]) -> Sequence[_Scored]:
    """Returns scores to learn from: all of few, else all scores of the first trainings and the last one of the others.

    The first trainings show what scores at rungs tell. In later ones, the score at the largest budget tells most.
    """
    if len(found) <= _MANY_SCORES:
        return found
    first = {training for _, _, training in found[: _MANY_SCORES // 2]}
    last: dict[str, int] = {}
    for _, score, training in found:
        last[training] = min(score.budgets_left, last.get(training, score.budgets_left))
    return [own for own in found if own[2] in first or own[1].budgets_left == last[own[2]]]


def _diagonal(features: Features) -> Floats:
    """Returns the kernels of each network with itself, shape [K, M]."""
    ones_M = np.ones(len(features))
    linear_M = np.square(features.costs).sum(axis=1) / features.costs.shape[1]
    return np.stack([linear_M if name == "linear" else ones_M for name in KERNELS])
