"""Conditions and limits: how a search is asked for them, and what they do to it."""

import dataclasses
import math

import pytest
from builders import (
    TINY,
    build_arch,
    build_condition,
    build_infeasible,
    build_manifest,
    build_measurement,
    build_record,
    fresh,
    write_study,
)
from fakes import RESOURCES, FakeMachine, speed

from hilo_nas.errors import UsageError
from hilo_nas.searching import run_search
from hilo_nas.searching.configuration.resolve import condition_options, requirements_of
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.loop import SearchLoop
from hilo_nas.searching.sampling.optuna_study import OptunaStudy
from hilo_nas.searching.sampling.samplers import build_sampler
from hilo_nas.space import LIMITS, limit_text, load_space, measured_values, measured_violations
from hilo_nas.space.limits import violation
from hilo_nas.space.space_file import build_space
from hilo_nas.study.records import FITS, Subject
from hilo_nas.study.transitions import interrupt

DIGITS = load_space("litv2_digits")
OBJECTIVE = build_condition(threads=2)
SINGLE = build_condition(threads=2, batch_size=1)
"""A further condition: one image a call."""


def test_limits_of_the_command_line_hold_for_the_objective():
    also = ("batch_size=1,max_latency_ms=9",)
    request = SearchConfig.of(also=also, min_images_per_s=900.0, max_latency_ms=20.0, max_memory_mib=100.0)
    found = requirements_of(request, OBJECTIVE)
    assert found.conditions == (OBJECTIVE, SINGLE)
    assert found.limits == {
        "images_per_s": 900.0,
        "latency_ms": 20.0,
        "memory_mib": 100.0,
        f"latency_ms@{SINGLE.label()}": 9.0,
    }


@pytest.mark.parametrize("option", ["min_images_per_s", "max_latency_ms", "max_memory_mib"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_limit_of_the_objective_must_be_a_number_above_zero(option, value):
    with pytest.raises(UsageError, match=f"{option} must be a number above 0, but got {value:g}"):
        SearchConfig.of(**{option: value})


def test_only_the_options_that_were_given_are_the_objectives():
    assert condition_options(SearchConfig.of(trials=3, sampler="gp", max_latency_ms=3.0)) == {}
    given = {"batch_size": 3, "img_size": 32, "threads": 1, "channels_last": False, "compile": True, "env": "default"}
    assert condition_options(SearchConfig.of(**given)) == given


# Limits and values.


def test_limits_of_the_command_line_come_before_the_spaces():
    space = build_space("digits", {**DIGITS.to_dict(), "limits": {"latency_ms": 50, "params_m": 1}})
    manifest = build_manifest(space=space, limits={"latency_ms": 20.0, "memory_mib": 9.0})
    assert manifest.limits_in_force == {"latency_ms": 20.0, "params_m": 1.0, "memory_mib": 9.0}


@pytest.mark.parametrize("name", LIMITS)
def test_a_value_on_its_limit_keeps_it_and_one_beyond_breaks_it(name):
    worse = 0.9 if LIMITS[name].is_floor else 1 / 0.9
    for limit in (name, f"{name}@{SINGLE.label()}"):
        assert violation(limit, 20.0, 20.0) == 0
        assert violation(limit, 20.0, 20.0 * worse) == pytest.approx(-math.log(0.9))
        assert violation(limit, 20.0, 20.0 / worse) == pytest.approx(math.log(0.9))
    assert math.isfinite(violation(name, 20.0, 0.0))


def test_a_limit_names_its_condition():
    assert limit_text("images_per_s", 900.0) == "images_per_s >= 900"
    assert limit_text(f"latency_ms@{SINGLE.label()}", 20.0) == "latency_ms <= 20 at cpu-b1-32px-fp32-t2"


def test_values_are_named_by_their_condition_and_the_first_counts():
    some = [build_measurement(1000.0), build_measurement(50.0, condition=SINGLE, memory_mib=None)]
    old = [build_measurement(1.0), build_measurement(2.0, condition=SINGLE)]
    values = measured_values([*some, *old])
    assert values["images_per_s"] == 1000.0
    assert values["memory_mib"] == 123.5
    assert values[f"images_per_s@{SINGLE.label()}"] == 50.0
    assert values[f"latency_ms@{SINGLE.label()}"] == pytest.approx(22.0)
    assert values[f"memory_mib@{SINGLE.label()}"] is None


def test_memory_that_cannot_be_seen_breaks_no_limit():
    (found,) = measured_violations({"memory_mib": 1.0}, [build_measurement(memory_mib=None)]).values()
    assert found < 0


# What they do to a search.


def search(tmp_path, limits, *, conditions=(OBJECTIVE, SINGLE), trials=8, space=DIGITS):
    manifest = build_manifest(conditions=conditions, limits=limits, sampler="random", trials=trials, space=space)
    folder = write_study(tmp_path, manifest=manifest)
    machine = FakeMachine()
    loop = SearchLoop(fresh(folder), manifest, machine, RESOURCES, lambda event: None)
    loop.run()
    return loop, fresh(folder).records, machine


def test_every_network_is_timed_under_every_condition_the_objective_first(tmp_path):
    _, records, _ = search(tmp_path, {}, trials=3)
    assert all([m.condition for m in record.measurements] == [OBJECTIVE, SINGLE] for record in records)
    assert all(record.measurement.images_per_s == speed(record.subject.arch) for record in records)


def test_a_missing_runtime_of_a_further_condition_ends_a_search_before_the_images_are_read(tmp_path, monkeypatch):
    class Machine(FakeMachine):
        def read_form(self, condition):
            if condition.runtime == "openvino":
                raise UsageError("runtime openvino needs openvino, which is not installed")
            return super().read_form(condition)

        def prepare(self, task):
            raise AssertionError("the images must not be read")

    monkeypatch.chdir(tmp_path)
    config = SearchConfig.of(
        space="litv2_digits", device="cpu", study="two", sampler="random", also=("runtime=openvino",)
    )
    with pytest.raises(UsageError, match="needs openvino"):
        run_search(config, lambda event: None, evaluator=Machine())
    assert not (tmp_path / "studies").exists()


def test_what_breaks_another_conditions_limit_alone_is_infeasible_and_not_trained(tmp_path):
    bound = 1.1e3 / (2000 / math.sqrt(32))  # one image takes so many ms where the objective's speed is 2000
    limits = {"images_per_s": 1.0, f"latency_ms@{SINGLE.label()}": bound}
    _, records, machine = search(tmp_path, limits, trials=7)
    slow = [record for record in records if speed(record.subject.arch) < 2000]
    assert 0 < len(slow) < 7
    for record in records:
        assert set(record.violations) == set(limits)
        assert record.violations["images_per_s"] < 0
        assert record.state == ("infeasible" if record in slow else "complete")
        assert (record.key in machine.scored) == (record not in slow)
    got = slow[0].measurements[1].latency_ms_p95
    assert slow[0].reason == f"latency_ms <= {bound:g} at cpu-b1-32px-fp32-t2 is a limit, but got {got:.4g}"
    assert set(slow[0].imputed) == {"value"}  # its speed is known


def test_several_broken_limits_are_all_named(tmp_path):
    limits = {"images_per_s": 1e9, f"images_per_s@{SINGLE.label()}": 1e9, f"memory_mib@{SINGLE.label()}": 200.0}
    _, records, _ = search(tmp_path, limits, trials=1)
    first, second = records[0].reason.split("; ")
    assert first.startswith("images_per_s >= 1e+09 is a limit, but got ")
    assert second.startswith("images_per_s >= 1e+09 at cpu-b1-32px-fp32-t2 is a limit, but got ")


def test_the_sampler_is_told_of_every_measured_limit_with_every_trial(tmp_path):
    space = build_space("digits", {**DIGITS.to_dict(), "limits": {"params_m": 0.25, "latency_ms": 1e6}})
    bound = 1.1e3 / (2800 / math.sqrt(32))
    limits = {"latency_ms": 900.0, f"latency_ms@{SINGLE.label()}": bound}
    _, records, _ = search(tmp_path, limits, space=space, trials=7)
    assert records[0].key == TINY.key()
    assert (records[0].state, records[0].measurements) == ("infeasible", ())  # beyond params_m: never timed
    study = OptunaStudy(space, build_sampler("gp", 0), limits={**space.limits, **limits})
    study.update(records)
    assert len(study.trials) == 6
    assert {frozenset(trial.constraints) for trial in study.trials} == {frozenset(limits)}  # not params_m
    broken = [record.violations[f"latency_ms@{SINGLE.label()}"] > 0 for record in records[1:]]
    assert any(broken)
    assert not all(broken)


def test_the_default_sampler_takes_limits_of_several_conditions():
    """Records with all, some and none of the limits' values, among them a network that did not fit."""
    limits = {"latency_ms": 20.0, f"latency_ms@{SINGLE.label()}": 3.0}
    some = [build_record(i, 1000.0 + i, 0.5 + i / 50, violations=dict.fromkeys(limits, -0.1)) for i in range(9)]
    some.append(build_infeasible(9, 900.0, violations={"latency_ms": -0.1}, imputed={"value": 0.5}))
    told = {"images_per_s": 900.0, "value": 0.5}
    some.append(build_infeasible(10, None, violations={FITS: 1.0}, imputed=told))
    some = [dataclasses.replace(record, params=DIGITS.encode(record.subject.arch)) for record in some]
    study = OptunaStudy(DIGITS, build_sampler("gp", 0), limits=limits)
    assert study.propose(some).params.keys() == DIGITS.dimensions.keys()
    told = study.trials[:11]
    assert {frozenset(trial.constraints) for trial in told} == {frozenset({*limits, FITS})}
    assert told[9].constraints[f"latency_ms@{SINGLE.label()}"] == 0.0  # not known: on the edge
    assert told[10].constraints[FITS] == 1.0


def test_a_network_that_was_timed_under_one_condition_only_is_timed_under_the_other(tmp_path):
    class Machine(FakeMachine):
        def measure(self, subject, condition, rivals):
            timed_now.append((subject.key, condition))
            return super().measure(subject, condition, rivals)

    timed_now = []
    conditions = (OBJECTIVE, SINGLE)
    cut = []
    for number, timed in enumerate([conditions[:1], conditions[1:], conditions]):
        subject = Subject(arch=build_arch(number))
        timings = tuple(FakeMachine().time(subject, condition) for condition in timed)
        cut.append(interrupt(build_record(number, value=None, measurements=timings, origin="sampler")))
    space = build_space("digits", {**DIGITS.to_dict(), "anchors": {}})
    manifest = build_manifest(conditions=conditions, sampler="random", trials=3, space=space)
    folder = write_study(tmp_path, records=cut, manifest=manifest)
    SearchLoop(fresh(folder), manifest, Machine(), RESOURCES, lambda event: None).run()
    assert timed_now == [(cut[0].key, SINGLE), (cut[1].key, OBJECTIVE)]
    assert [len(record.measurements) for record in fresh(folder).records] == [2, 2, 2]
