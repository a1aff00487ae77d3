"""Fronts, hypervolume and knee of plain points."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilo_nas.study.pareto import (
    dominates,
    epsilon_net_order,
    hypervolume,
    is_non_dominated,
    knee,
    non_dominated_ranks,
    promotion_order,
)

small = st.integers(0, 8)
points = st.lists(st.tuples(small, small), max_size=12)
any_points = st.lists(st.tuples(st.floats(), st.floats()), max_size=12)
nan = float("nan")


def test_a_point_dominates_only_where_it_is_better_somewhere_and_worse_nowhere():
    assert dominates((2, 1), (1, 1))
    assert dominates((2, 2), (1, 1))
    assert not dominates((1, 1), (1, 1))
    assert not dominates((2, 0), (1, 1))


@given(any_points)
def test_a_front_holds_no_dominated_point_and_leaves_out_no_other(some):
    keep = is_non_dominated(some)
    assert len(keep) == len(some)
    whole = [point for point in some if not any(map(math.isnan, point))]
    for point, kept in zip(some, keep, strict=True):
        if any(map(math.isnan, point)):
            assert not kept
        else:
            beaten = any(
                other[0] >= point[0] and other[1] >= point[1] and tuple(other) != tuple(point) for other in whole
            )
            assert kept != beaten


@given(points, st.randoms(use_true_random=False))
def test_a_front_does_not_depend_on_the_order(some, shuffler):
    shuffled = list(some)
    shuffler.shuffle(shuffled)

    def front(given_points):
        return sorted(p for p, keep in zip(given_points, is_non_dominated(given_points), strict=True) if keep)

    assert front(some) == front(shuffled)
    assert hypervolume(some, (0, 0)) == hypervolume(shuffled, (0, 0))


@given(points.filter(bool))
def test_every_point_is_on_the_front_or_beaten_by_one_that_is(some):
    keep = is_non_dominated(some)
    front = [point for point, kept in zip(some, keep, strict=True) if kept]
    assert front
    for point, kept in zip(some, keep, strict=True):
        assert kept or any(dominates(other, point) for other in front)


def test_equal_points_stand_together():
    assert is_non_dominated([(1, 1), (1, 1), (0, 1)]) == [True, True, False]


def test_nan_is_never_on_the_front_and_beats_nobody():
    assert is_non_dominated([(nan, 9), (9, nan), (1, 1)]) == [False, False, True]
    assert is_non_dominated([(nan, nan)]) == [False]
    assert is_non_dominated([]) == []


def test_fronts_of_more_than_two_objectives_are_found():
    assert is_non_dominated([(1, 2, 3), (3, 2, 1), (1, 2, 2), (0, 0, 4)]) == [True, True, False, True]


@given(points)
def test_hypervolume_is_the_number_of_unit_cells_below_the_points(some):
    cells = sum(any(x >= column and y >= row for x, y in some) for column in range(1, 9) for row in range(1, 9))
    assert hypervolume(some, (0, 0)) == cells


@given(points, st.tuples(small, small))
def test_hypervolume_counts_only_what_lies_above_the_reference_point(some, ref):
    cells = sum(
        any(x >= column and y >= row for x, y in some)
        for column in range(ref[0] + 1, 9)
        for row in range(ref[1] + 1, 9)
    )
    assert hypervolume(some, ref) == cells


def test_hypervolume_of_nothing_is_nothing():
    assert hypervolume([], (0, 0)) == 0
    assert hypervolume([(0, 5), (5, 0)], (0, 0)) == 0


def test_a_nan_adds_nothing_to_the_hypervolume_in_any_order():
    some = [(3, 1), (2, nan), (nan, 7), (1, 3), (2, 2), (nan, nan)]
    for seed in range(20):
        random.Random(seed).shuffle(some)
        assert hypervolume(some, (0, 0)) == 6


@pytest.mark.parametrize(
    ("front", "at"),
    [
        ([(0, 10), (1, 9), (9, 8), (10, 0)], 2),
        ([(10, 0), (9, 8), (1, 9), (0, 10)], 1),
        ([(0, 1.0), (8, 0.9), (9, 0.2), (10, 0.0)], 1),
        # Scales must not matter: images/s are in thousands and top-1 in hundredths.
        ([(1000, 0.70), (1800, 0.69), (1900, 0.61), (2000, 0.60)], 1),
        # A dominated point far out is not the knee of a front that it is not on.
        ([(0, 10), (9, 9), (8.9, 8.9), (10, 0)], 1),
    ],
)
def test_the_knee_is_where_the_front_bends(front, at):
    assert knee(front) == at


def test_the_knee_of_one_or_two_points_is_the_more_accurate():
    assert knee([(5, 5)]) == 0
    assert knee([(9, 1), (1, 9)]) == 1
    assert knee([(1, 9), (9, 1)]) == 0


def test_the_knee_of_a_straight_front_is_its_more_accurate_end():
    assert knee([(0, 3), (1, 2), (2, 1), (3, 0)]) == 0


def test_a_front_without_points_has_no_knee():
    for none in ([], [(nan, 1.0)]):
        with pytest.raises(ValueError, match="but the front is empty"):
            knee(none)


@given(points.filter(bool))
def test_the_knee_lies_on_the_front(some):
    assert is_non_dominated(some)[knee(some)]


def shuffled(some, shuffler):
    """The same points in another order, and where each of them was."""
    places = list(range(len(some)))
    shuffler.shuffle(places)
    return [some[place] for place in places], places


def fronts_by_peeling(some):
    """The definition, slowly: take the front away, look for the front of what is left."""
    ranks, left, rank = [None] * len(some), list(range(len(some))), 0
    while left:
        keep = is_non_dominated([some[i] for i in left])
        front = [i for i, kept in zip(left, keep, strict=True) if kept] or left  # only points with a NaN are left
        for i in front:
            ranks[i] = rank
        left, rank = [i for i in left if i not in front], rank + 1
    return ranks


@given(any_points)
def test_the_points_of_rank_0_are_the_front(some):
    keep = is_non_dominated(some)
    if any(keep):  # else all have a NaN, and share the only rank
        assert [rank == 0 for rank in non_dominated_ranks(some)] == keep


@given(any_points | points | st.lists(st.tuples(small, small, small), max_size=12))
def test_ranks_are_the_fronts_that_peeling_finds(some):
    assert non_dominated_ranks(some) == fronts_by_peeling(some)


@given(points, st.randoms(use_true_random=False))
def test_ranks_do_not_depend_on_the_order(some, shuffler):
    other, places = shuffled(some, shuffler)
    ranks = non_dominated_ranks(some)
    assert non_dominated_ranks(other) == [ranks[place] for place in places]


def test_a_point_with_a_nan_ranks_behind_the_worst():
    assert non_dominated_ranks([(nan, 9), (2, 2), (1, 1), (9, nan)]) == [2, 0, 1, 2]
    assert promotion_order([(nan, 9), (2, 2), (1, 1)]) == [1, 2, 0]
    assert non_dominated_ranks([]) == promotion_order([]) == epsilon_net_order([]) == []


@given(any_points)
def test_orders_are_permutations_of_whatever_they_are_given(some):
    assert sorted(promotion_order(some)) == list(range(len(some)))
    assert sorted(epsilon_net_order(some)) == list(range(len(some)))


@given(any_points)
def test_no_point_is_carried_on_before_one_of_a_better_rank(some):
    ranks = non_dominated_ranks(some)
    in_order = [ranks[i] for i in promotion_order(some)]
    assert in_order == sorted(in_order)


@given(points, st.randoms(use_true_random=False))
def test_the_order_depends_on_the_points_alone(some, shuffler):
    other, _ = shuffled(some, shuffler)
    assert [other[i] for i in promotion_order(other)] == [some[i] for i in promotion_order(some)]


@given(points.filter(bool))
def test_each_rank_begins_with_its_most_accurate_point_and_its_fastest(some):
    ranks, order = non_dominated_ranks(some), promotion_order(some)
    for rank in set(ranks):
        front = [some[i] for i in order if ranks[i] == rank]
        accurate, fast = max(front, key=lambda point: point[1]), max(front)
        assert front[0] == accurate
        if accurate != fast:
            assert front[1] == fast


def test_an_epsilon_net_halves_the_widest_gap():
    # Along a straight front of nine: the ends, the middle, the quarters, the rest; of equal gaps the more accurate one.
    assert epsilon_net_order([(i, 8 - i) for i in range(9)]) == [0, 8, 4, 2, 6, 1, 3, 5, 7]


def test_an_epsilon_net_takes_a_crowd_last():
    crowd = [(5.0, 5.0), (5.1, 4.9), (4.9, 5.1)]
    assert epsilon_net_order([*crowd, (0, 10), (10, 0), (2, 7)])[:4] == [3, 4, 0, 5]


def test_copies_of_a_point_come_last_in_their_rank():
    assert epsilon_net_order([(1, 9), (1, 9), (9, 1), (5, 5), (9, 1)]) == [0, 2, 3, 1, 4]
    assert epsilon_net_order([(3, 3)] * 4) == [0, 1, 2, 3]
    assert promotion_order([(0, 0), (9, 1), (9, 1), (1, 9)]) == [3, 1, 2, 0]


def test_scales_do_not_matter_to_the_order():
    # The widest gap is one in top-1; on no common scale, thousands of images/s would drown its hundredths.
    front = [(1000, 0.90), (1050, 0.50), (1600, 0.48), (2000, 0.30)]
    assert epsilon_net_order(front) == [0, 3, 1, 2]
    assert epsilon_net_order([(x / 1e3, y * 1e3) for x, y in front]) == [0, 3, 1, 2]


def test_a_front_is_spread_on_the_scale_of_all_the_points():
    # A difference of 0.002 in top-1 is large among four good networks, but small once a failed network is added.
    front = [(10, 0.902), (15, 0.9005), (60, 0.9003), (100, 0.9)]
    assert promotion_order(front) == [0, 3, 1, 2]
    assert promotion_order([*front, (9, 0.1)]) == [0, 3, 2, 1, 4]


def test_infinite_values_lie_at_the_ends_of_the_scale():
    infinite = float("inf")
    assert promotion_order([(1, 9), (infinite, 1), (5, 5), (4, -infinite)]) == [0, 1, 2, 3]


@given(any_points | points)
def test_the_sorted_front_of_two_objectives_is_the_one_that_comparisons_find(some):
    whole = [point for point in some if not any(map(math.isnan, point))]
    naive = [point in whole and not any(dominates(other, point) for other in whole) for point in some]
    assert is_non_dominated(some) == naive
    # A third objective that is equal for all changes nothing, and is compared point by point.
    assert is_non_dominated([(*point, 0.0) for point in some]) == naive
