"""The clockwork on a fake clock: nothing here waits."""

import itertools
import statistics
from random import Random

import pytest

from hilo_nas.measurement.rounds import fast_seconds, ratio
from hilo_nas.timing.throughput import summarize
from hilo_nas.timing.timer import MIN_BLOCK_S, SingleCalls, Stopwatch


class FakeDevice:
    """A clock, and calls that move it on; `drift` slows everything down as time goes by."""

    def __init__(self, drift=0.0):
        self.now, self.drift, self.synchronizations, self.calls = 0.0, drift, 0, 0

    def stopwatch(self):
        return Stopwatch(clock=lambda: self.now, synchronize=self.synchronize)

    def synchronize(self):
        self.synchronizations += 1

    def network(self, seconds, *, slow_at_first=()):
        slow = iter(slow_at_first)

        def call():
            self.calls += 1
            self.now += next(slow, seconds) * (1 + self.drift * self.now)

        return call

    def time(self, rounds, **networks):
        """The samples of networks, one call a block, in so many rounds."""
        return self.stopwatch().time_rounds(
            {name: (network, 1) for name, network in networks.items()}, is_enough=after(rounds), random=Random(0)
        )


def after(rounds):
    return lambda samples: len(next(iter(samples.values()))) >= rounds


def disturbed(network, device, *, share, by_s, seed):
    """A network beside a neighbour that takes the device for a while, now and then."""
    random = Random(seed)

    def call():
        network()
        if random.random() < share:
            device.now += by_s

    return call


def test_a_block_is_synchronised_around_and_not_inside():
    device = FakeDevice()
    assert device.stopwatch().time_block(device.network(0.5), 10) == pytest.approx(0.5)
    assert (device.synchronizations, device.calls) == (2, 10)


def test_work_that_is_only_asked_for_is_waited_for_inside_the_block():
    device, queued = FakeDevice(), []

    def finish():
        device.now += sum(queued)
        queued.clear()

    watch = Stopwatch(clock=lambda: device.now, synchronize=finish)
    queued.append(7.0)  # left over from before: not this block's
    assert watch.time_block(lambda: queued.append(0.5), 10) == pytest.approx(0.5)


def test_warming_up_goes_on_until_calls_agree():
    device = FakeDevice()
    warm = device.stopwatch().warm_up(device.network(0.1, slow_at_first=[3.0, 1.0, 0.5, 0.2]), at_most_s=60)
    assert warm.steady
    assert warm.call_seconds == pytest.approx(0.1)
    assert warm.calls >= 8


def test_a_warm_up_that_never_agrees_ends_and_says_so():
    device = FakeDevice()
    times = itertools.cycle([0.1, 0.5])

    def restless():
        device.now += next(times)

    warm = device.stopwatch().warm_up(restless, at_most_s=5)
    assert not warm.steady
    assert 5 <= device.now < 6


def test_long_calls_are_given_the_blocks_that_agreeing_takes():
    device = FakeDevice()
    warm = device.stopwatch().warm_up(device.network(5.0), at_most_s=3)
    assert (warm.calls, warm.steady) == (5, True)


@pytest.mark.parametrize("seconds", [1e-6, 1e-3, 0.019, 0.021, 2.0])
def test_blocks_drown_the_clock(seconds):
    device = FakeDevice()
    warm = device.stopwatch().warm_up(device.network(seconds), at_most_s=30)
    assert warm.calls_per_block * seconds >= MIN_BLOCK_S * 0.999
    assert warm.calls_per_block == 1 or (warm.calls_per_block - 1) * seconds < MIN_BLOCK_S


def test_every_round_times_each_network_once_in_an_order_of_its_own():
    device, order = FakeDevice(), []

    def logged(name):
        return lambda: (order.append(name), device.network(0.1)())

    names = ("reference", "one", "two", "three")
    rounds = device.time(24, **{name: logged(name) for name in names})
    orders = [tuple(order[i : i + 4]) for i in range(0, len(order), 4)]
    assert len(orders) == 24
    assert all(sorted(drawn) == sorted(names) for drawn in orders)
    assert len(set(orders)) > 8
    assert {drawn[0] for drawn in orders} == {drawn[-1] for drawn in orders} == set(names)
    assert tuple(rounds) == names
    assert {len(samples) for samples in rounds.values()} == {24}


def test_each_network_has_blocks_of_its_own_length():
    device = FakeDevice()
    counts = {"short": 0, "long": 0}

    def counted(name, seconds):
        def call():
            counts[name] += 1
            device.now += seconds

        return call

    rounds = device.stopwatch().time_rounds(
        {"short": (counted("short", 0.001), 20), "long": (counted("long", 0.5), 1)},
        is_enough=after(5),
        random=Random(0),
    )
    assert counts == {"short": 100, "long": 5}
    assert rounds["short"] == pytest.approx((0.001,) * 5)
    assert rounds["long"] == pytest.approx((0.5,) * 5)


def test_after_every_round_all_samples_so_far_are_told_and_the_timing_ends_when_they_suffice():
    device, told = FakeDevice(), []

    def is_enough(samples):
        told.append({name: len(seconds) for name, seconds in samples.items()})
        return len(told) == 3

    entrants = {"one": (device.network(0.1), 1), "two": (device.network(0.2), 1)}
    rounds = device.stopwatch().time_rounds(entrants, is_enough=is_enough, random=Random(0))
    assert told == [{"one": i, "two": i} for i in (1, 2, 3)]
    assert rounds == {"one": pytest.approx((0.1,) * 3), "two": pytest.approx((0.2,) * 3)}


@pytest.mark.parametrize("factor", [1.05, 1.5, 3.0])
def test_a_planted_slow_network_comes_out_slower_by_its_factor(factor):
    device = FakeDevice()
    rounds = device.time(12, fast=device.network(0.02), slow=device.network(0.02 * factor))
    assert ratio(rounds["fast"], rounds["slow"]) == pytest.approx(factor)


def test_a_planted_slow_network_comes_out_slower_beside_a_noisy_neighbour_too():
    device = FakeDevice()
    fast = disturbed(device.network(0.02), device, share=0.6, by_s=0.03, seed=1)
    slow = disturbed(device.network(0.03), device, share=0.2, by_s=0.03, seed=2)
    rounds = device.time(30, fast=fast, slow=slow)
    assert ratio(rounds["fast"], rounds["slow"]) == pytest.approx(1.5)
    assert statistics.median(rounds["fast"]) > statistics.median(rounds["slow"])


def test_a_device_that_slows_down_for_all_is_divided_out():
    quiet, drifting = FakeDevice(), FakeDevice(drift=0.02)
    found = []
    for device in (quiet, drifting):
        rounds = device.time(24, own=device.network(0.1), reference=device.network(0.1))
        found.append(summarize(rounds["own"], rounds["reference"], ((0, 0.1),), batch_size=10))
    assert found[0]["ratio"] == pytest.approx(1.0)
    assert found[1]["ratio"] == pytest.approx(1.0, rel=0.02)
    assert found[1]["images_per_s_raw"] < 97  # while the clock alone would have called the network slower


def test_figures_follow_from_the_samples():
    random = Random(1)
    own, reference = ([call_s * random.uniform(1.0, 1.1) for _ in range(16)] for call_s in (0.04, 0.02))
    found = summarize(own, reference, ((0, 0.05),), batch_size=8)
    assert found["ratio"] == pytest.approx(fast_seconds(reference) / fast_seconds(own))
    assert found["ratio_low"] < found["ratio"] < found["ratio_high"]
    assert found["ratio_high"] - found["ratio_low"] < 0.1 * found["ratio"]
    assert found["images_per_s_raw"] == pytest.approx(8 / statistics.median(own))
    assert (found["call_seconds"], found["reference_seconds"]) == (tuple(own), tuple(reference))
    assert found["latency_seconds"] == (0.05,)


def test_one_slow_round_moves_neither_the_score_nor_its_spread_much():
    device = FakeDevice()
    own = iter([0.1] * 4 + [5.0] + [0.1] * 15)

    def candidate():
        device.now += next(own)

    rounds = device.time(20, own=candidate, reference=device.network(0.1))
    found = summarize(rounds["own"], rounds["reference"], ((0, 0.1),), batch_size=1)
    assert found["ratio"] == pytest.approx(1.0)
    assert found["ratio_low"] == pytest.approx(1.0)
    assert found["ratio_spread"] == pytest.approx(0.0)
    assert max(found["call_seconds"]) == pytest.approx(5.0)  # the slow one is kept, not cut
    assert len(found["call_seconds"]) == 20


def test_latency_percentiles_are_samples_in_milliseconds():
    samples = tuple((i % 3, i / 1000) for i in range(100, 0, -1))
    found = summarize((0.1,) * 3, (0.1,) * 3, samples, batch_size=1)
    percentiles = [found[f"latency_ms_p{share}"] for share in (50, 95, 99)]
    assert percentiles == pytest.approx([50, 95, 99])


def test_a_single_sample_is_every_percentile():
    found = summarize((0.1,), (0.1,), ((0, 0.2),), batch_size=1)
    assert [found[f"latency_ms_p{share}"] for share in (50, 95, 99)] == pytest.approx([200.0] * 3)


# Single calls.


def test_single_calls_are_taken_inside_the_rounds_and_leave_the_blocks_as_they_are():
    device = FakeDevice()
    singles = SingleCalls(per_round=17, wanted=200, at_most_s=1.0)
    network = device.network(0.001)
    rounds = device.stopwatch().time_rounds(
        {"own": (network, 20)}, is_enough=after(16), random=Random(0), singles={"own": singles}
    )
    assert rounds["own"] == pytest.approx([0.001] * 16)
    assert len(singles.found) >= 200
    assert {i for i, _ in singles.found} == set(range(16))  # every round has one at least
    assert [seconds for _, seconds in singles.found] == pytest.approx([0.001] * len(singles.found))


def test_a_slow_networks_blocks_are_its_single_calls_and_their_time_is_bounded():
    device = FakeDevice()
    singles = SingleCalls(per_round=2, wanted=200, at_most_s=1.0)
    rounds = device.stopwatch().time_rounds(
        {"own": (device.network(1.0), 1)}, is_enough=after(12), random=Random(0), singles={"own": singles}
    )
    assert singles.found == list(enumerate(rounds["own"]))
    assert singles.is_enough
    assert device.calls == 12
