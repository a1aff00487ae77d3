import itertools
import statistics

import pytest

from hilo_nas.measure.throughput import summarize
from hilo_nas.measure.timer import MIN_BLOCK_S, Stopwatch, robust_spread


class FakeDevice:
    """A clock, and calls that move it on; `drift` slows everything down from call to call."""

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


def test_a_block_is_synchronised_around_and_not_inside():
    device = FakeDevice()
    assert device.stopwatch().time_block(device.network(0.5), 10) == pytest.approx(0.5)
    assert (device.synchronizations, device.calls) == (2, 10)


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


def test_the_reference_comes_before_and_after_every_candidate():
    device = FakeDevice()
    order = []

    def logged(name, seconds):
        run = device.network(seconds)
        return lambda: (order.append(name), run())

    rounds = device.stopwatch().time_rounds(logged("own", 0.1), logged("ref", 0.2), calls=(1, 1), rounds=3)
    assert order == ["ref", "own", "ref", "own", "ref", "own", "ref"]
    assert (len(rounds.candidate), len(rounds.reference)) == (3, 4)
    assert rounds.ratios == pytest.approx((2.0, 2.0, 2.0))


def test_a_planted_slow_network_comes_out_slower_by_its_factor():
    device = FakeDevice()
    watch = device.stopwatch()
    reference = device.network(0.05)
    fast, slow = (
        watch.time_rounds(device.network(seconds), reference, calls=(1, 1), rounds=7) for seconds in (0.02, 0.03)
    )
    assert statistics.median(fast.ratios) / statistics.median(slow.ratios) == pytest.approx(1.5)


def test_a_device_that_slows_down_for_both_is_divided_out():
    quiet, drifting = FakeDevice(), FakeDevice(drift=0.02)
    scores = []
    for device in (quiet, drifting):
        rounds = device.stopwatch().time_rounds(device.network(0.1), device.network(0.1), calls=(1, 1), rounds=20)
        found = summarize(rounds, (0.1,), batch_size=10, calibrated=100.0)
        scores.append(found["images_per_s"])
    assert scores[1] == pytest.approx(scores[0], rel=0.005)
    assert found["images_per_s_raw"] < 97  # while the clock alone would have called the network slower


def test_one_slow_round_moves_neither_the_score_nor_its_spread_much():
    device = FakeDevice()
    own = iter([0.1] * 4 + [5.0] + [0.1] * 10)

    def candidate():
        device.now += next(own)

    rounds = device.stopwatch().time_rounds(candidate, device.network(0.1), calls=(1, 1), rounds=10)
    found = summarize(rounds, (0.1,), batch_size=1, calibrated=50.0)
    assert found["images_per_s"] == pytest.approx(50.0)
    assert found["images_per_s_spread"] == pytest.approx(0.0)
    assert len(found["call_seconds"]) == 10  # the slow one is kept, not cut


def test_latency_percentiles_are_samples_in_milliseconds():
    device = FakeDevice()
    rounds = device.stopwatch().time_rounds(device.network(0.1), device.network(0.1), calls=(1, 1), rounds=3)
    samples = tuple(i / 1000 for i in range(100, 0, -1))
    found = summarize(rounds, samples, batch_size=1, calibrated=1.0)
    percentiles = [found[f"latency_ms_p{share}"] for share in (50, 95, 99)]
    assert percentiles == pytest.approx([50, 95, 99])


def test_latency_is_taken_call_by_call_within_its_time():
    device = FakeDevice()
    samples = device.stopwatch().time_latency(device.network(0.1), at_most_s=0.45, at_most=50)
    assert samples == pytest.approx((0.1,) * 5)
    assert len(device.stopwatch().time_latency(device.network(0.001), at_most_s=10, at_most=7)) == 7


def test_a_robust_spread_is_the_standard_deviation_without_outliers():
    values = [statistics.NormalDist(10, 2).inv_cdf((i + 0.5) / 1000) for i in range(1000)]
    assert robust_spread(values) == pytest.approx(2.0, rel=0.01)
    assert robust_spread([*values, 1e9]) == pytest.approx(2.0, rel=0.01)
