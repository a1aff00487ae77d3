"""What a timing lost to others: planted states of devices, new and old."""

import dataclasses

import pytest
from builders import build_condition, build_device, build_measurement

from hilo_nas.measurement import find_contention
from hilo_nas.measurement.intervals import error_apart
from hilo_nas.measurement.verdicts import judge_cohort, verdict_of
from hilo_nas.space import measured_chances

TWO = build_device(model="A CPU, 2 cores")
MANY = build_device(model="A CPU, 16 cores")
CARD = build_device(kind="cuda", model="A card")


def state(others, *, cores=2, mean=None, steal=0.0, throttled=0.0):
    """What a device says of load that others put on it, in the quietest fifth and (if it differs) on average."""
    least = {"others_cores": others, "steal_cores": steal, "throttled_cores": throttled}
    return {"cores": cores, **least, "others_cores": others if mean is None else mean, "quietest": least, "with": []}


@pytest.mark.parametrize(
    ("seen", "threads", "device", "lost"),
    [
        (state(1.0), 2, TWO, 1.0),
        (state(0.1), 2, TWO, None),
        (state(1.0), 1, TWO, None),  # one core is free
        (state(1.8), 1, TWO, 0.8),
        (state(1.0, cores=16), 2, MANY, None),
        (state(14.9, cores=16), 2, MANY, 0.9),
        (state(1.0, cores=16), 16, MANY, 1.0),
        (state(0.05, mean=1.0), 2, TWO, None),  # bursts
        (state(0.0, steal=0.5), 2, TWO, 0.5),
        (state(0.0, cores=16, steal=0.5), 2, MANY, 0.5),  # no free core helps against that
        (state(0.0, throttled=0.8), 2, TWO, 0.8),
        (state(3.0), 2, TWO, 2),  # no more than it needed
        (state(1.0), 8, TWO, 1.0),  # more threads than cores
        (state(1.0), 2, CARD, None),  # one core launches the work
        (state(1.9), 2, CARD, 0.9),
        ({}, 2, TWO, None),
        ({"throttle_reasons": []}, 2, CARD, None),
        ({"others_cores": 1.0}, 2, TWO, 1.0),  # records before the quietest fifth was told
        ({"others_cores": 0.5}, 2, TWO, None),
        ({"others_cores": 1.0}, 2, MANY, None),
        ({"others_cores": 1.0}, 2, build_device(model="?"), 1.0),
        (state(6.0, cores=16), 1, MANY, None),
        (state(6.0, cores=16), None, MANY, 6.0),  # no number of threads was asked for: all cores
        ({"others_cores": 1.0}, None, TWO, 1.0),
    ],
)
def test_others_matter_where_they_leave_fewer_cores_than_a_timing_needs(seen, threads, device, lost):
    found = find_contention(seen, threads=threads, device=device)
    assert (None if found is None else found.lost_cores) == (None if lost is None else pytest.approx(lost))


def test_it_is_told_who_used_how_much():
    seen = {
        **state(1.0, steal=0.2, throttled=0.3),
        "with": [{"pid": 1234, "name": "python", "cores": 0.98}, {"pid": 5, "name": "cc1", "cores": 0.1}],
    }
    found = find_contention(seen, threads=2, device=TWO)
    assert found.text == (
        "other processes kept 1.0 of 2 cores busy (python 1234: 1.0, cc1 5: 0.1) and the host of this virtual machine "
        "withheld 0.2 of 2 cores (steal time) and the CPU limit of its control group withheld 0.3 cores"
    )


def timing(**fields):
    values = {"call_seconds": (0.1,) * 12, "reference_seconds": (0.2,) * 12, "threads": 2, "device": TWO, **fields}
    return build_measurement(1000.0, **values)


def test_a_stored_timing_is_judged_by_its_state_whatever_verdict_is_stored():
    old = timing(verdict="steady", device_state={"others_cores": 1.0})
    found = verdict_of(old)
    assert found.verdict == "contended"
    assert "other processes kept 1.0 of 2 cores busy" in found.text
    assert verdict_of(timing(verdict="bursty")).verdict == "steady"
    assert verdict_of(timing(protocol=1)) is None


def test_contended_is_the_worst_verdict():
    quiet, loaded = timing(cohort="a"), timing(cohort="b", device_state=state(1.0))
    hot = timing(cohort="c", device_state={"throttle_reasons": ["hardware slowdown"]})
    assert judge_cohort([quiet, hot]).verdict == "throttled"
    assert judge_cohort([loaded, quiet, hot]).verdict == "contended"
    both = dataclasses.replace(hot, device_state={**hot.device_state, **state(1.0)})
    assert verdict_of(both).verdict == "contended"


def test_the_interval_of_a_contended_timing_is_wider_by_what_it_may_have_changed():
    interval = {"images_per_s_low": 980.0, "images_per_s_high": 1020.0, "condition": build_condition(threads=2)}
    quiet, loaded = timing(**interval), timing(**interval, device_state=state(1.0))
    assert quiet.half_width == pytest.approx(20)
    assert loaded.contention_error == pytest.approx(0.35)
    assert loaded.half_width == pytest.approx((20**2 + (1.96 * 350) ** 2) ** 0.5)


def test_the_ratio_of_two_contended_networks_is_surer_than_either_speed():
    loaded = timing(device_state=state(1.0))
    assert error_apart(loaded) == pytest.approx(0.2)
    assert error_apart(timing(device_state=state(0.0))) == 0.0


def test_a_latency_of_a_contended_timing_is_as_unsure_as_its_speed():
    values = {"latency_ms_p95": 20.0, "latency_ms_p95_low": 19.5, "latency_ms_p95_high": 20.5}
    loaded = timing(**values, device_state=state(1.0))
    assert timing(**values).latency_error < 0.02
    assert loaded.latency_error == pytest.approx(0.35, rel=0.01)
    assert 0.3 < measured_chances({"latency_ms": 19.0}, (loaded,))["latency_ms"] < 0.5


def test_a_cpu_limit_stays_and_the_way_out_is_another_than_waiting():
    limited = find_contention(state(0.0, throttled=1.0), threads=2, device=TWO)
    assert not limited.can_pass
    assert "timing.threads" in limited.way_out
    assert find_contention(state(1.0, throttled=0.2), threads=2, device=TWO).can_pass
