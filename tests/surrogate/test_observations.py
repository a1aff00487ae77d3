import dataclasses
import math

import pytest
from builders import (
    TINY,
    build_data,
    build_device,
    build_failed,
    build_infeasible,
    build_interrupted,
    build_manifest,
    build_measurement,
    build_plan,
    build_record,
    build_score,
    demo_records,
    digits,
)

from hilo_nas.space.space_file import build_space
from hilo_nas.study.records import FITS, Subject
from hilo_nas.surrogate.features import describe_network
from hilo_nas.surrogate.observations import KnownNetwork, KnownScore, know_networks

MANIFEST = build_manifest(plan=build_plan(rungs=(500, 1000)))
RUNG, SECOND_RUNG, FULL = MANIFEST.plan.budgets


def know(record, manifest=MANIFEST):
    (found,) = know_networks([record], manifest)
    return found


def test_networks_come_in_the_order_of_their_trials():
    records = demo_records()
    assert [network.key for network in know_networks(records, MANIFEST)] == [record.key for record in records]


def test_baselines_are_left_out():
    records = [build_record(0), build_record(1, subject=Subject(timm="resnet18"), origin="baseline:resnet18")]
    assert [network.key for network in know_networks(records, MANIFEST)] == [records[0].key]


def test_features_are_those_at_the_image_size_and_classes_of_the_study():
    manifest = build_manifest(data=build_data(num_classes=7))
    assert know(build_record(0, arch=TINY), manifest).features == describe_network(TINY, 32, 7)


def test_a_timing_is_known_as_a_logarithm_with_its_standard_error():
    timing = build_measurement(800.0, images_per_s_low=780.0, images_per_s_high=820.0)
    network = know(build_record(measurements=(timing,)))
    assert network.log_speed == pytest.approx(math.log(800))
    assert network.log_speed_error == pytest.approx(20 / 800 / 1.96)
    assert network.is_timed
    assert not network.is_preliminary


def test_a_brief_timing_is_known_as_such():
    network = know(build_record(value=None, state="timed", measurements=(build_measurement(is_preliminary=True),)))
    assert network.is_preliminary
    assert not network.is_timed
    assert network.log_speed == pytest.approx(math.log(1000))
    assert not network.is_trained


def test_scores_are_known_with_the_number_of_larger_budgets():
    scores = tuple(
        build_score(value, images_seen=images) for value, images in ((0.3, RUNG), (0.4, SECOND_RUNG), (0.5, FULL))
    )
    network = know(build_record(scores=scores))
    assert [(score.value, score.budgets_left) for score in network.scores] == [(0.3, 2), (0.4, 1), (0.5, 0)]
    assert network.scores[2].standard_error == pytest.approx(scores[2].standard_error)
    assert network.is_trained


def test_a_network_that_stopped_at_a_rung_is_not_trained():
    network = know(build_record(state="stopped", scores=(build_score(images_seen=RUNG),)))
    assert len(network.scores) == 1
    assert not network.is_trained


def test_scores_of_several_seeds_are_told_apart():
    scores = tuple(build_score(images_seen=FULL, seed=seed) for seed in (0, 1, 2))
    assert [score.seed for score in know(build_record(scores=scores)).scores] == [0, 1, 2]


def test_a_score_without_an_error_is_exact():
    plan = build_plan(proxy="params", recipe="params-1", images=1, metric="auto")
    score = dataclasses.replace(build_score(), standard_error=0.0, images_seen=1)
    (known,) = know(build_record(scores=(score,)), build_manifest(plan=plan)).scores
    assert known == KnownScore(value=0.5, standard_error=0.0, budgets_left=0, seed=0)


@pytest.mark.parametrize(
    ("record", "has_failed", "is_running"),
    [
        (build_record(), False, False),
        (build_failed(0), True, False),
        (build_interrupted(0), False, False),
        (build_record(0, 900.0, None, state="running"), False, True),
        (build_record(0, None, None, state="waiting"), False, False),
        (build_infeasible(0), False, False),
        (build_infeasible(0, None, "out of memory", violations={FITS: 1.0}), True, False),
        (build_infeasible(0, None, "too large", violations={"params_m": 0.5}), False, False),
    ],
)
def test_failures_of_the_network_and_running_trials_are_known(record, has_failed, is_running):
    network = know(record)
    assert (network.has_failed, network.is_running) == (has_failed, is_running)


def test_a_network_without_results_is_known_by_its_features_alone():
    record = build_record(0, None, None, state="waiting")
    expected = KnownNetwork(key=record.key, features=describe_network(record.subject.arch, 32, 10))
    assert know(record) == expected


def with_limits(**limits):
    return build_manifest(space=build_space("digits", {**digits().to_dict(), "limits": limits}))


def test_violations_are_those_of_the_limits_that_need_a_timing():
    record = build_record(0, 1000.0, violations={"params_m": -0.01, "latency_ms": 0.4})
    manifest = with_limits(params_m=0.7, images_per_s=1100.0, memory_mib=200.0)
    violations = know(record, manifest).violations
    assert violations.keys() == {"images_per_s", "memory_mib"}
    assert violations["images_per_s"] == pytest.approx(math.log(1.1))
    assert violations["memory_mib"] < 0


def test_a_network_without_a_timing_violates_nothing_that_is_known():
    record = build_infeasible(0, None, violations={"memory_mib": 1.0})
    assert know(record, with_limits(memory_mib=100.0)).violations == {}
    assert know(build_record(), build_manifest()).violations == {}


def test_a_timing_on_another_device_is_no_timing_of_the_study():
    timing = build_measurement(device=build_device(model="Another CPU"))
    network = know(build_record(measurements=(timing,)))
    assert network.log_speed is None
    assert not network.is_timed
    assert network.is_trained
