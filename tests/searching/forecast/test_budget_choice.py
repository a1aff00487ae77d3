"""How many networks and how many training images fit into a time."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilo_nas.errors import UsageError
from hilo_nas.searching.configuration.rung_budgets import rungs_of
from hilo_nas.searching.forecast.budget_choice import FEWEST_IMAGES, GivenBudget, SearchCosts, choose_budget
from hilo_nas.searching.halving.rungs import expected_training_share

COST = SearchCosts(timing_s=2.0, trained_share=1.0, fixed_s=1.0, per_image_s=0.001)
FIXED = {"batch_size": 128, "ratio": 3.0, "reduction_factor": 2.0, "most_images": 200_000, "most_trials": 10_000}


def share_of(found, reduction_factor=2.0):
    return expected_training_share((*rungs_of(found.images, count=found.rungs), found.images), reduction_factor)


def choose(seconds, costs=COST, *, trials=None, images=None, rungs=None, **changes):
    given = GivenBudget(trials=trials, images=images, rungs=rungs)
    return choose_budget(costs, given, seconds=seconds, **{**FIXED, **changes})


def test_more_time_first_makes_trainings_longer_then_trials_more():
    hour, four, day = (choose(3600.0 * hours) for hours in (0.5, 0.7, 24))
    assert hour.trials in (40, 41)
    assert four.trials in (40, 41)
    assert FEWEST_IMAGES < hour.images < four.images < FIXED["most_images"]
    assert day.images == 200_000
    assert day.trials > 500


def test_little_time_leaves_fewer_trials_at_the_smallest_budget():
    found = choose(150.0)
    assert 12 <= found.trials < 40
    assert found.images == FEWEST_IMAGES


@given(seconds=st.floats(1.0, 1e6), trained_share=st.floats(0.05, 1.0), per_image_s=st.floats(1e-5, 0.1))
def test_what_is_chosen_fits_into_the_time_or_is_refused(seconds, trained_share, per_image_s):
    cost = SearchCosts(timing_s=2.0, trained_share=trained_share, fixed_s=1.0, per_image_s=per_image_s)
    fewest = cost.total_s(12, FEWEST_IMAGES, 1.0)
    if seconds < fewest / 2:
        with pytest.raises(UsageError, match="12 networks at "):
            choose(seconds / 2, cost)
        return
    found = choose(2 * seconds, cost)
    assert found.trials >= 12
    assert found.images % 128 == 0 or found.images == 200_000
    assert cost.total_s(found.trials, found.images, share_of(found)) <= 1.02 * 2 * seconds


def test_given_numbers_are_kept():
    assert choose(7200.0, trials=10).trials == 10
    assert choose(7200.0, images=9_000).images == 9_000
    assert choose(7200.0, rungs=1).rungs == 1
    assert choose(7200.0, trials=10).images > choose(7200.0, trials=100).images


def test_rungs_need_some_batches_before_the_first():
    assert choose(3600.0, images=128 * 9 * 10).rungs == 3
    assert choose(3600.0, images=128 * 9 * 10 - 128).rungs == 2
    assert choose(3600.0, images=128 * 3 * 10 - 128).rungs == 1


@pytest.mark.parametrize(("changes", "named"), [({"trials": 50}, "50 networks"), ({"images": 10**6}, "12 networks")])
def test_too_short_a_time_is_refused_with_the_time_that_it_takes(changes, named):
    with pytest.raises(UsageError, match=named) as error:
        choose(100.0, **changes)
    assert "1 min 40 s for them. Use more hours" in str(error.value)


def test_a_proxy_without_a_budget_gets_as_many_trials_as_fit():
    cost = SearchCosts(timing_s=2.0, trained_share=1.0, fixed_s=1.0, per_image_s=0.0)
    assert choose(300.0, cost, images=1, rungs=1, reduction_factor=None).trials == 100
    with pytest.raises(UsageError, match="12 networks take about 36 s, but there are 30 s"):
        choose(30.0, cost, images=1, rungs=1, reduction_factor=None)


def test_baselines_and_confirmations_take_their_part_of_the_time_at_the_chosen_budget():
    costs = dataclasses.replace(COST, extra_s=100.0, extra_per_image_s=0.01)
    with_extra, without = choose(3600.0, costs), choose(3600.0)
    assert with_extra.trials == 40
    assert FEWEST_IMAGES < with_extra.images < without.images
    assert costs.total_s(40, with_extra.images, share_of(with_extra)) == pytest.approx(3600, rel=0.03)


def test_no_more_trials_than_networks():
    assert choose(1e6, most_trials=320).trials == 320
    assert choose(1e6, most_trials=7).trials == 7
