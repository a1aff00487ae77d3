"""A whole study as a file of Optuna's: what its own tools read there is what the records say."""

import dataclasses
import json

import optuna
import pytest
from builders import (
    NOW,
    TINY,
    build_arch,
    build_failed,
    build_infeasible,
    build_manifest,
    build_record,
    build_score,
    write_study,
)

from hilo_nas.errors import ConversionError, UsageError
from hilo_nas.export import EXPORTERS, ExportOptions, export, source_of_study
from hilo_nas.space import load_space
from hilo_nas.study.records import Subject
from hilo_nas.study.stored_study import StoredStudy

pytestmark = pytest.mark.usefixtures("quick_databases")

DIGITS = load_space("litv2_digits")
OPTUNA = EXPORTERS["optuna"]
LIMITS = {"params_m": 9.0, "latency_ms": 20.0}
KEPT = dict.fromkeys(LIMITS, -0.5)


def spell(record):
    return dataclasses.replace(record, params=DIGITS.encode(record.subject.arch))


def build_records():
    rungs = (build_score(0.3, images_seen=100), build_score(0.4, images_seen=300))
    return [
        build_record(0, 2000.0, 0.6, arch=TINY, origin="anchor:litv2_tiny", violations=KEPT),  # no parameters
        spell(build_record(1, 1000.0, 0.75, violations=KEPT)),
        spell(build_record(2, 900.0, state="stopped", scores=rungs, violations=KEPT, imputed={"value": 0.7})),
        spell(build_infeasible(3, 1500.0, violations={"params_m": -0.5, "latency_ms": 0.1}, imputed={"value": 0.65})),
        spell(build_infeasible(4, None, reason="params_m <= 9 is a limit", violations={"params_m": 0.2})),
        spell(build_failed(5)),
        spell(build_record(6, None, None, state="running", finished_at=None)),
        build_record(7, 9000.0, 0.99, subject=Subject(timm="resnet18"), origin="baseline:resnet18"),
    ]


@pytest.fixture
def source(tmp_path):
    manifest = build_manifest("demo study", space=DIGITS, limits={"latency_ms": 20.0})
    return source_of_study(StoredStudy(write_study(tmp_path / "studies", "demo study", build_records(), manifest).path))


@pytest.fixture
def study(source, tmp_path):
    (path,), _ = export(OPTUNA, source, tmp_path / "my study.db", ExportOptions())
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    yield optuna.load_study(study_name="demo study", storage=storage)
    storage.remove_session()
    storage.engine.dispose()


def test_states_values_and_numbers_are_those_of_the_records(study):
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MAXIMIZE"]
    assert study.metric_names == ["images_per_s", "top1"]
    trials = study.get_trials()
    assert [trial.number for trial in trials] == list(range(8))
    states = [trial.state.name for trial in trials]
    assert states == ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE", "PRUNED", "FAIL", "RUNNING", "PRUNED"]
    assert [trial.values for trial in trials[:4]] == [[2000.0, 0.6], [1000.0, 0.75], None, [1500.0, 0.65]]
    assert trials[3].user_attrs["imputed"] == ["value"]
    assert [trial.number for trial in study.best_trials] == [0, 1]  # neither the baseline nor the infeasible one


def test_parameters_have_the_choices_of_the_space(study):
    record, trial = build_records()[1], study.get_trials()[1]
    choices = {knob.param: knob.choices for knob in DIGITS.knobs}
    assert trial.params == {name: choices[name][index] for name, index in record.params.items()}
    assert {name: kind.choices for name, kind in trial.distributions.items()} == {
        name: choices[name] for name in DIGITS.dimensions
    }


def test_rungs_are_intermediate_values_by_images_seen(study):
    assert study.get_trials()[2].intermediate_values == {100: 0.3, 300: 0.4}


def test_constraints_are_named_and_reported_to_the_dashboard_as_one_number(study):
    trials = study.get_trials()
    assert trials[3].constraints == {"params_m": -0.5, "latency_ms": 0.1, "0": 0.1}
    assert trials[4].constraints == {"params_m": 0.2, "latency_ms": 0.0, "0": 0.2}
    assert [trial.system_attrs.get("constraints") for trial in trials] == [
        [-0.5], [-0.5], [-0.5], [0.1], [0.2], None, None, None,
    ]  # fmt: skip


def test_attributes_say_where_a_trial_comes_from(study):
    trials = study.get_trials()
    assert trials[0].user_attrs["origin"] == "anchor:litv2_tiny"
    assert trials[4].user_attrs["reason"] == "params_m <= 9 is a limit"
    assert trials[7].user_attrs["top1"] == 0.99
    assert {trial.user_attrs["key"] for trial in trials} >= {TINY.key(), build_arch(1).key(), "timm:resnet18"}
    assert study.user_attrs["space"] == "litv2_digits"
    assert study.user_attrs["limits"] == {"latency_ms": 20.0}
    assert json.dumps(study.user_attrs)
    assert NOW.startswith("2026-07-01")
    assert trials[1].datetime_start.year == 2026


def test_a_sampler_of_optuna_goes_on_from_the_file(study):
    study.sampler = optuna.samplers.NSGAIISampler(seed=0)
    trial = study.ask(study.get_trials()[1].distributions)
    assert set(trial.params) == set(DIGITS.dimensions)


def test_a_file_that_says_something_else_does_not_pass(source, tmp_path):
    OPTUNA.write(source, tmp_path, ExportOptions())
    assert "8 trials" in OPTUNA.verify(source, tmp_path)
    changed = dataclasses.replace(source.records[1], violations={**KEPT, "latency_ms": -0.4})
    fewer = dataclasses.replace(source, records=source.records[:-1])
    other = dataclasses.replace(source, records=(source.records[0], changed, *source.records[2:]))
    with pytest.raises(ConversionError, match="7 trials were written, but Optuna reads 8"):
        OPTUNA.verify(fewer, tmp_path)
    with pytest.raises(ConversionError, match="trial 1 must be"):
        OPTUNA.verify(other, tmp_path)


def test_a_study_without_trials_is_refused(source, tmp_path):
    with pytest.raises(UsageError, match="format optuna needs a study with trials, but study demo study has none yet"):
        export(OPTUNA, dataclasses.replace(source, records=()), tmp_path / "out", ExportOptions())
    assert not (tmp_path / "out").exists()
