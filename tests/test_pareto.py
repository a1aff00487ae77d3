"""Fronts, hypervolume and knee of plain points."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilo_nas.pareto import dominates, hypervolume, is_non_dominated, knee

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
        # Scales must not matter: images/s in thousands beside top-1 in hundredths.
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
        with pytest.raises(ValueError, match="the front holds no point"):
            knee(none)


@given(points.filter(bool))
def test_the_knee_lies_on_the_front(some):
    assert is_non_dominated(some)[knee(some)]
