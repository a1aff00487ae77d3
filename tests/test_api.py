"""The Python interface on a fake machine, and what importing it costs."""

import subprocess
import sys
import threading

import pandas as pd
import pytest
from builders import TINY, build_record, write_study
from fakes import FakeMachine

import hilo_nas
from hilo_nas.errors import NotFoundError, UsageError
from hilo_nas.events import SearchFinished, TrialFinished
from hilo_nas.testing import use_evaluator

SETTINGS = {"search.sampler": "random", "proxy.reduction_factor": 0, "timing.remeasure": False}


@pytest.fixture(autouse=True)
def studies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path / "studies"))
    return tmp_path / "studies"


@pytest.fixture
def machine():
    machine = FakeMachine()
    with use_evaluator(machine):
        yield machine


@pytest.fixture
def study(machine):
    return hilo_nas.search("litv2_digits", study="demo", trials=6, settings=SETTINGS)


def test_a_search_stores_what_the_command_line_stores(study, studies):
    assert sorted(path.name for path in (studies / "demo").iterdir()) == [
        *(
            ".lock",
            "checkpoints",
            "data.png",
            "front.csv",
            "local.yaml",
            "logs",
            "manifest.backup.yaml",
            "manifest.yaml",
            "posteriors.json",
            "trials",
            "trials.csv",
        ),
    ]
    assert study.path == studies / "demo"
    assert study.config.search.seed == 0
    assert study.config.proxy.reduction_factor == 0.0


def test_a_second_call_resumes_the_study(study, machine):
    again = hilo_nas.search(study="demo", trials=2)
    assert len(again.records) == 8
    assert repr(again).startswith("Study('demo', 8 of 8 trials, ")


def test_settings_come_before_the_configuration_and_keywords_before_both(machine, tmp_path):
    (tmp_path / "search.yaml").write_text("timing: {batch_size: 8, img_size: 64}\nsearch: {seed: 4}\n")
    study = hilo_nas.search(
        "litv2_digits",
        study="layers",
        trials=1,
        batch_size=32,
        config="search.yaml",
        settings={**SETTINGS, "timing.batch_size": 16, "search.seed": 5},
    )
    manifest = study.manifest
    assert (manifest.objective.batch_size, manifest.objective.img_size, manifest.seed) == (32, 64, 5)


def test_a_configuration_may_be_a_value_or_a_dictionary(machine):
    config = hilo_nas.SearchConfig.of(space="litv2_digits", study="value", trials=1, sampler="random", seed=3)
    assert hilo_nas.search(config=config).manifest.seed == 3
    fields = {"space": "litv2_digits", "study": {"name": "fields"}, "search": {"trials": 1, "seed": 4}}
    assert hilo_nas.search(config=fields).manifest.seed == 4
    assert [study.name for study in hilo_nas.list_studies()] == ["fields", "value"]


def test_events_tell_of_every_trial(machine):
    events = []
    hilo_nas.search("litv2_digits", study="told", trials=3, settings=SETTINGS, on_event=events.append)
    assert sum(isinstance(event, TrialFinished) for event in events) == 3
    assert isinstance(events[-1], SearchFinished)


def test_an_evaluator_may_be_passed_in():
    machine = FakeMachine()
    hilo_nas.search("litv2_digits", study="own", trials=2, settings=SETTINGS, evaluator=machine)
    assert len(set(machine.scored)) == 2
    assert not machine.closed, "whoever made it closes it"


def test_trials_are_a_frame_with_types(study):
    frame = study.trials()
    assert list(frame.index) == list(range(6))
    assert frame.index.name == "number"
    assert frame["key"].dtype == "string"
    assert list(frame["key"]) == [record.key for record in study.records]
    assert pd.api.types.is_float_dtype(frame["images_per_s"])
    assert pd.api.types.is_integer_dtype(frame["images_seen"])
    assert pd.api.types.is_bool_dtype(frame["on_front"])
    front = study.trials("front")
    assert list(front.index) == [member.number for member in study.front().members]
    assert front["images_per_s"].is_monotonic_decreasing
    with pytest.raises(UsageError, match="which must be all, front or near, but got 'frond'"):
        study.trials("frond")
    assert set(study.trials("near").index) == {*front.index, *study.front().ties}


def test_what_looks_like_a_number_stays_text(tmp_path):
    trials = [build_record(number) for number in range(3)]
    frame = hilo_nas.load_study(write_study(tmp_path, "text", trials).path).trials()
    assert list(frame["depths"]) == ["-".join(map(str, trial.arch.depths)) for trial in trials]
    assert list(frame["patch_size"]) == [trial.arch.patch_size for trial in trials]


def test_the_best_trial_keeps_the_limits(study):
    speeds = sorted(record.measurement.images_per_s for record in study.records)
    best = study.best()
    assert best.score.value == max(record.score.value for record in study.records)
    fast = study.best(min_images_per_s=speeds[-2] * 0.9)
    assert fast.measurement.images_per_s >= speeds[-2]
    assert fast.score.value <= best.score.value
    with pytest.raises(NotFoundError, match="no trial of study demo meets images_per_s >= 1e"):
        study.best(min_images_per_s=1e9)
    with pytest.raises(UsageError, match="must be above 0"):
        study.best(max_latency_ms=0)


def test_an_export_may_name_the_trial_or_how_to_choose_it(study, tmp_path):
    best = study.best()
    exported = study.export(tmp_path / "out", trial=best)
    assert exported.source.record == best
    assert {path.name for path in exported.files} == {"train.yaml", "arch.yaml", "provenance.yaml", *RUN_FILES}
    assert exported.next_step.startswith("Train it with timm's train.py")
    assert study.export(tmp_path / "knee", knee=True).source.record in study.front().members
    with pytest.raises(UsageError, match="give exactly one of a trial's number, the knee, and limits"):
        study.export(tmp_path / "none")
    model = hilo_nas.load_model(tmp_path / "out")
    assert sum(parameter.numel() for parameter in model.parameters()) == best.parameters
    with pytest.raises(UsageError, match="num_classes must be at least 1"):
        hilo_nas.export_files(tmp_path / "out/arch.yaml", tmp_path / "again", format="onnx", num_classes=0)
    whole = hilo_nas.export_files("demo", tmp_path / "demo.db", format="optuna")
    assert [path.name for path in whole.files] == ["demo.db"]


RUN_FILES = ("config.json", "run_timm.py", "timing.env")


def test_networks_are_measured_side_by_side(machine, study):
    measured = hilo_nas.measure(["litv2_small", "demo:1"], batch_size=8, settings={"timing.threads": 1})
    frame = measured.to_frame()
    assert list(frame["name"]) == ["litv2_small", "demo:1"]
    assert frame["ratio"][0] == 1.0
    assert (measured.condition.batch_size, measured.condition.threads) == (8, 1)
    assert repr(measured).startswith("Measured(litv2_small ")
    assert "<table" in measured._repr_html_()
    assert measured.tried == {}
    with pytest.raises(UsageError, match="num_classes must be at least 1"):
        hilo_nas.measure(["litv2_small"], num_classes=0)
    for networks in ([], "litv2_small"):
        with pytest.raises(UsageError, match="networks must be a list of at least one name"):
            hilo_nas.measure(networks)


def test_networks_are_measured_in_their_fastest_runtimes(machine):
    measured = hilo_nas.measure(["litv2_small", "litv2_base"], runtime="best", batch_size=8)
    assert set(measured.to_frame()["runtime"]) == {"torch"}  # this machine is as fast in each
    assert list(measured.tried["litv2_base"]) == ["torch", "onnxruntime", "openvino"]


def test_a_study_is_timed_again_here_or_elsewhere(machine, study):
    again = hilo_nas.remeasure(study)
    assert isinstance(again, hilo_nas.Study)
    assert len(machine.cohorts) == 1
    assert again.path == study.path


def test_a_cost_is_estimated_without_a_study(machine, studies):
    cost = hilo_nas.estimate_cost("litv2_digits", config={"search": {"trials": 40}}, settings=SETTINGS)
    assert cost.trials == 40
    assert not (studies / "litv2_digits").exists()


def test_values_have_useful_reprs(study):
    assert repr(study.front()).startswith("Front(trials ")
    assert repr(study.records[0]).startswith("TrialRecord(0, ")
    assert "images/s" in repr(study.records[0])
    assert "<table" in study._repr_html_()
    assert repr(hilo_nas.api.Study(study.path.parent / "none")).endswith("none', empty)")


def test_a_search_runs_outside_the_main_thread():
    found = []
    options = {"study": "thread", "trials": 2, "settings": SETTINGS, "evaluator": FakeMachine()}
    thread = threading.Thread(target=lambda: found.append(hilo_nas.search("litv2_digits", **options)))
    thread.start()
    thread.join(60)
    assert [len(study.records) for study in found] == [2]


def test_an_unknown_study_is_refused_with_near_names(study):
    with pytest.raises(NotFoundError, match="Did you mean demo"):
        hilo_nas.load_study("dmeo")


def test_networks_are_created_by_name_or_architecture():
    assert hilo_nas.create_model(TINY, num_classes=3).num_classes == 3
    assert hilo_nas.create_model("resnet18", num_classes=5).num_classes == 5


def test_every_public_name_is_there_and_documented():
    for name in hilo_nas.__all__:
        value = getattr(hilo_nas, name)
        assert value.__doc__, name
    assert set(hilo_nas.__all__) <= set(dir(hilo_nas))
    with pytest.raises(AttributeError, match="has no attribute 'searchh'"):
        hilo_nas.searchh  # noqa: B018


def test_importing_the_package_is_cheap():
    code = (
        "import sys, hilo_nas; hilo_nas.search; hilo_nas.load_study; hilo_nas.SearchConfig; "
        "print([name for name in ('torch', 'timm', 'optuna', 'pandas', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
