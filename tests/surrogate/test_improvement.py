import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from hilo_nas.study.pareto import hypervolume
from hilo_nas.surrogate.improvement import expected_excess, expected_improvement, staircase

REF = (1.0, 0.1)
FRONT = [(1.5, 0.9), (2.0, 0.7), (2.6, 0.4), (3.5, 0.2)]
DRAWS = 20_000


def steps_of(points, ref_point=REF):
    speeds, values = np.array(points, dtype=float).reshape(-1, 2).T
    return staircase(speeds, values, ref_point)


def gain(points, *, speed, mean, sd, speed_sd=0.0):
    one = np.ones(1)
    return float(expected_improvement(steps_of(points), speed * one, speed_sd * one, mean * one, sd * one)[0])


def simulate(points, *, speed, mean, sd, speed_sd=0.0):
    """Mean growth of the hypervolume by draws of a network, and its standard error."""
    random = np.random.default_rng(0)
    speeds, values = random.normal(speed, speed_sd, DRAWS), random.normal(mean, sd, DRAWS)
    before = hypervolume(points, REF)
    growth = [hypervolume([*points, own], REF) - before for own in zip(speeds, values, strict=True)]
    return np.mean(growth), np.std(growth) / math.sqrt(DRAWS)


coordinates = st.floats(-3, 5)
points_of_front = st.lists(st.tuples(coordinates, coordinates), max_size=8)
networks = st.fixed_dictionaries(
    {"speed": coordinates, "mean": coordinates, "sd": st.floats(1e-6, 3), "speed_sd": st.just(0.0) | st.floats(0, 2)}
)


@pytest.mark.parametrize("points", [[], FRONT, [*FRONT, (1.2, 0.3), (0.5, 2.0), (4.0, 0.05)]])
@pytest.mark.parametrize(
    "network",
    [
        {"speed": 2.3, "mean": 0.6, "sd": 0.1},
        {"speed": 4.0, "mean": 0.3, "sd": 0.3},
        {"speed": 1.2, "mean": 0.8, "sd": 0.05},
        {"speed": 0.9, "mean": 1.5, "sd": 0.2},
    ],
)
def test_the_gain_of_a_known_speed_is_the_mean_growth_of_the_hypervolume(points, network):
    expected, error = simulate(points, **network)
    assert gain(points, **network) == pytest.approx(expected, abs=4 * error + 1e-12)


@pytest.mark.parametrize("points", [[], FRONT])
@pytest.mark.parametrize(
    "network",
    [
        {"speed": 2.3, "mean": 0.6, "sd": 0.1, "speed_sd": 0.2},
        {"speed": 3.4, "mean": 0.3, "sd": 0.2, "speed_sd": 0.1},
        {"speed": 1.4, "mean": 1.0, "sd": 0.1, "speed_sd": 0.4},
    ],
)
def test_the_gain_of_an_uncertain_speed_is_about_the_mean_growth_of_the_hypervolume(points, network):
    """The quadrature has five nodes, so it is right to some percent."""
    expected, error = simulate(points, **network)
    assert gain(points, **network) == pytest.approx(expected, abs=4 * error, rel=0.05)


def test_the_excess_is_that_of_a_normal_variable():
    numeric, _ = quad(lambda x: (x - 0.4) * norm.pdf(x, 0.3, 0.5), 0.4, 8)
    assert expected_excess(np.array([0.3]), np.array([0.5]), 0.4) == pytest.approx([numeric], rel=1e-6)


def test_a_network_that_is_surely_better_gains_its_whole_excess():
    assert gain([], speed=3.0, mean=2.1, sd=1e-9) == pytest.approx(2.0 * 2.0)
    assert gain([(2.0, 1.1)], speed=3.0, mean=2.1, sd=1e-9) == pytest.approx(4.0 - 1.0)


def test_an_empty_front_is_one_step_from_the_reference():
    lows, best = steps_of([])
    assert lows.tolist() == [1.0]
    assert best.tolist() == [0.1]


def test_a_front_is_a_step_per_member_and_one_beyond():
    lows, best = steps_of([FRONT[2], FRONT[0], FRONT[3], FRONT[1]])
    assert lows.tolist() == [1.0, 1.5, 2.0, 2.6, 3.5]
    assert best.tolist() == [0.9, 0.7, 0.4, 0.2, 0.1]


@pytest.mark.parametrize("point", [(1.2, 0.9), (2.0, 0.65), (2.5, 0.4), (1.0, 3.0), (0.2, 3.0), (9.0, 0.1), (9.0, 0.0)])
def test_dominated_points_and_those_below_the_reference_make_no_step(point):
    assert [part.tolist() for part in steps_of([*FRONT, point])] == [part.tolist() for part in steps_of(FRONT)]


@given(points_of_front)
@settings(deadline=None)
def test_the_area_under_the_steps_is_the_hypervolume(points):
    lows, best = steps_of(points)
    assert np.sum(np.diff(lows) * (best[:-1] - REF[1])) == pytest.approx(hypervolume(points, REF), abs=1e-9)
    assert np.all(np.diff(best) <= 0)


@given(points_of_front, networks)
@settings(deadline=None)
def test_the_gain_is_never_negative(points, network):
    assert gain(points, **network) >= 0


@given(points_of_front, networks, st.floats(0, 2), st.floats(0, 2))
@settings(deadline=None)
def test_the_gain_grows_with_the_mean_and_the_deviation_of_the_value(points, network, better, wider):
    before = gain(points, **network)
    slack = 1e-9 * (1 + before)
    assert gain(points, **{**network, "mean": network["mean"] + better}) >= before - slack
    assert gain(points, **{**network, "sd": network["sd"] + wider}) >= before - slack


@given(points_of_front, networks, st.floats(0, 2))
@settings(deadline=None)
def test_the_gain_grows_with_the_speed(points, network, faster):
    before = gain(points, **network)
    assert gain(points, **{**network, "speed": network["speed"] + faster}) >= before - 1e-9 * (1 + before)


@given(points_of_front.filter(bool), networks, st.data())
@settings(deadline=None)
def test_dominated_points_change_no_gain(points, network, data):
    speed, value = data.draw(st.sampled_from(points))
    dominated = (speed - data.draw(st.floats(0, 2)), value - data.draw(st.floats(0, 2)))
    assert gain([*points, dominated], **network) == pytest.approx(gain(points, **network), abs=1e-9)


@given(points_of_front, networks, st.tuples(coordinates, coordinates))
@settings(deadline=None)
def test_a_further_network_never_raises_the_gain_of_others(points, network, further):
    before = gain(points, **network)
    assert gain([*points, further], **network) <= before + 1e-9 * (1 + before)
