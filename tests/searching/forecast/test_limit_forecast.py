"""Before a search: whether its limits can be kept, by how many networks, and what that is told from."""

import dataclasses
import math
import time

import pytest
from builders import build_arch, build_condition
from fakes import speed, write_speeds

from hilo_nas.arch.cost import count_params
from hilo_nas.errors import OutOfMemoryError
from hilo_nas.events import CohortTimed, CostForeseen, DataPrepared, LimitsForeseen, Notice
from hilo_nas.searching import SearchConfig, estimate_cost, run_search
from hilo_nas.searching.forecast import dry_run
from hilo_nas.searching.forecast.limit_forecast import LimitSample, _share_interval, estimate_limits
from hilo_nas.searching.opening.study_setup import set_up_study
from hilo_nas.space import load_space
from hilo_nas.space.space_file import build_space
from hilo_nas.study.records import Subject
from hilo_nas.study.stored_study import StoredStudy

DIGITS = load_space("litv2_digits")
OBJECTIVE = build_condition(threads=2, fused=True)
SINGLE = build_condition(threads=2, fused=True, batch_size=1)


def foresee(machine, *, space=DIGITS, **options):
    """What is foreseen, the networks that were looked at under the first condition by key, and the events."""
    events = []
    setup = set_up_study(SearchConfig.of(data="digits", **options), space, machine, events.append)
    sample = estimate_limits(setup, machine, events.append)
    found = None if sample is None else sample.event
    return found, machine.cohorts[0][1] if machine.cohorts else [], events


def warning(events):
    """The one warning among the events."""
    (text,) = [event.text for event in events if isinstance(event, Notice) and event.level == "warning"]
    return text


@pytest.fixture
def speeds_seen(machine):
    """The speeds of the networks that are looked at, the fastest first."""
    seen = []
    law = type(machine).speed_of

    def speed_of(arch, condition):
        seen.append(law(machine, arch, condition))
        return seen[-1]

    machine.speed_of = speed_of
    foresee(machine, min_images_per_s=1.0)
    del machine.speed_of
    machine.cohorts.clear()
    return sorted(seen, reverse=True)


@pytest.mark.parametrize("limits", [{}, {"params_m": 0.5, "gmacs": 1}])
def test_without_a_limit_that_needs_timing_nothing_is_timed(machine, limits):
    space = build_space("digits", {**DIGITS.to_dict(), "limits": limits})
    found, _, events = foresee(machine, space=space)
    assert found is None
    assert machine.cohorts == []
    assert not any(isinstance(event, LimitsForeseen) for event in events)


def test_a_limit_that_all_keep(machine):
    found, keys, events = foresee(machine, min_images_per_s=1.0)
    assert (found.networks, found.keeping, found.smallest_keeps) == (12, 12, True)
    assert (found.share_low, found.share_high) == (pytest.approx(0.757, abs=0.001), 1.0)
    assert found.limits == ("images_per_s >= 1",)
    assert len(keys) == 14  # twelve drawn evenly and the two smallest
    assert [event for event in events if isinstance(event, LimitsForeseen)] == [found]


def test_a_limit_that_some_keep(machine, speeds_seen):
    found, _, _ = foresee(machine, min_images_per_s=speeds_seen[5])
    assert found.keeping == 4  # of the six fastest, two are the smallest networks, which were not drawn evenly
    assert found.networks == 12
    assert found.smallest_keeps
    assert found.share_low < 4 / 12 < found.share_high
    fastest, slowest = speeds_seen[0], speeds_seen[-1]
    assert found.seen == (f"images_per_s: {slowest:.4g} to {fastest:.4g}",)


def test_a_limit_that_only_the_smallest_keep(machine, speeds_seen):
    found, _, _ = foresee(machine, min_images_per_s=speeds_seen[1])
    assert (found.keeping, found.smallest_keeps) == (0, True)
    assert (found.share_low, found.share_high) == (0.0, pytest.approx(0.243, abs=0.001))


def test_a_limit_that_none_keeps(machine):
    found, _, _ = foresee(machine, max_latency_ms=1e-3, max_memory_mib=1e6)
    assert (found.keeping, found.smallest_keeps) == (0, False)
    assert found.limits == ("latency_ms <= 0.001", "memory_mib <= 1e+06")
    assert found.seen[1] == "memory_mib: 123.5 to 123.5"


def test_the_smallest_are_the_fewest_multiply_adds_of_many(machine, speeds_seen):
    """By the fake's law speed falls with multiply-adds, so the two fastest of all are the two smallest."""
    from random import Random

    random = Random(1)
    evenly = sorted((speed(DIGITS.decode(DIGITS.sample(random))) for _ in range(300)), reverse=True)
    assert speeds_seen[1] >= evenly[6]


def test_only_networks_within_the_free_limits_are_looked_at(machine):
    space = build_space("digits", {**DIGITS.to_dict(), "limits": {"params_m": 0.3}})
    looked_at = []
    law = machine.measure_cohort

    def measure_cohort(subjects, *rest, **options):
        looked_at.extend(subject.arch for subject in subjects.values())
        return law(subjects, *rest, **options)

    machine.measure_cohort = measure_cohort
    found, _, _ = foresee(machine, space=space, min_images_per_s=1.0)
    assert found.networks == 12
    assert all(count_params(arch, num_classes=10) <= 0.3e6 for arch in looked_at)
    assert found.limits == ("images_per_s >= 1",)  # what formulas decide needs no outlook


def test_a_space_without_any_network_within_the_free_limits_foresees_nothing(machine):
    space = build_space("digits", {**DIGITS.to_dict(), "limits": {"params_m": 1e-3}})
    found, keys, events = foresee(machine, space=space, min_images_per_s=1.0)
    assert (found, keys) == (None, [])
    assert "images_per_s >= 1 is unknown" in warning(events)


def test_every_condition_is_timed_briefly_and_each_limit_judged_under_its_own(machine):
    bound = 1.1e3 / (2000 / math.sqrt(32))
    found, keys, _ = foresee(machine, min_images_per_s=1.0, also=(f"batch_size=1,max_latency_ms={bound}",))
    assert machine.cohorts == [
        (OBJECTIVE.label(), keys, True),
        (SINGLE.label(), keys, True),
    ]
    assert 0 < found.keeping < found.networks  # nothing but the second condition's limit is in the way
    assert found.limits[1] == f"latency_ms <= {bound:g} at cpu-b1-32px-fp32-fused-t2"
    assert found.seen[1].startswith("latency_ms@cpu-b1-32px-fp32-fused-t2: ")


def test_networks_that_cannot_be_timed_are_left_out(machine):
    _, keys, _ = foresee(machine, min_images_per_s=1.0)
    machine.cohorts.clear()
    machine.failures = dict.fromkeys(keys[:5], OutOfMemoryError("no memory"))
    found, _, _ = foresee(machine, min_images_per_s=1.0)
    assert found.keeping == found.networks
    assert 12 - 5 <= found.networks <= 12
    machine.failures = dict.fromkeys(keys, OutOfMemoryError("no memory"))
    found, _, events = foresee(machine, min_images_per_s=1.0)
    assert found is None
    assert "images_per_s >= 1 is unknown" in warning(events)


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 12, 0.0, 0.2425), (12, 12, 0.7575, 1.0), (6, 12, 0.2538, 0.7462), (1, 10, 0.0179, 0.4042), (0, 0, 0.0, 1.0)],
)
def test_shares_have_share_intervals_interval(hits, n, low, high):
    """The values of Wilson's score interval without continuity correction."""
    assert _share_interval(hits, n) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_where_another_machine_timed_everything_is_known_and_nothing_timed(machine, tmp_path):
    archs = [build_arch(i) for i in range(8)]
    write_speeds(tmp_path, archs)
    bound = sorted(map(speed, archs))[2]
    found, _, _ = foresee(machine, speeds=str(tmp_path / "edge"), min_images_per_s=bound)
    assert (found.networks, found.keeping) == (8, 6)
    assert machine.cohorts == machine.calibrated == []


def test_baselines_with_copied_timings_are_no_sample_of_the_space(machine, tmp_path):
    write_speeds(tmp_path, [build_arch(i) for i in range(4)])
    folder = StoredStudy(tmp_path / "edge")
    own = folder.records[0]
    baseline = dataclasses.replace(own, number=90, subject=Subject(timm="dull"), params=None)
    folder.write(baseline)
    found, _, _ = foresee(machine, speeds=str(tmp_path / "edge"), min_images_per_s=1.0)
    assert (found.networks, found.keeping) == (4, 4)


def test_a_new_search_with_limits_tells_of_them_and_of_its_cost_first(machine, tmp_path):
    events = []
    options = {"study": "new", "until_trials": 1, "sampler": "random"}
    run_search(SearchConfig.of(space="litv2_digits", min_images_per_s=1.0, **options), events.append)
    kinds = [type(event).__name__ for event in events]
    told = [name for name in kinds if name in ("LimitsForeseen", "CostForeseen", "SearchStarted")]
    assert told == ["CostForeseen", "LimitsForeseen", "CostForeseen", "SearchStarted"]
    first, final = [event for event in events if isinstance(event, CostForeseen)]
    assert (first.tried, final.tried) == (1, None)
    assert first.trials == final.trials == 1
    assert min(first.total_s, final.total_s) > 0
    again = []
    run_search(SearchConfig.of(**options), again.append)
    assert not any(isinstance(event, LimitsForeseen | CostForeseen | CohortTimed) for event in again)


def test_what_breaks_the_limits_is_not_trained_and_so_the_search_is_cheaper(machine, tmp_path):
    whole, cheap = (
        estimate_cost(SearchConfig.of(trials=10, rungs=1, sampler="random", **limits), lambda event: None)
        for limits in ({}, {"min_images_per_s": 1e9})
    )
    assert whole.total_s > 10 * whole.training_s
    found, _, _ = foresee(machine, min_images_per_s=1e9)
    assert LimitSample(event=found, feasible=()).share == (found.share_low + found.share_high) / 2 < 0.2
    assert cheap.total_s < 0.3 * whole.total_s
    assert list(tmp_path.iterdir()) == []


def test_all_networks_but_the_smallest_are_tried_only_if_they_meet_the_limits(machine, speeds_seen):
    config = SearchConfig.of(data="digits", min_images_per_s=speeds_seen[3])
    setup = set_up_study(config, DIGITS, machine, lambda event: None)
    sample = dry_run.sample_costs(setup, machine, lambda event: None)
    first, *others = machine.measured
    assert len(others) == 2
    assert set(others) <= {subject.key for subject in sample.limits.feasible} - {first}
    assert 0 < len(sample.limits.feasible) < sample.limits.event.networks


def test_the_default_sampler_proposes_networks_within_the_limits_so_each_is_trained(machine, speeds_seen):
    def cost(sampler):
        options = {"trials": 10, "rungs": 1, "min_images_per_s": speeds_seen[3], "sampler": sampler}
        return estimate_cost(SearchConfig.of(**options), lambda event: None).total_s

    assert cost("hilo") == pytest.approx(cost(None), rel=0.01)
    assert cost("hilo") > 1.5 * cost("random")


def test_a_dry_run_gives_a_first_estimate_from_its_smallest_network(machine, tmp_path):
    events = []
    cost = estimate_cost(SearchConfig.of(trials=10, min_images_per_s=1.0), events.append)
    kinds = [type(event) for event in events]
    (first,) = [event for event in events if isinstance(event, CostForeseen)]
    assert kinds.index(CostForeseen) < kinds.index(LimitsForeseen)
    assert first.tried == 1
    assert 0.2 < first.total_s / cost.total_s < 5
    assert len(machine.measured) == cost.networks == 3


def test_a_dry_run_that_waits_says_for_what():
    said = []
    begun = time.monotonic() - 60
    waiting = dry_run._WaitNotifier(said.append, begun)
    waiting(DataPrepared(done=300, total=900))
    waiting(DataPrepared(done=301, total=900))
    (notice,) = [event for event in said if isinstance(event, Notice)]
    assert notice.text == "no estimate yet after 60 s: 300 images are decoded of 900, about 120 s left"
    estimated = dry_run._WaitNotifier(said.append, begun)
    estimated(CostForeseen(trials=1, total_s=1.0, seconds=1.0, tried=1))
    estimated(DataPrepared(done=302, total=900))
    assert sum(isinstance(event, Notice) for event in said) == 1


def test_confirming_a_front_is_priced_apart_from_the_search(machine, tmp_path):
    def cost(confirm):
        return estimate_cost(SearchConfig.of(trials=1, confirm=confirm), lambda event: None)

    plain, confirmed = cost(None), cost(2)
    assert plain.confirmation_s is None
    assert confirmed.confirmation_s == pytest.approx(2 * confirmed.confirmed * confirmed.training_s)
    assert confirmed.total_s == pytest.approx(plain.total_s, abs=1)
