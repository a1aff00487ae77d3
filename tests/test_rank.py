import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from hilo_nas.rank import kendall_tau

values = st.lists(st.tuples(st.integers(0, 9), st.floats(-10, 10, width=16)), min_size=2, max_size=15)


@given(values)
def test_tau_is_that_of_scipy_with_ties_and_without(pairs):
    first, second = zip(*pairs, strict=True)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert math.isnan(kendall_tau(first, second))
    else:
        assert kendall_tau(first, second) == pytest.approx(kendalltau(first, second).statistic)


def test_equal_orders_agree_fully_and_turned_ones_not_at_all():
    speeds = [1.0, 2.0, 5.0, 9.0]
    assert kendall_tau(speeds, [10 * speed for speed in speeds]) == 1.0
    assert kendall_tau(speeds, speeds[::-1]) == -1.0


def test_each_swap_of_neighbours_costs_the_same():
    order = list(range(15))
    swapped = order.copy()
    found = [1.0]
    for i in (0, 4, 8):
        swapped[i], swapped[i + 1] = swapped[i + 1], swapped[i]
        found.append(kendall_tau(order, swapped))
    assert [before - after for before, after in pairwise(found)] == pytest.approx([2 / 105] * 3)


def test_one_value_is_no_ranking():
    assert math.isnan(kendall_tau([1.0], [2.0]))


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        kendall_tau([1.0, 2.0], [1.0])
