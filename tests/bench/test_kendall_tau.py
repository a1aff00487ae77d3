import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from hilo_nas.bench.kendall_tau import (
    all_pairs,
    count_pairs,
    draw_counts,
    interval,
    like_speed_pairs,
    resampled_taus,
    tau,
)

values = st.lists(st.tuples(st.integers(0, 5), st.floats(-10, 10, width=16)), min_size=2, max_size=12)


def rank_correlation(first, second):
    """Kendall's tau-b of all pairs."""
    return kendalltau(first, second).statistic


def arrays(pairs):
    first, second = zip(*pairs, strict=True)
    return np.array(first, dtype=float), np.array(second, dtype=float)


@given(values)
def test_over_all_pairs_tau_is_that_of_rank_and_of_scipy(pairs):
    first, second = arrays(pairs)
    found = tau(first, second, all_pairs(len(first)))
    assert found == pytest.approx(rank_correlation(first.tolist(), second.tolist()), nan_ok=True)
    if len(set(first)) > 1 and len(set(second)) > 1:
        assert found == pytest.approx(kendalltau(first, second).statistic)


@given(values, st.randoms(use_true_random=False))
def test_a_resample_is_tau_of_the_networks_drawn_where_none_meets_its_own_copy(pairs, random):
    """Against a slow loop over the copies, in all of which pairs of two copies of one network are skipped."""
    first, second = arrays(pairs)
    n = len(first)
    like = like_speed_pairs(np.array([random.choice((100.0, 110.0, 120.0, 400.0)) for _ in range(n)]))
    drawn = random.choices(range(n), k=n)
    agreeing = untied_first = untied_second = 0
    for i, j in itertools.combinations(drawn, 2):
        if i != j and like[i, j]:
            x, y = np.sign(first[i] - first[j]), np.sign(second[i] - second[j])
            agreeing, untied_first, untied_second = agreeing + x * y, untied_first + x**2, untied_second + y**2
    expected = agreeing / math.sqrt(untied_first * untied_second) if untied_first * untied_second else math.nan
    counts = np.array([[drawn.count(i) for i in range(n)]], dtype=float)
    assert resampled_taus(first, second, like, counts)[0] == pytest.approx(expected, nan_ok=True)


def test_speeds_are_alike_up_to_fifteen_per_cent_whichever_is_the_faster():
    like = like_speed_pairs(np.array([100.0, 115.0, 116.0, 50.0, math.nan]))
    assert {(i, j) for i, j in itertools.product(range(5), repeat=2) if like[i, j]} == {(0, 1), (1, 0), (1, 2), (2, 1)}


def test_what_a_network_lacks_leaves_it_out_of_its_pairs():
    first, second = np.array([1.0, 2.0, 3.0, math.nan]), np.array([1.0, 2.0, math.nan, 0.0])
    assert count_pairs(first, second, all_pairs(4)) == 1
    assert tau(first, second, all_pairs(4)) == 1.0


def test_an_infinite_score_is_less_or_more_than_any_other():
    scores = np.array([-math.inf, -math.inf, 0.0, math.inf])
    truth = np.array([0.1, 0.2, 0.3, 0.4])
    assert tau(scores, truth, all_pairs(4)) == pytest.approx(rank_correlation([0, 0, 1, 2], truth.tolist()))


def test_without_a_pair_there_is_no_tau_and_no_interval():
    first = np.array([1.0, 2.0])
    none = like_speed_pairs(np.array([100.0, 200.0]))
    samples = resampled_taus(first, first, none, draw_counts(2, 50, 0))
    assert math.isnan(tau(first, first, none))
    assert np.isnan(samples).all()
    assert all(math.isnan(end) for end in interval(samples))


def test_resamples_hold_as_many_networks_and_are_the_same_for_one_seed():
    counts = draw_counts(30, 200, 7)
    assert counts.shape == (200, 30)
    assert (counts.sum(axis=1) == 30).all()
    assert (counts == draw_counts(30, 200, 7)).all()
    assert (counts != draw_counts(30, 200, 8)).any()


def test_an_interval_leaves_out_a_fortieth_at_either_end():
    samples = np.array([*range(1001), math.nan], dtype=float)
    assert interval(samples) == pytest.approx((25, 975))


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """For two normal values with correlation r, tau is 2/π arcsin(r) (Kendall and Gibbons 1990)."""
    random, planted = np.random.default_rng(0), 0.6
    expected = 2 / math.pi * math.asin(planted)
    counts = draw_counts(40, 400, 0)
    held = 0
    for _ in range(200):
        first, noise = random.normal(size=(2, 40))
        second = planted * first + math.sqrt(1 - planted**2) * noise
        low, high = interval(resampled_taus(first, second, all_pairs(40), counts))
        held += low <= expected <= high
    assert 0.89 <= held / 200 <= 0.99
