"""Expected gains of further trainings."""

import numpy as np
import pytest

from hilo_nas.study.pareto import hypervolume
from hilo_nas.surrogate.outlook import expect_gains

REF = (0.0, 0.1)
SPEEDS, VALUES = np.array([1.0, 2.0, 3.0]), np.array([0.6, 0.5, 0.3])


def repeat(values, draws=4):
    return np.repeat(np.array(values, float)[None, :], draws, axis=0)


def gains(speeds, values, count=1, trained=VALUES):
    return expect_gains(SPEEDS, repeat(trained), repeat(speeds), repeat(values), REF, count)


@pytest.mark.parametrize(("speed", "value"), [(2.5, 0.45), (0.5, 0.7), (4.0, 0.2), (4.0, 0.9), (3.0, 0.5)])
def test_the_gain_of_a_known_network_is_that_of_the_hypervolume(speed, value):
    before = hypervolume([*zip(SPEEDS, VALUES, strict=True)], REF)
    after = hypervolume([*zip(SPEEDS, VALUES, strict=True), (speed, value)], REF)
    assert gains([speed], [value])[0].hypervolume == pytest.approx((after - before) / before)


def test_a_dominated_or_infeasible_network_gains_nothing():
    for speed, value in ((1.5, 0.4), (5.0, -np.inf), (-1.0, 0.9)):
        assert gains([speed], [value])[0].hypervolume == pytest.approx(0.0)


def test_gains_grow_with_the_number_of_networks_and_equal_ones_count_once():
    found = gains([2.5, 2.5, 0.5], [0.45, 0.45, 0.7], count=3)
    assert [own.hypervolume for own in found] == sorted(own.hypervolume for own in found)
    assert found[2].hypervolume == pytest.approx(found[1].hypervolume)


def test_no_more_networks_are_trained_than_there_are():
    assert len(gains([2.5], [0.45], count=5)) == 1


def test_the_speed_with_the_largest_growth_is_named():
    (found,) = gains([2.0], [0.58])
    assert (found.value, found.log_speed) == (pytest.approx(0.08), 2.0)


def test_networks_whose_values_vary_together_gain_less_than_independent_ones():
    random = np.random.default_rng(0)
    shared, own = random.normal(0.55, 0.05, (400, 1)), random.normal(0.55, 0.05, (400, 2))
    speeds, trained = np.full((400, 2), 2.0), np.repeat(VALUES[None], 400, axis=0)
    together, apart = (
        expect_gains(SPEEDS, trained, speeds, values, REF, 2)[1].hypervolume for values in (shared.repeat(2, 1), own)
    )
    assert together < apart
