"""Who is trained on at a rung: both ends of a front, not the most accurate alone."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilo_nas.errors import UsageError
from hilo_nas.searching.configuration.rung_budgets import rungs_of
from hilo_nas.searching.halving.rungs import RungEntry, RungTable, is_promoted

RUNGS = (100, 300)
FRONT = [(100.0 * 2**i, 0.90 - 0.03 * i**2) for i in range(5)]
"""From slow and accurate to fast and not."""
BEATEN = [(speed * 0.7, top1 - 0.02) for speed, top1 in FRONT]
nan = float("nan")
finite = st.floats(0.01, 1e6)
arrivals = st.lists(st.tuples(finite, st.floats(0, 1)), min_size=1, max_size=20)


def entries_of(some, images=100, **fields):
    return [
        RungEntry(key=f"net-{i}", images=images, images_per_s=speed, value=top1, **fields)
        for i, (speed, top1) in enumerate(some)
    ]


def arrive(some, reduction_factor=3):
    """Who goes on when they reach the first rung one after the other, each judged on arrival."""
    table = RungTable(RUNGS, reduction_factor)
    found = []
    for entry in entries_of(some):
        table.add(entry)
        found.append(table.is_promoted(entry.key, 100))
    return found


def halving_on_top1(some, candidate, reduction_factor):
    """What plain successive halving would say."""
    return sorted(some, key=lambda point: -point[1]).index(some[candidate]) < math.ceil(len(some) / reduction_factor)


def test_the_fast_end_of_a_front_goes_on_though_its_top1_is_the_lowest():
    some = [*BEATEN[:4], *FRONT]  # the fast end arrives last, and all the others are more accurate
    fast = len(some) - 1
    assert min(some, key=lambda point: point[1]) == some[fast]
    assert not halving_on_top1(some, fast, 3)
    assert is_promoted(some, fast, 3)
    assert arrive(some)[fast]


def test_both_ends_of_a_front_go_on_whenever_they_arrive():
    fast, accurate = FRONT[-1], FRONT[0]
    for seed in range(50):
        some = [*FRONT, *BEATEN]
        random.Random(seed).shuffle(some)
        went_on = dict(zip(some, arrive(some), strict=True))
        assert went_on[fast]
        assert went_on[accurate]


def test_a_candidate_that_others_beat_stops():
    for candidate in BEATEN:
        assert not is_promoted([*FRONT, candidate], len(FRONT), 3)


def test_of_a_front_too_large_to_go_on_whole_those_in_the_gaps_go_on():
    crowd = [(9.0 + i / 100, 0.1 - i / 1000) for i in range(6)]  # beside the fast end
    ends = [(1.0, 0.9), (10.0, 0.05)]
    lonely = (5.0, 0.5)
    some = [*crowd, *ends, lonely]
    assert is_promoted(some, some.index(lonely), 3)
    assert sum(is_promoted(some, i, 3) for i in range(len(some))) == 3


@pytest.mark.parametrize("reduction_factor", [2, 3, 4, 2.5])
def test_the_first_arrivals_all_go_on_and_from_then_on_two_at_least_are_kept(reduction_factor):
    falling = [(1000.0 - i, 0.9 - i / 100) for i in range(12)]  # each is beaten by all before it
    first = math.floor(reduction_factor)
    assert arrive(falling, reduction_factor) == [i < first for i in range(12)]
    for n in range(first + 1, 13):
        kept = sum(is_promoted(falling[:n], i, reduction_factor) for i in range(n))
        assert kept == math.ceil(n / reduction_factor) >= 2


def test_being_first_is_no_merit_later():
    rising = [(1000.0 + i, 0.5 + i / 100) for i in range(12)]
    assert arrive(rising) == [True] * 12
    assert not is_promoted(rising, 0, 3)


@pytest.mark.parametrize("reduction_factor", [2, 3, 4])
def test_the_promoted_share_tends_to_one_in_the_reduction_factor(reduction_factor):
    dice = random.Random(7)
    went_on = arrive([(math.exp(dice.gauss(7, 0.5)), dice.random()) for _ in range(300)], reduction_factor)
    # The chance at the n-th arrival is ceil(n / reduction_factor) / n. Draws are independent: allow three sigma.
    slack = 3 * math.sqrt(1 / reduction_factor * (1 - 1 / reduction_factor) / 300)
    assert sum(went_on) / 300 == pytest.approx(1 / reduction_factor, abs=slack)
    assert sum(went_on[100:]) / 200 == pytest.approx(1 / reduction_factor, abs=slack)


@given(arrivals, st.sampled_from([2, 3, 4, 2.5]))
def test_asked_of_everyone_at_once_the_share_is_exact(some, reduction_factor):
    n = len(some)
    expected = n if n <= reduction_factor else math.ceil(n / reduction_factor)
    assert sum(is_promoted(some, i, reduction_factor) for i in range(n)) == expected


def test_a_training_that_came_to_nothing_never_goes_on():
    assert arrive([(1000.0, nan), (900.0, 0.5), (800.0, nan), (700.0, 0.6)]) == [False, True, False, True]


def test_anchors_go_on_and_are_compared_all_the_same():
    table = RungTable(RUNGS, 3, entries_of(FRONT))
    beaten = RungEntry(key="anchor", images=100, images_per_s=50.0, value=0.2, always_promoted=True)
    table.add(beaten)
    assert table.is_promoted("anchor", 100)
    table.add(RungEntry(key="like it", images=100, images_per_s=50.0, value=0.2))
    assert not table.is_promoted("like it", 100)

    strong = RungTable(RUNGS, 3, entries_of(FRONT, always_promoted=True))
    strong.add(RungEntry(key="weak", images=100, images_per_s=50.0, value=0.2))
    assert not strong.is_promoted("weak", 100)  # the first candidate of all, but not the first to be compared


def test_rungs_are_judged_apart():
    table = RungTable(RUNGS, 3, entries_of(FRONT, images=100))
    late = RungEntry(key="net-4", images=300, images_per_s=1.0, value=0.1)
    table.add(late)
    assert table.is_promoted("net-4", 300)
    assert table.points_at(300) == [(0.0, 0.1)]
    assert table.points_at(100) == [(math.log(speed), top1) for speed, top1 in FRONT]


def test_speed_counts_by_its_logarithm():
    # Of these two, images/s would set the second in the widest gap; in its logarithm the first lies halfway.
    table = RungTable(RUNGS, 2, entries_of([(1000.0, 0.8), (5000.0, 0.75), (100.0, 0.9), (10_000.0, 0.7), (90.0, 0.7)]))
    assert table.is_promoted("net-0", 100)
    assert not table.is_promoted("net-1", 100)


def test_an_arrival_that_is_repeated_is_not_counted_twice():
    table = RungTable(RUNGS, 3, entries_of(FRONT[:3]))
    again = RungEntry(key="net-1", images=100, images_per_s=7.0, value=0.3)
    table.add(again)
    assert len(table.points_at(100)) == 3
    assert table.points_at(100)[1] == again.point


@given(arrivals, st.randoms(use_true_random=False))
def test_a_table_that_is_rebuilt_answers_as_the_one_that_grew(some, shuffler):
    grown = RungTable(RUNGS, 3)
    for entry in [*entries_of(some), *entries_of(some[::2], images=300)]:
        grown.add(entry)
    stored = [*entries_of(some[::2], images=300), *entries_of(some)]
    rebuilt = RungTable(RUNGS, 3, stored)
    for images in RUNGS:
        assert rebuilt.points_at(images) == grown.points_at(images)
    for entry in stored:
        assert rebuilt.is_promoted(entry.key, entry.images) == grown.is_promoted(entry.key, entry.images)
    if len(set(some)) == len(some):  # without copies, not even the order of arrival matters
        shuffler.shuffle(stored)
        mixed = RungTable(RUNGS, 3, stored)
        assert all(mixed.is_promoted(e.key, e.images) == grown.is_promoted(e.key, e.images) for e in stored)


@pytest.mark.parametrize(
    ("budget", "options", "rungs"),
    [
        (9000, {}, (1000, 3000)),
        (50_000, {}, (5556, 16_667)),
        (1000, {"count": 4, "ratio": 2}, (125, 250, 500)),
        (1000, {"count": 2, "ratio": 2.5}, (400,)),
        (1000, {"count": 1}, ()),
        (4, {}, (1,)),
        (2, {"count": 5}, (1,)),
        (1, {}, ()),
    ],
)
def test_rungs_divide_the_budget_by_eta_in_whole_images(budget, options, rungs):
    assert rungs_of(budget, **options) == rungs


@given(st.integers(1, 10**7), st.integers(1, 8), st.floats(1.01, 20))
def test_rungs_ascend_below_the_budget(budget, count, ratio):
    rungs = rungs_of(budget, count=count, ratio=ratio)
    assert len(rungs) < count
    assert list(rungs) == sorted(set(rungs))
    assert all(1 <= images < budget for images in rungs)


@pytest.mark.parametrize("ratio", [1, 0.5, -3, nan, math.inf])
def test_the_ratio_of_budgets_must_be_above_one(ratio):
    with pytest.raises(UsageError, match=r"above 1, but got .* Use 3"):
        rungs_of(900, ratio=ratio)


def test_at_least_one_score_is_taken():
    with pytest.raises(UsageError, match="must be at least 1, but got 0"):
        rungs_of(900, count=0)
