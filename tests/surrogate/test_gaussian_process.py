import math

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Matern

from hilo_nas.surrogate.gaussian_process import Posterior, VariancePrior, fit_variances

KERNELS = {
    "matern": ConstantKernel(1.7) * Matern(0.8, nu=2.5),
    "rbf": ConstantKernel(0.6) * RBF(0.5),
    "linear": DotProduct(0.5),
}


def draw(count=25, others=10, seed=0):
    """Points with noisy values and the noise of each, and other points."""
    random = np.random.default_rng(seed)
    x_ND, x_MD = random.random((count, 3)), random.random((others, 3))
    noise_N = random.uniform(0.01, 0.1, count)
    values_N = np.sin(5 * x_ND[:, 0]) + x_ND[:, 1] + random.normal(0, np.sqrt(noise_N))
    return x_ND, values_N, noise_N, x_MD


def log_density(variances_K, grams_KNN, values_N, noise_N, priors):
    """The logarithm of what `fit_variances` maximises, up to a constant."""
    covariance = sum(variance * gram for variance, gram in zip(variances_K, grams_KNN, strict=True)) + np.diag(noise_N)
    total = multivariate_normal(np.zeros(len(values_N)), covariance).logpdf(values_N)
    for variance, prior in zip(variances_K, priors, strict=True):
        if prior.log_sd > 0:
            total -= 0.5 * (math.log(variance / prior.median) / prior.log_sd) ** 2
    return total


def draw_model(seed):
    """Gram matrices of two kernels and of noise, values, known noise and priors."""
    x_ND, values_N, noise_N, _ = draw(40, seed=seed)
    grams_KNN = [Matern(0.7, nu=2.5)(x_ND), RBF(0.2)(x_ND), np.eye(40)]
    priors = [
        VariancePrior(median=1.0, log_sd=1.5),
        VariancePrior(median=0.2, log_sd=1.0),
        VariancePrior(median=0.05, log_sd=0.5),
    ]
    return grams_KNN, values_N, noise_N, priors


@pytest.mark.parametrize("name", KERNELS)
def test_mean_and_deviation_are_those_of_scikit_learn(name):
    kernel, (x_ND, values_N, noise_N, x_MD) = KERNELS[name], draw()
    theirs = GaussianProcessRegressor(kernel, alpha=noise_N, optimizer=None).fit(x_ND, values_N)
    posterior = Posterior(kernel(x_ND), noise_N, values_N)
    mean_M, sd_M = posterior.predict(kernel(x_ND, x_MD), kernel.diag(x_MD))
    their_mean_M, their_sd_M = theirs.predict(x_MD, return_std=True)
    assert mean_M == pytest.approx(their_mean_M, abs=1e-6)
    assert sd_M == pytest.approx(their_sd_M, abs=1e-6)
    _, their_covariance_MM = theirs.predict(x_MD, return_cov=True)
    assert posterior.covariance(kernel(x_ND, x_MD), kernel(x_MD)) == pytest.approx(their_covariance_MM, abs=1e-6)


def test_a_point_without_noise_is_reproduced_and_equal_points_are_no_fault():
    x_ND = np.array([[0.0], [0.0], [0.7]])
    kernel = Matern(0.5, nu=2.5)
    mean_M, sd_M = Posterior(kernel(x_ND), np.zeros(3), np.array([1.0, 1.0, -1.0])).predict(kernel(x_ND), np.ones(3))
    assert mean_M == pytest.approx([1.0, 1.0, -1.0], abs=1e-4)
    assert np.all(sd_M > 0)
    assert np.all(sd_M < 1e-3)


def test_without_observations_the_prediction_is_the_prior():
    posterior = Posterior(np.empty((0, 0)), np.empty(0), np.empty(0))
    mean_M, sd_M = posterior.predict(np.empty((0, 2)), np.array([4.0, 9.0]))
    assert mean_M.tolist() == [0.0, 0.0]
    assert sd_M == pytest.approx([2.0, 3.0])


def test_without_observations_the_variances_are_the_medians():
    priors = [VariancePrior(median=2.0, log_sd=1.0), VariancePrior(median=0.3, log_sd=0.0)]
    assert fit_variances([np.empty((0, 0))] * 2, np.empty(0), np.empty(0), priors).tolist() == [2.0, 0.3]


@pytest.mark.parametrize("seed", range(3))
def test_the_slope_of_the_density_is_0_at_the_fitted_variances(seed):
    grams_KNN, values_N, noise_N, priors = draw_model(seed)
    found_K = fit_variances(grams_KNN, values_N, noise_N, priors)
    for k in range(len(priors)):
        step = np.where(np.arange(len(priors)) == k, 1e-4, 0.0)
        ends = [log_density(found_K * np.exp(s * step), grams_KNN, values_N, noise_N, priors) for s in (-1, 1)]
        start = [log_density(np.array([1.0, 0.2, 0.05]), grams_KNN, values_N, noise_N, priors)]
        assert (ends[1] - ends[0]) / 2e-4 == pytest.approx(0.0, abs=0.01)
        assert min(ends) > start[0]


@pytest.mark.parametrize("seed", range(3))
def test_the_fitted_variances_are_those_of_a_search_without_slopes(seed):
    grams_KNN, values_N, noise_N, priors = draw_model(seed)
    medians_K = np.array([prior.median for prior in priors])
    best = minimize(
        lambda logs: -log_density(medians_K * np.exp(logs), grams_KNN, values_N, noise_N, priors),
        np.zeros(3),
        method="Nelder-Mead",
        options={"xatol": 1e-4, "fatol": 1e-8},
    )
    assert fit_variances(grams_KNN, values_N, noise_N, priors) == pytest.approx(medians_K * np.exp(best.x), rel=0.01)


def test_fixed_variances_stay_fixed_while_others_are_fitted():
    grams_KNN, values_N, noise_N, priors = draw_model(0)
    priors[1] = VariancePrior(median=0.2, log_sd=0.0)
    found_K = fit_variances(grams_KNN, values_N, noise_N, priors)
    assert found_K[1] == 0.2
    assert found_K[0] != 1.0
    fixed = [VariancePrior(median=own, log_sd=0.0) for own in (3.0, 2.0, 1.0)]
    assert fit_variances(grams_KNN, values_N, noise_N, fixed).tolist() == [3.0, 2.0, 1.0]


def test_the_variances_of_values_drawn_from_the_model_are_recovered():
    random = np.random.default_rng(0)
    x_ND = random.random((250, 4))
    smooth_NN, linear_NN = RBF(0.3)(x_ND), DotProduct(0.0)(x_ND - 0.5)
    true_K = np.array([2.0, 0.1])
    grams_KNN = [smooth_NN, np.eye(250)]
    values_N = random.multivariate_normal(np.zeros(250), true_K[0] * smooth_NN + true_K[1] * np.eye(250))
    priors = [VariancePrior(median=0.5, log_sd=2.0), VariancePrior(median=1.0, log_sd=2.0)]
    found_K = fit_variances(grams_KNN, values_N, np.full(250, 1e-6), priors)
    assert found_K / true_K == pytest.approx([1.0, 1.0], abs=0.35)
    absent = fit_variances(
        [*grams_KNN, linear_NN], values_N, np.full(250, 1e-6), [*priors, VariancePrior(median=1.0, log_sd=2.0)]
    )
    assert absent[2] < 1.0


@pytest.mark.parametrize("groups", [[[3]], [[0, 1, 2], [7, 4]], [[i] for i in range(25)]])
def test_a_prediction_without_a_group_is_that_of_a_model_without_it(groups):
    kernel, (x_ND, values_N, noise_N, _) = KERNELS["matern"], draw()
    mean_N, sd_N = Posterior(kernel(x_ND), noise_N, values_N).leave_out(groups)
    for group in groups:
        rest = np.setdiff1d(np.arange(25), group)
        model = Posterior(kernel(x_ND[rest]), noise_N[rest], values_N[rest])
        expected, sd = model.predict(kernel(x_ND[rest], x_ND[group]), kernel.diag(x_ND[group]))
        assert mean_N[group] == pytest.approx(expected, abs=1e-6)
        assert sd_N[group] == pytest.approx(np.sqrt(sd**2 + noise_N[group]), abs=1e-6)
    alone = np.setdiff1d(np.arange(25), np.concatenate(groups))
    assert np.isnan(mean_N[alone]).all()
    assert np.isnan(sd_N[alone]).all()
