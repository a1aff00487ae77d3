import dataclasses

import numpy as np
import pytest
from known_networks import draw_archs, scaled, values_of

from hilo_nas.surrogate.features import Features
from hilo_nas.surrogate.kernels import KERNELS
from hilo_nas.surrogate.network_model import NetworkModel, Observations, compute_kernels

NOISE = 0.02
KNOWN, OTHERS = draw_archs(60), draw_archs(120, seed=1)


def diagonal_of(features: Features):
    """Kernels of each network with itself."""
    return np.stack([np.diag(kernel(features, features)) for kernel in KERNELS.values()])


def fit(archs, observations=None, **options):
    """A model of networks, by default of their planted values with noise."""
    features = scaled(archs)
    if observations is None:
        values = values_of(archs, noise=NOISE)
        observations = Observations.of_networks(range(len(archs)), values, [NOISE**2] * len(archs))
    return NetworkModel(compute_kernels(features, features), observations, **options)


def predict(model, archs, others=OTHERS):
    """The predictions of a model of `archs` for other networks."""
    features = scaled(others)
    return model.predict(compute_kernels(scaled(archs), features), diagonal_of(features))


def error_of(prediction, others=OTHERS):
    return float(np.sqrt(np.mean((prediction.mean - values_of(others)) ** 2)))


def test_a_planted_function_is_predicted_far_better_than_by_its_mean():
    assert error_of(predict(fit(KNOWN), KNOWN)) < 0.35 * values_of(OTHERS).std()


def test_more_observations_lower_the_error_and_the_deviations():
    few, many = (predict(fit(KNOWN[:count]), KNOWN[:count]) for count in (8, 60))
    assert error_of(many) < error_of(few)
    assert many.sd.mean() < few.sd.mean()


def test_intervals_of_80_percent_hold_about_80_percent_of_the_values():
    covered = []
    for seed in range(4):
        archs = draw_archs(40, seed=10 + seed)
        random = np.random.default_rng(seed)
        own = dict(zip([a.key() for a in archs + OTHERS], random.normal(0, 0.03, 160), strict=True))
        values = values_of(archs, noise=NOISE, seed=seed) + [own[arch.key()] for arch in archs]
        observations = Observations.of_networks(range(40), values, [NOISE**2] * 40)
        found = predict(fit(archs, observations), archs)
        truth = values_of(OTHERS) + [own[arch.key()] for arch in OTHERS]
        covered.append(np.mean(np.abs(truth - found.mean) < 1.2816 * found.sd))
    assert np.mean(covered) == pytest.approx(0.8, abs=0.1)


def test_the_unit_of_the_values_scales_mean_and_deviation():
    values = values_of(KNOWN, noise=NOISE)
    one, other = (
        predict(
            fit(KNOWN, Observations.of_networks(range(60), unit * values + shift, [(unit * NOISE) ** 2] * 60)), KNOWN
        )
        for unit, shift in ((1.0, 0.0), (1000.0, -300.0))
    )
    assert other.mean == pytest.approx(1000 * one.mean - 300, rel=1e-4)
    assert other.sd == pytest.approx(1000 * one.sd, rel=1e-3)


def rung_observations(full, rungs, rung_noise=0.005):
    """Scores at the full budget of some networks, and at a rung of these and further ones, lower by a trend."""
    order = [*range(full), *range(rungs)]
    values = values_of(KNOWN)
    level = np.array([0] * full + [1] * rungs)
    noise = np.random.default_rng(5).normal(0, np.where(level == 0, 0.005, rung_noise))
    scores = np.where(level == 0, values[order], 0.7 * values[order] - 0.05) + noise
    return Observations(np.array(order), scores, np.full(len(order), 0.005**2), level, np.array(order))


def test_scores_at_a_rung_lower_the_error_of_values_at_the_full_budget():
    without, with_rungs = (predict(fit(KNOWN, rung_observations(8, rungs)), KNOWN) for rungs in (0, 60))
    assert error_of(with_rungs) < 0.8 * error_of(without)
    assert with_rungs.sd.mean() < without.sd.mean()


def test_values_at_the_full_budget_are_predicted_not_those_at_the_rung():
    found = predict(fit(KNOWN, rung_observations(20, 60)), KNOWN)
    assert found.mean.mean() == pytest.approx(values_of(OTHERS).mean(), abs=0.05)


def test_noisy_scores_at_a_rung_do_not_make_those_at_the_full_budget_noisy():
    model = fit(KNOWN, rung_observations(40, 60, rung_noise=0.05))
    assert model.noise_sd < 0.015


def test_scores_at_a_rung_alone_are_enough_for_a_model():
    observations = rung_observations(8, 60)
    found = predict(fit(KNOWN, observations.take(np.flatnonzero(observations.level == 1))), KNOWN)
    assert np.corrcoef(found.mean, values_of(OTHERS))[0, 1] > 0.6
    assert found.sd.mean() > predict(fit(KNOWN, observations), KNOWN).sd.mean()


@pytest.mark.parametrize("has_rungs", [False, True])
def test_further_observations_at_the_means_keep_all_means_and_shrink_deviations(has_rungs):
    archs = draw_archs(64)
    observations = rung_observations(20, 60) if has_rungs else Observations.of_networks(
        range(60), values_of(KNOWN, noise=NOISE), [NOISE**2] * 60
    )  # fmt: skip
    model = fit(archs, observations)
    before = predict(model, archs, archs)
    new = np.arange(60, 64)
    after = predict(extended := model.extended(new, before.mean[new]), archs, archs)
    assert extended.variances is model.variances
    assert after.mean == pytest.approx(before.mean, abs=1e-6)
    assert np.all(after.sd <= before.sd + 1e-9)
    assert np.all(after.sd[new] < 0.9 * before.sd[new])


def test_a_further_observation_pulls_its_network_towards_it():
    archs = draw_archs(61)
    model = fit(archs, Observations.of_networks(range(60), values_of(KNOWN), [NOISE**2] * 60))
    before = predict(model, archs, archs[60:])
    after = predict(model.extended(np.array([60]), before.mean + 0.3), archs, archs[60:])
    assert before.mean < after.mean < before.mean + 0.3


def test_an_equal_model_follows_from_equal_observations():
    first, second = predict(fit(KNOWN), KNOWN), predict(fit(KNOWN), KNOWN)
    assert first.mean.tolist() == second.mean.tolist()
    assert first.sd.tolist() == second.sd.tolist()


def test_variances_change_in_few_steps_as_observations_grow():
    found = [fit(KNOWN[:count]).variances for count in range(30, 60)]
    # Matrix products of other sizes may differ in the last digits, on some processors.
    changes = sum(not np.allclose(found[i], found[i + 1], rtol=1e-6) for i in range(len(found) - 1))
    assert 3 <= changes <= 10


def test_variances_depend_on_the_first_observations_alone():
    values, noise = values_of(KNOWN, noise=NOISE), [NOISE**2] * 60
    counts = [
        count
        for count in range(30, 59)
        if np.array_equal(fit(KNOWN[:count]).variances, fit(KNOWN[: count + 1]).variances)
    ]
    count = counts[0] + 1
    other = values.copy()
    other[count - 1] += 1.0
    first, second = (
        fit(KNOWN, Observations.of_networks(range(count), own[:count], noise[:count])) for own in (values, other)
    )
    assert first.variances.tolist() == second.variances.tolist()
    assert not np.allclose(predict(first, KNOWN).mean, predict(second, KNOWN).mean)


def test_an_observation_left_out_has_no_part_in_its_prediction():
    values = values_of(KNOWN)
    model = fit(KNOWN, Observations.of_networks(range(60), values, [NOISE**2] * 60))
    other = values.copy()
    other[59] += 0.5
    changed = fit(KNOWN, Observations.of_networks(range(60), other, [NOISE**2] * 60))
    before, after = model.leave_one_out(), changed.leave_one_out()
    assert after.mean[59] == pytest.approx(before.mean[59])
    assert after.sd == pytest.approx(before.sd)
    assert not np.allclose(after.mean[:59], before.mean[:59])


def test_all_scores_of_a_network_are_left_out_together():
    observations = rung_observations(20, 60)
    alone = observations.take(np.flatnonzero(observations.network != 3))
    model = fit(KNOWN, observations)
    rest = fit(KNOWN, alone)
    own = [i for i in range(80) if observations.network[i] == 3 and observations.level[i] == 0]
    expected, with_own = predict(rest, KNOWN, KNOWN[3:4]), predict(model, KNOWN, KNOWN[3:4])
    found = model.leave_one_out()
    assert abs(found.mean[own] - expected.mean) < 0.5 * abs(with_own.mean - expected.mean)
    assert found.sd[own] > with_own.sd


def test_the_noise_is_found_where_its_given_size_is_wrong():
    archs = draw_archs(150)
    observations = Observations.of_networks(range(150), values_of(archs, noise=0.05), [0.02**2] * 150)
    assert fit(archs, observations).noise_sd == pytest.approx(0.05, rel=0.3)


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5, 0.5], [0.0, 0.0]])
def test_observations_without_a_spread_have_a_model(values):
    observations = Observations.of_networks(range(len(values)), values, [0.01] * len(values))
    found = predict(fit(KNOWN, observations), KNOWN)
    assert found.mean == pytest.approx(values[0], abs=0.05)
    assert np.all(found.sd > 0)


def test_a_part_of_observations_keeps_their_fields_together():
    observations = rung_observations(4, 6)
    part = observations.take(np.array([0, 7]))
    assert len(part) == 2
    for field in dataclasses.fields(Observations):
        assert getattr(part, field.name).tolist() == getattr(observations, field.name)[[0, 7]].tolist()


@pytest.mark.parametrize("value", [0.5, 0.3, 0.6, 0.7, 1e-200, 0.0, -4.0])
def test_equal_values_keep_the_errors_of_their_observations(value):
    found = fit(KNOWN[:10], Observations.of_networks(range(10), [value] * 10, [0.02**2] * 10))
    own = predict(found, KNOWN[:10])
    assert own.mean == pytest.approx(value, abs=1e-3)
    assert np.all((own.sd > 1e-3) & (own.sd < 0.1))


@pytest.mark.parametrize("unit", [1e-200, 1e-12, 1e9])
def test_values_of_any_unit_have_a_model(unit):
    values = values_of(KNOWN[:20])
    one, other = (
        predict(fit(KNOWN[:20], Observations.of_networks(range(20), factor * values, [0.0] * 20)), KNOWN[:20])
        for factor in (1.0, unit)
    )
    assert other.mean / unit == pytest.approx(one.mean, abs=0.01)
