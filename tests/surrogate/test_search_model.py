import dataclasses
import math

import numpy as np
import pytest
from known_networks import (
    describe,
    draw_archs,
    know,
    know_trained,
    log_speed_of,
    scale_of_space,
    value_of,
    values_of,
)

from hilo_nas.study.pareto import hypervolume
from hilo_nas.surrogate.observations import KnownScore
from hilo_nas.surrogate.search_model import SearchModel

KNOWN, OTHERS = draw_archs(40), draw_archs(150, seed=1)
CHANCE = 0.1


def fit(networks, pool=OTHERS, **options):
    return SearchModel(networks, scale_of_space(), describe(pool), **{"chance": CHANCE, **options})


def forecast(model, archs=OTHERS):
    return model.forecast(describe(archs), [arch.key() for arch in archs])


def growth(model, points, archs=OTHERS):
    """Growth of the hypervolume of `points` by each network, by the planted speeds and values."""
    before = hypervolume(points, model.ref_point)
    return np.array([hypervolume([*points, (log_speed_of(a), value_of(a))], model.ref_point) - before for a in archs])


def test_speeds_and_values_of_other_networks_are_predicted():
    found = forecast(fit(know_trained(KNOWN)))
    speeds = np.array([log_speed_of(arch) for arch in OTHERS])
    assert np.sqrt(np.mean((found.speed - speeds) ** 2)) < 0.2 * speeds.std()
    assert np.sqrt(np.mean((found.value - values_of(OTHERS)) ** 2)) < 0.4 * values_of(OTHERS).std()
    assert np.all(found.feasible == 1)


def test_measured_speeds_replace_predicted_ones():
    networks = [
        dataclasses.replace(own, log_speed=own.log_speed + 0.5 * (i % 2)) for i, own in enumerate(know_trained(KNOWN))
    ]
    found = forecast(fit(networks), [*KNOWN, *OTHERS])
    assert found.speed[:40].tolist() == [own.log_speed for own in networks]
    assert np.all(found.speed_sd[:40] == 0)
    assert np.all(found.speed_sd[40:] > 0)
    assert found.is_timed.tolist() == [True] * 40 + [False] * 150


def test_a_brief_timing_narrows_a_speed_without_replacing_it():
    brief = dataclasses.replace(know(OTHERS[0]), is_preliminary=True, log_speed=log_speed_of(OTHERS[0]) + 0.1)
    before, after = (
        forecast(fit(networks), OTHERS[:1]) for networks in (know_trained(KNOWN), [*know_trained(KNOWN), brief])
    )
    assert not after.is_timed[0]
    assert 0 < after.speed_sd[0] < before.speed_sd[0]
    assert before.speed[0] < after.speed[0] < brief.log_speed


def test_the_known_networks_are_forecast_in_their_order():
    model = fit(know_trained(KNOWN))
    assert model.known.speed.tolist() == [log_speed_of(arch) for arch in KNOWN]
    assert model.known.value == pytest.approx(forecast(model, KNOWN).value)


def test_a_part_of_a_forecast_keeps_its_fields_together():
    whole = forecast(fit(know_trained(KNOWN)))
    part = whole.take(np.array([3, 1]))
    for field in dataclasses.fields(whole):
        assert getattr(part, field.name).tolist() == getattr(whole, field.name)[[3, 1]].tolist()


def test_the_reference_is_the_speed_limit_and_the_score_of_guessing():
    assert fit(know_trained(KNOWN), min_log_speed=5.5).ref_point == (5.5, CHANCE)


def test_without_a_limit_the_reference_speed_is_that_of_slow_networks():
    low, _ = fit(know_trained(KNOWN)).ref_point
    speeds = sorted(log_speed_of(arch) for arch in [*OTHERS, *KNOWN])
    assert speeds[0] - 0.2 < low < speeds[len(speeds) // 10]


def test_networks_below_the_speed_limit_gain_nothing():
    model = fit([*know_trained(KNOWN), *map(know, OTHERS)], min_log_speed=4.6)
    gain_M = model.gain(forecast(model))
    slow_M = np.array([log_speed_of(arch) < 4.6 for arch in OTHERS])
    assert np.all(gain_M[slow_M] == 0)
    assert gain_M[~slow_M].max() > 0


def test_the_front_consists_of_posterior_means():
    """A lucky score of a poor network, on few images, must not be the front."""
    networks = know_trained(KNOWN)
    poor = min(range(40), key=lambda i: value_of(KNOWN[i]))
    lucky = KnownScore(value=0.95, standard_error=0.3)
    networks[poor] = dataclasses.replace(networks[poor], scores=(lucky,))
    model = fit(networks)
    assert model.steps[1].max() < 0.9
    assert model.steps[1].max() == pytest.approx(max(map(value_of, KNOWN)), abs=0.05)
    assert set(model.steps[1][:-1]) <= set(model.known.value)


def test_networks_that_stopped_or_break_a_limit_are_not_on_the_front():
    networks = know_trained(KNOWN)
    best = max(range(40), key=lambda i: value_of(KNOWN[i]))
    stopped = dataclasses.replace(
        networks[best], scores=(dataclasses.replace(networks[best].scores[0], budgets_left=1),)
    )
    infeasible = dataclasses.replace(networks[best], violations={"memory_mib": 0.5})
    assert fit(networks).steps[1][0] == pytest.approx(fit(networks).known.value[best])
    for changed in (stopped, infeasible):
        model = fit([changed if i == best else own for i, own in enumerate(networks)])
        assert model.known.value[best] not in model.steps[1]


def test_the_gain_leads_to_networks_that_add_to_the_front():
    networks = know_trained(KNOWN[:25])
    model = fit(networks)
    true_M = growth(model, [(log_speed_of(arch), value_of(arch)) for arch in KNOWN[:25]])
    gain_M = model.gain(forecast(model))
    assert true_M[np.argsort(-gain_M)[:10]].mean() > 3 * true_M.mean()


def wide(arch):
    return arch.embed_dims[0] == 32


def test_networks_that_break_a_limit_gain_nothing_and_similar_ones_little():
    def violation_of(arch):
        return math.log(arch.embed_dims[0] / 20)

    networks = [
        dataclasses.replace(own, violations={"memory_mib": violation_of(arch)})
        for arch, own in zip(KNOWN, know_trained(KNOWN), strict=True)
    ]
    model = fit(networks)
    known, others = forecast(model, KNOWN), forecast(model)
    breaks_U, breaks_M = (np.array([violation_of(arch) > 0 for arch in archs]) for archs in (KNOWN, OTHERS))
    assert known.feasible.tolist() == [float(not breaks) for breaks in breaks_U]
    assert np.all(model.gain(known)[breaks_U] == 0)
    assert others.feasible[breaks_M].max() < 0.1
    assert others.feasible[~breaks_M].min() > 0.9


@pytest.mark.parametrize("is_brief", [False, True])
def test_a_full_timing_decides_about_a_limit_and_a_brief_one_does_not(is_brief):
    networks = [dataclasses.replace(own, violations={"latency_ms": 4.6 - own.log_speed}) for own in know_trained(KNOWN)]
    near = min(OTHERS, key=lambda arch: abs(log_speed_of(arch) - 4.6))
    timed = dataclasses.replace(know(near), violations={"latency_ms": 0.01}, is_preliminary=is_brief)
    (feasible,) = forecast(fit([*networks, timed]), [near]).feasible
    assert (0.01 < feasible < 0.99) if is_brief else feasible == 0


def test_a_limit_that_nothing_breaks_leaves_all_feasible():
    networks = [dataclasses.replace(own, violations={"memory_mib": -1.0}) for own in know_trained(KNOWN)]
    assert np.all(forecast(fit(networks)).feasible == 1)


def test_success_is_less_likely_near_failures():
    networks = [
        dataclasses.replace(own, has_failed=True, scores=()) if wide(arch) else own
        for arch, own in zip(KNOWN, know_trained(KNOWN), strict=True)
    ]
    model = fit(networks)
    for archs in (OTHERS, KNOWN):
        feasible_M = forecast(model, archs).feasible
        wide_M = np.array([wide(arch) for arch in archs])
        assert feasible_M[wide_M].mean() < 0.6 < 0.75 < feasible_M[~wide_M].mean()
        assert np.all((feasible_M >= 0) & (feasible_M <= 1))


def test_a_single_failure_says_little_of_other_networks():
    networks = [*know_trained(KNOWN), dataclasses.replace(know(OTHERS[0]), has_failed=True)]
    feasible_M = forecast(fit(networks)).feasible
    assert feasible_M[0] == feasible_M.min()
    assert feasible_M[1:].mean() > 0.9


def test_trainings_that_all_ended_the_same_say_nothing_of_failures():
    assert np.all(forecast(fit(know_trained(KNOWN))).feasible == 1)
    few = [*know_trained(KNOWN[:3]), *map(know, KNOWN[3:6]), dataclasses.replace(know(KNOWN[6]), has_failed=True)]
    assert np.all(forecast(fit(few)).feasible == 1)


def test_a_running_network_lowers_its_own_gain_and_that_of_similar_ones():
    networks = know_trained(KNOWN[:25])
    model = fit(networks)
    before = model.gain(forecast(model))
    best = int(np.argmax(before))
    running = dataclasses.replace(know(OTHERS[best]), is_running=True, log_speed=None)
    model = fit([*networks, running])
    after = model.gain(forecast(model))
    assert after[best] < 0.7 * before[best]
    assert after.sum() < before.sum()


@pytest.mark.parametrize(("unit", "shift"), [(1.0, 0.0), (5e4, -2e4), (1e-3, 5.0)])
def test_proxies_without_a_range_have_gains_in_their_unit(unit, shift):
    networks = [
        dataclasses.replace(own, scores=(KnownScore(value=unit * value_of(arch) + shift, standard_error=0.0),))
        for arch, own in zip(KNOWN, know_trained(KNOWN), strict=True)
    ]
    model, reference = fit(networks, chance=None), fit(know_trained(KNOWN, noise=0.0), chance=None)
    assert model.ref_point[1] == pytest.approx(unit * min(map(value_of, KNOWN)) + shift)
    gain_M = model.gain(forecast(model))
    assert np.isfinite(gain_M).all()
    assert gain_M.min() >= 0
    assert np.corrcoef(gain_M, reference.gain(forecast(reference)))[0, 1] > 0.9
    assert gain_M.max() / unit == pytest.approx(reference.gain(forecast(reference)).max(), rel=0.3)


def test_timings_are_worth_something_only_where_speeds_are_unknown():
    model = fit(know_trained(KNOWN))
    best = np.argsort(-model.gain(forecast(model)))[:8]
    assert model.gain_of_timing(forecast(model).take(best), np.ones(len(best)), np.random.default_rng(0)) > 0
    known = forecast(model, KNOWN)
    assert model.gain_of_timing(known, np.ones(len(KNOWN)), np.random.default_rng(0)) == 0


def test_timings_are_worth_more_where_speeds_are_less_certain():
    model = fit(know_trained(KNOWN))
    found = forecast(model).take(np.argsort(-model.gain(forecast(model)))[:8])
    worth = [
        model.gain_of_timing(
            dataclasses.replace(found, speed_sd=np.full(8, sd)), np.ones(8), np.random.default_rng(0), draws=300
        )
        for sd in (0.02, 0.1, 0.4)
    ]
    assert worth[0] < worth[1] < worth[2]


def test_equal_networks_and_an_equal_seed_give_equal_results():
    first, second = fit(know_trained(KNOWN)), fit(know_trained(KNOWN))
    assert first.gain(forecast(first)).tolist() == second.gain(forecast(second)).tolist()
    worth = [
        model.gain_of_timing(forecast(model), np.ones(len(forecast(model).speed)), np.random.default_rng(1), draws=4)
        for model in (first, second)
    ]
    assert worth[0] == worth[1]


def test_scores_at_rungs_inform_about_networks_that_stopped():
    rungs = [
        dataclasses.replace(
            know(arch), scores=(KnownScore(value=0.7 * value_of(arch), standard_error=0.005, budgets_left=1),)
        )
        for arch in OTHERS[:60]
    ]
    without, with_rungs = (
        forecast(fit(networks)) for networks in (know_trained(KNOWN[:8]), [*know_trained(KNOWN[:8]), *rungs])
    )
    errors = [np.sqrt(np.mean((found.value - values_of(OTHERS)) ** 2)) for found in (without, with_rungs)]
    assert errors[1] < 0.8 * errors[0]


def test_many_scores_at_rungs_change_little():
    """Above 600 scores, only the last ones of most trainings are used."""

    def ladder(arch, seed):
        value = value_of(arch)
        noise = 0.002 * math.sin(37.0 * seed + value * 1e4)
        shares = ((0.6, 2), (0.8, 1), (1.0, 0))
        return [
            KnownScore(value=share * value + noise, standard_error=0.005, budgets_left=left, seed=seed)
            for share, left in shares
        ]

    few, many = (
        forecast(
            fit(
                [
                    dataclasses.replace(
                        own, scores=tuple(score for seed in range(seeds) for score in ladder(arch, seed))
                    )
                    for arch, own in zip(KNOWN, know_trained(KNOWN), strict=True)
                ]
            )
        )
        for seeds in (4, 6)
    )
    assert many.value == pytest.approx(few.value, abs=0.02)
    assert np.corrcoef(many.value, values_of(OTHERS))[0, 1] > 0.9
    assert many.value_sd.mean() < 1.2 * few.value_sd.mean()
