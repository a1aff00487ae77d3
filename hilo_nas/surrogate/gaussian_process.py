"""Gaussian process over precomputed Gram matrices.

The covariance of the values is a sum of components, `sum_k variance_k * gram_k`, plus known noise. A component can be
any positive semidefinite matrix: a kernel of features, a linear mean, or noise that some observations share. Only the
variances are fitted. Rasmussen and Williams 2006, Gaussian Processes for Machine Learning, sections 2.2, 5.4.

Array names carry a shape suffix: N observations, M networks to predict, K components.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

__all__ = ["Floats", "Posterior", "VariancePrior", "fit_variances", "weighted_sum"]

Floats = NDArray[np.float64]
_JITTER = 1e-9
"""Added to the diagonal, relative to its mean, because equal networks give singular matrices."""
_MAX_ITERATIONS = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class VariancePrior:
    """Log-normal prior of a component's variance."""

    median: float
    """Median of the variance, above 0, in squared units of the values."""
    log_sd: float
    """Standard deviation of the logarithm; 0 fixes the variance at its median."""


def fit_variances(
    grams_KNN: Sequence[Floats], values_N: Floats, noise_N: Floats, priors: Sequence[VariancePrior]
) -> Floats:
    """Returns the variances with the largest posterior density, shape [K].

    The density is the marginal likelihood times the priors. The cost is about 30 factorisations of an N x N matrix.

    Args:
        grams_KNN: Gram matrices of the components.
        values_N: Observed values, with zero mean.
        noise_N: Known variances of the observations' errors.
        priors: Priors of the variances, one per component.
    """
    medians_K = np.array([prior.median for prior in priors])
    free = [k for k, prior in enumerate(priors) if prior.log_sd > 0]
    spreads = np.array([priors[k].log_sd for k in free])
    if not free or not len(values_N):
        return medians_K
    identity_NN = np.eye(len(values_N))

    def loss(steps: Floats) -> tuple[float, Floats]:
        variances_K = medians_K.copy()
        variances_K[free] *= np.exp(steps * spreads)
        covariance_NN = weighted_sum(variances_K, grams_KNN)
        factor = _factor(covariance_NN, noise_N)
        weights_N = cho_solve(factor, values_N)
        inverse_NN = cho_solve(factor, identity_NN)
        value = 0.5 * values_N @ weights_N + np.log(np.diag(factor[0])).sum() + 0.5 * steps @ steps
        outer_NN = inverse_NN - np.outer(weights_N, weights_N)
        slopes = [0.5 * variances_K[k] * np.vdot(outer_NN, grams_KNN[k]) for k in free]
        return float(value), np.array(slopes) * spreads + steps

    found = minimize(
        loss, np.zeros(len(free)), jac=True, method="L-BFGS-B", bounds=[(-6.0, 6.0)] * len(free),
        options={"maxiter": _MAX_ITERATIONS},
    )  # fmt: skip
    medians_K[free] *= np.exp(found.x * spreads)
    return medians_K


class Posterior:
    """Gaussian process with fixed variances, conditioned on observations.

    Args:
        covariance_NN: Covariance of the latent values, without the known noise.
        noise_N: Known variances of the observations' errors.
        values_N: Observed values, with zero prior mean.
    """

    def __init__(self, covariance_NN: Floats, noise_N: Floats, values_N: Floats) -> None:
        self._factor = _factor(covariance_NN, noise_N)
        self._values_N = values_N
        # Versions of SciPy before 1.14 cannot solve systems without equations.
        self._weights_N = cho_solve(self._factor, values_N) if len(values_N) else values_N

    def predict(self, cross_NM: Floats, prior_M: Floats) -> tuple[Floats, Floats]:
        """Returns mean and standard deviation of latent values, shapes [M] and [M].

        Args:
            cross_NM: Covariance between the observations and the latent values.
            prior_M: Prior variance of the latent values.
        """
        if not len(self._values_N):
            return self.predict_mean(cross_NM), np.sqrt(prior_M)
        reduced_NM = solve_triangular(self._factor[0], cross_NM, lower=True, check_finite=False)
        variance_M = prior_M - np.einsum("nm,nm->m", reduced_NM, reduced_NM)
        return self.predict_mean(cross_NM), np.sqrt(np.maximum(variance_M, 1e-12 * prior_M))

    def predict_mean(self, cross_NM: Floats) -> Floats:
        """Returns the mean of latent values, shape [M]. Costs O(N M), the deviation that `predict` adds O(N^2 M).

        Args:
            cross_NM: Covariance between the observations and the latent values.
        """
        return np.asarray(cross_NM.T @ self._weights_N) if len(self._values_N) else np.zeros(cross_NM.shape[1])

    def covariance(self, cross_NM: Floats, prior_MM: Floats) -> Floats:
        """Returns the posterior covariance of latent values, shape [M, M]."""
        reduced_NM = solve_triangular(self._factor[0], cross_NM, lower=True, check_finite=False)
        return np.asarray(prior_MM - reduced_NM.T @ reduced_NM)

    def leave_out(self, groups: Sequence[Sequence[int]]) -> tuple[Floats, Floats]:
        """Returns mean and standard deviation of each observation, predicted without its group.

        The deviation includes the known noise. The variances of the components are not fitted again.

        Args:
            groups: Indices of the observations of each group. Observations in no group get NaN.
        """
        inverse_NN = cho_solve(self._factor, np.eye(len(self._values_N)))
        mean_N, sd_N = np.full((2, len(self._values_N)), math.nan)
        for group in groups:
            index = np.asarray(group)
            covariance = np.linalg.inv(inverse_NN[np.ix_(index, index)])
            mean_N[index] = self._values_N[index] - covariance @ self._weights_N[index]
            sd_N[index] = np.sqrt(np.diag(covariance))
        return mean_N, sd_N


def weighted_sum(weights_K: Floats, arrays: Sequence[Floats] | Floats) -> Floats:
    """Returns the sum of K arrays of equal shape, each times its weight."""
    total = np.zeros_like(arrays[0])
    for weight, array in zip(weights_K, arrays, strict=True):
        total += weight * array
    return total


def _factor(covariance_NN: Floats, noise_N: Floats) -> tuple[Floats, bool]:
    total_NN = covariance_NN.copy()
    diagonal = np.einsum("nn->n", total_NN)
    diagonal += noise_N + _JITTER * diagonal.sum() / max(len(diagonal), 1)
    factor, lower = cho_factor(total_NN, lower=True, overwrite_a=True, check_finite=False)
    return factor, lower
