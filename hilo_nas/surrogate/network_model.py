"""Model of one property of networks, such as log images/s or a score, learnt from observations with uncertainty.

The model is a Gaussian process: a linear function of the logarithms of parameters and multiply-adds, a sum of functions
of single knobs, and two smooth functions of all knobs. Scores at rungs are cheaper, biased observations: each rung has
an offset that is linear in the costs, and a smooth deviation, both shared with the rungs below it. The scores of one
training share its seed noise, and timings in the same rounds the error of the reference.

Array names carry a shape suffix: U networks with observations, N observations, M networks to predict, K kernels.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hilo_nas.surrogate.features import Features
from hilo_nas.surrogate.gaussian_process import Floats, Posterior, VariancePrior, fit_variances, weighted_sum
from hilo_nas.surrogate.kernels import KERNELS

__all__ = ["NetworkModel", "Observations", "Prediction", "compute_kernels"]

_PRIORS: Mapping[str, VariancePrior] = {
    "linear": VariancePrior(median=2.0, log_sd=0.75),
    "additive": VariancePrior(median=0.5, log_sd=0.75),
    "smooth": VariancePrior(median=0.3, log_sd=0.75),
    "rough": VariancePrior(median=0.1, log_sd=0.75),
    "own": VariancePrior(median=0.01, log_sd=1.5),
}
"""Priors of the kernels' variances, relative to the variance of the observed values."""
_MEAN_VARIANCE = 4.0
"""Prior variance of the mean, and of the offset of a rung, relative to the variance of the observed values."""
_RUNG_PRIOR = VariancePrior(median=0.05, log_sd=1.5)
_KNOWN_NOISE = 1e-6
"""Noise variance that all observations have, relative to the variance of the observed values."""
_EQUAL = 1e-9
"""Relative standard deviation up to which values count as equal."""
_FIT_AT_MOST = 300
"""Maximum number of observations from which variances are fitted. Predictions use all observations."""
_REFIT_GROWTH = 1.1
"""Variances are fitted again when the observations have grown by this factor."""


def compute_kernels(a: Features, b: Features) -> Floats:
    """Returns the kernels between two sets of networks, shape [K, len(a), len(b)], in the order of `KERNELS`."""
    kernels_KNM = np.empty((len(KERNELS), len(a), len(b)))
    for k, kernel in enumerate(KERNELS.values()):
        kernels_KNM[k] = kernel(a, b)
    return kernels_KNM


@dataclasses.dataclass(frozen=True)
class Observations:
    """Noisy observations of one property, in the order of the trials."""

    network: NDArray[np.intp]
    """Index of the network of each observation."""
    values: Floats
    noise: Floats
    """Relative noise variances. The model fits their common factor around 1."""
    level: NDArray[np.intp]
    """Number of budgets above the observation's: 0 for the full budget."""
    group: NDArray[np.intp]
    """Number of the training, or of the shared rounds, that gave the observation. Equal numbers share a part of the
    noise."""

    @classmethod
    def of_networks(
        cls,
        networks: Sequence[int],
        values: Sequence[float],
        noise: Sequence[float],
        groups: Sequence[Hashable] | None = None,
    ) -> Observations:
        """Returns observations of different networks, without rungs.

        Args:
            networks: Index of each network.
            values: Observed values.
            noise: Relative noise variances.
            groups: Names of the groups that share noise. By default, no observations do.
        """
        index = np.asarray(networks, dtype=np.intp)
        names = range(len(index)) if groups is None else groups
        number_of = {name: number for number, name in enumerate(dict.fromkeys(names))}
        group = np.array([number_of[name] for name in names], dtype=np.intp)
        return cls(index, np.asarray(values, float), np.asarray(noise, float), np.zeros_like(index), group)

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: NDArray[np.intp]) -> Observations:
        """Returns a part of the observations."""
        return Observations(self.network[rows], self.values[rows], self.noise[rows], self.level[rows], self.group[rows])


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Latent values of M networks: without the noise of a measurement or training."""

    mean: Floats
    sd: Floats


class NetworkModel:
    """Model of one property, fitted to observations.

    The scale of the values and the variances depend only on the observations and their order: they are fitted to the
    first ones, whose number grows in steps of 10 %.

    Args:
        kernels_KUU: Kernels between the networks with observations (`compute_kernels`).
        observations: At least one observation.
        noise_log_sd: Uncertainty of the noise: standard deviation of the logarithm of its factor.
        previous: Model of the same property and features. Its variances are used if they were fitted to the same
            observations.
    """

    def __init__(
        self,
        kernels_KUU: Floats,
        observations: Observations,
        *,
        noise_log_sd: float = 1.0,
        previous: NetworkModel | None = None,
    ) -> None:
        self._kernels_KUU, self._observations = kernels_KUU, observations
        self._noise_log_sd, self._has_rungs = noise_log_sd, bool((observations.level > 0).any())
        self._shares_noise = self._has_rungs or len(np.unique(observations.group)) < len(observations)
        self._fitted = observations.take(_choose_rows(len(observations)))
        full = self._fitted.values[self._fitted.level == 0]
        values = full if len(full) else self._fitted.values
        self._mean = float(values.mean())
        largest = float(np.abs(values).max()) or 1.0
        self._sd = largest * float((values / largest).std())  # squares of tiny values would vanish
        if self._sd <= _EQUAL * abs(self._mean):  # equal values, up to rounding
            self._sd = math.sqrt(float(self._fitted.noise.mean())) or abs(self._mean) or 1.0
        if previous is not None and self._equals(previous):
            self.variances: Floats = previous.variances
        else:
            grams, priors = self._components(self._fitted)
            known = np.full(len(self._fitted), _KNOWN_NOISE)
            self.variances = fit_variances(grams, self._scaled(self._fitted), known, priors)

    def _equals(self, other: NetworkModel) -> bool:
        """Returns True if two models are fitted to the same observations."""
        ours, theirs = ([*dataclasses.astuple(model._fitted)] for model in (self, other))
        ours.extend([self._has_rungs, self._shares_noise])
        theirs.extend([other._has_rungs, other._shares_noise])
        return all(map(np.array_equal, ours, theirs))

    def _scaled(self, observations: Observations) -> Floats:
        return np.asarray((observations.values - self._mean) / self._sd)

    def _latent(self, kernels_KNM: Floats, variances: Floats) -> Floats:
        """Returns the covariance of values at the full budget."""
        return _MEAN_VARIANCE + weighted_sum(variances[1 : 1 + len(KERNELS)], kernels_KNM)

    def _components(self, observations: Observations) -> tuple[list[Floats], list[VariancePrior]]:
        """Returns Gram matrices and priors: mean, kernels, noise, offsets, deviations and noise of rungs, shared noise.

        Scores at rungs have a separate noise, because fewer images usually give noisier scores.
        """
        index = np.ix_(observations.network, observations.network)
        kernels_KNN = [kernel[index] for kernel in self._kernels_KUU]
        noise_N = np.square(np.sqrt(observations.noise) / self._sd)
        is_full_N = observations.level == 0
        grams = [np.ones_like(kernels_KNN[0]), *kernels_KNN, np.diag(noise_N * is_full_N)]
        priors = [VariancePrior(median=_MEAN_VARIANCE, log_sd=0.0), *_PRIORS.values()]
        noise_prior = VariancePrior(median=0.5 if self._shares_noise else 1.0, log_sd=self._noise_log_sd)
        priors.append(noise_prior)
        if self._has_rungs:
            shared_NN = np.minimum.outer(observations.level, observations.level).astype(float)
            by_name = dict(zip(KERNELS, kernels_KNN, strict=True))
            grams += [shared_NN * (1 + by_name["linear"]), shared_NN * by_name["smooth"], np.diag(noise_N * ~is_full_N)]
            priors += [VariancePrior(median=_MEAN_VARIANCE, log_sd=0.0), _RUNG_PRIOR, noise_prior]
        if self._shares_noise:
            same_NN = np.equal.outer(observations.group, observations.group).astype(float)
            grams.append(same_NN * np.sqrt(np.outer(noise_N, noise_N)))
            priors.append(noise_prior)
        return grams, priors

    @cached_property
    def _posterior(self) -> Posterior:
        grams, _ = self._components(self._observations)
        covariance_NN = weighted_sum(self.variances, grams)
        return Posterior(covariance_NN, np.full(len(covariance_NN), _KNOWN_NOISE), self._scaled(self._observations))

    def extended(self, networks: NDArray[np.intp], values: Floats) -> NetworkModel:
        """Returns the model with further observations at the full budget, of average noise.

        Scale and variances stay. Observations at the predicted means therefore keep all means.
        """
        own, count = self._observations, len(networks)
        first = int(own.group.max(initial=-1)) + 1
        extended = copy.copy(self)
        extended.__dict__.pop("_posterior", None)
        extended._observations = Observations(
            np.concatenate([own.network, networks]),
            np.concatenate([own.values, values]),
            np.concatenate([own.noise, np.full(count, own.noise.mean())]),
            np.concatenate([own.level, np.zeros(count, dtype=np.intp)]),
            np.concatenate([own.group, np.arange(first, first + count)]),
        )
        return extended

    @property
    def noise_sd(self) -> float:
        """Standard deviation of an observation at the full budget around the latent value, of average noise."""
        factor = self.variances[1 + len(KERNELS)] + (self.variances[-1] if self._shares_noise else 0.0)
        return math.sqrt(float(factor * self._observations.noise.mean()))

    def predict(self, cross_KUM: Floats, diagonal_KM: Floats) -> Prediction:
        """Returns the latent values of networks.

        Args:
            cross_KUM: Kernels between the networks with observations and those to predict.
            diagonal_KM: Kernels of each network to predict with itself.
        """
        cross_NM = self._latent(cross_KUM, self.variances)[self._observations.network]
        prior_M = self._latent(diagonal_KM, self.variances)
        mean_M, sd_M = self._posterior.predict(cross_NM, prior_M)
        return Prediction(self._mean + self._sd * mean_M, self._sd * sd_M)

    def predict_mean(self, cross_KUM: Floats) -> Floats:
        """Returns the means of the latent values of networks, shape [M]. Much faster than `predict` for many networks.

        Args:
            cross_KUM: Kernels between the networks with observations and those to predict.
        """
        cross_NM = self._latent(cross_KUM, self.variances)[self._observations.network]
        return np.asarray(self._mean + self._sd * self._posterior.predict_mean(cross_NM))

    def draw(self, cross_KUM: Floats, kernels_KMM: Floats, draws: int, generator: np.random.Generator) -> Floats:
        """Returns joint draws of latent values of M networks, shape [draws, M].

        Args:
            cross_KUM: Kernels between the networks with observations and those to draw.
            kernels_KMM: Kernels between the networks to draw.
            draws: Number of draws.
            generator: Generator of the draws.
        """
        cross_NM = self._latent(cross_KUM, self.variances)[self._observations.network]
        prior_MM = self._latent(kernels_KMM, self.variances)
        mean_M, _ = self._posterior.predict(cross_NM, np.diag(prior_MM))
        covariance_MM = self._posterior.covariance(cross_NM, prior_MM)
        drawn_DM = generator.multivariate_normal(mean_M, covariance_MM, draws, check_valid="ignore", method="eigh")
        return np.asarray(self._mean + self._sd * drawn_DM)

    def leave_one_out(self) -> Prediction:
        """Returns each observation predicted without those of its network. The deviations include the noise."""
        groups = [np.flatnonzero(self._observations.network == own) for own in np.unique(self._observations.network)]
        mean_N, sd_N = self._posterior.leave_out([list(group) for group in groups])
        return Prediction(self._mean + self._sd * mean_N, self._sd * sd_N)


def _choose_rows(count: int) -> NDArray[np.intp]:
    """Returns the observations from which variances are fitted: the first ones, or evenly spaced ones of many."""
    step = 1.0
    while round(step * _REFIT_GROWTH + 0.5) <= count:
        step = float(round(step * _REFIT_GROWTH + 0.5))
    first = min(int(step), count)
    return np.unique(np.linspace(0, first - 1, min(first, _FIT_AT_MOST)).astype(np.intp))
