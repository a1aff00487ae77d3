"""What rounds say, on planted samples; every seed is fixed, and bounds are loose where chance has a part."""

import math
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilo_nas.measurement.intervals import interval, normal_above_zero, probability_faster, standard_error
from hilo_nas.measurement.rounds import fast_seconds, ratio, robust_spread
from hilo_nas.measurement.verdicts import MIN_ROUNDS, Judgement, judge


class Machine:
    """Times networks in rounds that never were: each round has a drift of its own, each block a delay of its own."""

    def __init__(self, seed, *, jitter=0.02, drift=0.0, disturbed=0.0):
        self.random, self.jitter, self.drift, self.disturbed = random.Random(seed), jitter, drift, disturbed

    def time(self, rounds, *seconds):
        """The samples of networks of so many seconds a call, in the same rounds."""
        samples = [[] for _ in seconds]
        for _ in range(rounds):
            slower = math.exp(self.random.gauss(0, self.drift))
            for own, call_s in zip(samples, seconds, strict=True):
                block = call_s * slower * math.exp(abs(self.random.gauss(0, self.jitter)))
                if self.random.random() < self.disturbed:
                    block *= self.random.uniform(1.3, 2.5)
                own.append(block)
        return samples


FEW = settings(max_examples=40)
"""Each bootstrap takes a millisecond."""
_seconds = st.floats(1e-4, 10.0)
_pairs = st.lists(st.tuples(_seconds, _seconds), min_size=1, max_size=40).map(
    lambda pairs: list(zip(*pairs, strict=True))
)


# One network.


@given(st.lists(_seconds, min_size=1, max_size=40))
def test_the_fast_time_lies_among_the_faster_half(rounds):
    assert min(rounds) * (1 - 1e-9) <= fast_seconds(rounds) <= statistics.median_high(rounds) * (1 + 1e-9)


@given(st.lists(_seconds, min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_the_fast_time_does_not_hang_on_the_order_of_the_rounds(rounds, order):
    shuffled = list(rounds)
    order.shuffle(shuffled)
    assert fast_seconds(shuffled) == fast_seconds(rounds)


@given(st.lists(_seconds, min_size=1, max_size=40), st.floats(1.0, 100.0), st.data())
def test_a_slower_round_never_makes_the_fast_time_shorter(rounds, factor, data):
    slower = list(rounds)
    slower[data.draw(st.integers(0, len(rounds) - 1))] *= factor
    assert fast_seconds(slower) >= fast_seconds(rounds) * (1 - 1e-9)


def test_the_fast_time_leaves_out_one_lucky_block_and_all_that_were_disturbed():
    assert fast_seconds([0.001] + [1.0] * 9 + [3.0] * 30) == pytest.approx(1.0, rel=0.15)
    assert fast_seconds([0.001] + [1.0] * 39) == 1.0


def test_a_robust_spread_is_the_standard_deviation_without_outliers():
    values = [statistics.NormalDist(10, 2).inv_cdf((i + 0.5) / 1000) for i in range(1000)]
    assert robust_spread(values) == pytest.approx(2.0, rel=0.01)
    assert robust_spread([*values, 1e9]) == pytest.approx(2.0, rel=0.01)


# Two networks.


@given(_pairs)
def test_the_ratio_the_other_way_round_is_its_inverse(pair):
    own, other = pair
    assert ratio(own, other) * ratio(other, own) == pytest.approx(1.0)


@FEW
@given(_pairs, st.floats(1e-3, 1e3))
def test_ratio_and_probability_do_not_hang_on_the_unit_of_time(pair, unit):
    own, other = pair
    scaled = [[unit * seconds for seconds in rounds] for rounds in pair]
    assert ratio(*scaled) == pytest.approx(ratio(own, other))
    assert standard_error(*scaled) == pytest.approx(standard_error(own, other), abs=1e-9)


@FEW
@given(_pairs)
def test_the_probabilities_of_the_two_ways_add_up_to_one(pair):
    own, other = pair
    assert probability_faster(own, other) + probability_faster(other, own) == pytest.approx(1.0)


@FEW
@given(_pairs)
def test_the_interval_is_ordered_and_the_other_way_round_its_inverse(pair):
    own, other = pair
    low, high = interval(own, other)
    assert 0 < low <= high
    assert interval(other, own) == pytest.approx((1 / high, 1 / low))


@FEW
@given(_pairs)
def test_a_narrower_share_lies_inside_a_wider_one(pair):
    (low, high), (inner_low, inner_high) = interval(*pair), interval(*pair, share=0.5)
    assert low <= inner_low <= inner_high <= high


@FEW
@given(_pairs, st.floats(1.0, 3.0))
def test_a_network_that_becomes_slower_in_every_round_is_never_more_probably_the_faster(pair, factor):
    own, other = pair
    slowed = [factor * seconds for seconds in own]
    assert ratio(slowed, other) == pytest.approx(ratio(own, other) / factor)
    assert probability_faster(slowed, other) <= probability_faster(own, other) + 1e-9


@FEW
@given(st.lists(_seconds, min_size=1, max_size=40))
def test_a_network_beside_itself_is_as_fast_for_certain(rounds):
    assert ratio(rounds, rounds) == 1.0
    assert interval(rounds, rounds) == (1.0, 1.0)
    assert probability_faster(rounds, rounds) == 0.5


def test_equal_samples_always_give_equal_answers():
    own, other = Machine(3, disturbed=0.3).time(20, 0.02, 0.03)
    assert interval(own, other) == interval(own, other)
    assert probability_faster(own, other) == probability_faster(own, other)


def test_rounds_that_do_not_pair_up_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        interval([0.1] * 5, [0.1] * 4)


@pytest.mark.parametrize(
    ("machine", "rounds"),
    [
        ({}, MIN_ROUNDS),
        ({"drift": 0.1}, 20),
        ({"disturbed": 0.15}, 20),
        ({"disturbed": 0.5, "drift": 0.05}, 30),
    ],
    ids=["quiet", "drifting", "bursty", "half-disturbed"],
)
def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says(machine, rounds):
    noisy, repeats = Machine(1, **machine), 120
    hits = 0
    for _ in range(repeats):
        low, high = interval(*noisy.time(rounds, 0.020, 0.022))
        hits += low <= 1.1 <= high
    assert 0.86 <= hits / repeats <= 1.0


def test_the_standard_error_is_what_repeats_differ_by():
    noisy = Machine(2, disturbed=0.2)
    repeats = [noisy.time(24, 0.020, 0.022) for _ in range(80)]
    seen = statistics.stdev(math.log(ratio(*repeat)) for repeat in repeats)
    said = statistics.fmean(standard_error(*repeat) for repeat in repeats)
    assert said == pytest.approx(seen, rel=0.35)


def test_one_network_is_called_the_faster_as_often_as_chance_allows():
    noisy = Machine(4, disturbed=0.2)
    said = [probability_faster(*noisy.time(16, 0.02, 0.02)) for _ in range(150)]
    # Of equal networks one in twenty may be told from the other at 95 %, on either side.
    assert sum(value >= 0.95 for value in said) / len(said) < 0.12
    assert sum(value <= 0.05 for value in said) / len(said) < 0.12
    assert statistics.fmean(said) == pytest.approx(0.5, abs=0.08)


def test_a_clear_difference_is_found_with_near_certainty():
    own, other = Machine(5).time(MIN_ROUNDS, 0.020, 0.022)
    assert probability_faster(own, other) > 0.999
    assert probability_faster(other, own) < 0.001


def test_drift_that_both_share_cancels_where_rounds_pair_up_and_not_where_they_do_not():
    # A clock that creeps up by 2 % a round, half as fast again in the end.
    jitter = Machine(6, jitter=0.002).time(24, 0.020, 0.022)
    own, other = ([seconds * 1.02**-i for i, seconds in enumerate(rounds)] for rounds in jitter)
    assert ratio(own, other) == pytest.approx(1.1, rel=0.005)
    paired = standard_error(own, other)
    unpaired = standard_error(own, random.Random(0).sample(other, len(other)))
    assert paired < unpaired / 5


def test_rounds_are_drawn_anew_and_not_single_calls():
    # In each round the other network is slower by the same factor, however the rounds differ: nothing is unsure.
    own = [0.02 * (1 + 0.1 * i) for i in range(20)]
    other = [1.3 * seconds for seconds in own]
    assert standard_error(own, other) == pytest.approx(0.0, abs=1e-12)
    assert interval(own, other) == pytest.approx((1.3, 1.3))
    # Blocks drawn without their round would make the ratio swing with the rounds.
    assert standard_error(own, random.Random(0).sample(other, len(other))) > 0.02


@pytest.mark.parametrize("factor", [1.05, 1.5, 4.0])
def test_a_slow_network_comes_out_slower_by_its_factor_beside_a_noisy_neighbour(factor):
    # Half of the blocks are disturbed, at random.
    noisy = Machine(7, disturbed=0.5)
    fast, slow = noisy.time(40, 0.02, 0.02 * factor)
    assert ratio(fast, slow) == pytest.approx(factor, rel=0.03)
    low, high = interval(fast, slow)
    assert low <= factor <= high


def test_the_fast_rounds_stand_where_mean_and_median_fall():
    # A neighbour that keeps more than half of one network's blocks busy, and few of the other's.
    noisy, quiet = Machine(8, disturbed=0.6), Machine(9, disturbed=0.1)
    (fast,), (slow,) = noisy.time(40, 0.020), quiet.time(40, 0.024)
    assert ratio(fast, slow) == pytest.approx(1.2, rel=0.05)
    assert statistics.fmean(slow) / statistics.fmean(fast) < 1.05  # calls them equal, or turns them round
    assert statistics.median(slow) / statistics.median(fast) < 1.05


@pytest.mark.parametrize(
    ("mean", "deviation", "share"), [(0, 0, 0.5), (1e-9, 0, 1), (-1e-9, 0, 0), (0, 2, 0.5), (1.645, 1, 0.95)]
)
def test_a_normal_value_lies_above_zero_with_its_share(mean, deviation, share):
    assert normal_above_zero(mean, deviation) == pytest.approx(share, abs=1e-3)


# The machine.


def judged(rounds=24, *, machine=None, **options):
    own, reference = (machine or Machine(10)).time(rounds, 0.02, 0.03)
    return judge({"own": own, "reference": reference}, **options)


def test_a_quiet_machine_is_steady():
    found = judged()
    assert found == Judgement(verdict="steady", text="0 % of the timed blocks were disturbed")


def test_a_few_disturbed_blocks_leave_a_machine_steady():
    found = judged(60, machine=Machine(11, disturbed=0.08))
    assert found.verdict == "steady"
    assert not found.text.startswith("0 %")


@pytest.mark.parametrize("disturbed", [0.3, 0.5])
def test_a_noisy_neighbour_makes_a_machine_bursty_and_the_user_is_told_what_to_do(disturbed):
    found = judged(60, machine=Machine(12, disturbed=disturbed))
    assert found.verdict == "bursty"
    share = int(found.text.split(" %")[0].split()[-1])
    assert share == pytest.approx(100 * disturbed, abs=10)
    assert "other work disturbed" in found.text
    assert "quiet machine" in found.text


def test_a_slowdown_by_other_work_is_not_told_as_blocks_that_it_disturbed():
    rounds = [0.02] * 20 + [0.022] * 20
    found = judge({"own": rounds, "reference": rounds}, device_state={"others_cores": 0.3})
    assert found.verdict == "bursty"
    assert "other work (0.3 cores) made everything 10 % slower" in found.text


def test_one_network_that_is_slower_than_the_other_disturbs_nobody():
    own, reference = Machine(13).time(24, 0.02, 2.0)
    assert judge({"own": own, "reference": reference}).verdict == "steady"


def sagging(by, rounds=24):
    """Everything takes longer from round to round, up to so many times as long."""
    own, reference = Machine(14, jitter=0.005).time(rounds, 0.02, 0.03)
    slower = [by ** (i / (rounds - 1)) for i in range(rounds)]
    return {
        name: [seconds * step for seconds, step in zip(samples, slower, strict=True)]
        for name, samples in (("own", own), ("reference", reference))
    }


def test_a_device_that_slows_down_for_everything_has_throttled():
    found = judge(sagging(1.2))
    assert found.verdict == "throttled"
    assert "everything became 1" in found.text
    assert "% slower" in found.text


def test_a_slowdown_within_what_clocks_do_is_steady():
    assert judge(sagging(1.03)).verdict == "steady"


def test_a_device_that_becomes_faster_has_not_throttled():
    assert judge(sagging(1 / 1.15)).verdict == "steady"


def test_one_network_that_slows_down_alone_is_not_the_devices_throttling():
    rounds = sagging(1.15)
    rounds["reference"] = Machine(15).time(24, 0.03)[0]
    assert judge(rounds).verdict != "throttled"


def test_a_device_that_says_it_throttles_is_believed_without_a_figure_of_ours():
    found = judge(sagging(1.01), device_state={"throttle_reasons": ["hardware slowdown"]})
    assert found.verdict == "throttled"
    assert found.text
    assert "% slower" not in found.text


def test_too_few_rounds_tell_of_no_slowdown():
    rounds = {name: samples[::3] for name, samples in sagging(1.2).items()}
    assert judge(rounds).verdict == "steady"
