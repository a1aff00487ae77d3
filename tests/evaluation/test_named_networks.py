"""Timing without a search: what may be named, and what the evaluator is asked for."""

import pytest
import yaml
from builders import TINY, build_condition, build_manifest, demo_records, write_study

from hilo_nas.errors import ArchError, ConversionError, NotFoundError, UsageError
from hilo_nas.evaluation import Time, measure_named
from hilo_nas.evaluation.named_networks import find_network
from hilo_nas.events import BenchStepped, Notice
from hilo_nas.testing import FakeEvaluator


@pytest.fixture(autouse=True)
def studies(tmp_path, monkeypatch):
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path))


def ignore(event):
    pass


def test_a_network_is_found_under_each_kind_of_name(tmp_path):
    write_study(tmp_path, records=demo_records(), manifest=build_manifest())
    (tmp_path / "arch.yaml").write_text(yaml.safe_dump(TINY.to_dict()))
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    assert find_network("litv2_small").subject["arch"]["depths"] == [2, 2, 6, 2]
    assert find_network("timm:resnet50").subject == {"timm": "resnet50"}
    assert find_network(f"onnx:{tmp_path}/model.onnx").subject == {"onnx": f"{tmp_path}/model.onnx"}
    assert find_network(f"openvino:{tmp_path}/model.onnx").subject == {"openvino": f"{tmp_path}/model.onnx"}
    assert find_network(str(tmp_path / "arch.yaml")).subject == {"arch": TINY.to_dict()}
    trial = find_network("demo:0")
    assert trial.subject == {"arch": TINY.to_dict()}
    assert (trial.defaults["img_size"], trial.defaults["num_classes"]) == (32, 10)


def test_a_name_may_end_with_the_image_size_of_its_network(tmp_path):
    write_study(tmp_path, records=demo_records(), manifest=build_manifest())
    (tmp_path / "arch.yaml").write_text(yaml.safe_dump(TINY.to_dict()))
    (tmp_path / "model@256").write_bytes(b"onnx")
    assert find_network("timm:efficientvit_b2@256").subject == {"timm": "efficientvit_b2", "img_size": 256}
    for name in ("litv2_small@64", "demo:0@64", f"{tmp_path}/arch.yaml@64"):
        network = find_network(name)
        assert (network.name, network.subject["img_size"]) == (name, 64)
        assert network.subject["arch"] == find_network(name.removesuffix("@64")).subject["arch"]
    assert find_network(f"onnx:{tmp_path}/model@256").subject == {"onnx": f"{tmp_path}/model@256"}


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("nonsense", UsageError, r"STUDY:TRIAL, timm:NAME, onnx:FILE.*litv2_small.*'nonsense'.*@SIZE"),
        ("litv2_small@0", UsageError, r"the SIZE of NAME@SIZE must be a whole number of pixels.*'litv2_small@0'"),
        ("timm:resnet18@abc", UsageError, r"the SIZE of NAME@SIZE must be a whole number of pixels"),
        ("litv2_small@9999999", UsageError, "'litv2_small@9999999'"),
        ("litv2_small@64@64", UsageError, "'litv2_small@64'"),
        ("demo:99", NotFoundError, "study demo has no trial 99: its trials are 0, 1"),
        ("none:1", NotFoundError, "no study 'none'"),
        ("onnx:nowhere.onnx", NotFoundError, r"no file nowhere\.onnx"),
        ("nowhere.yaml", NotFoundError, r"no file nowhere\.yaml"),
        ("list.yaml", UsageError, "must hold an architecture"),
        ("torn.yaml", UsageError, "is not YAML"),
        ("wrong.yaml", ArchError, r"holds no architecture:\n  unknown field 'color'"),
    ],
)
def test_a_name_that_leads_nowhere_says_what_would(tmp_path, monkeypatch, name, error, text):
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path, records=demo_records(), manifest=build_manifest())
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "torn.yaml").write_text("{")
    (tmp_path / "wrong.yaml").write_text("color: red")
    with pytest.raises(error, match=text):
        find_network(name)


def measure(names, fake, *, told=ignore, device="cpu", seconds=None, **given):
    return measure_named(names, given, fake, told, device=device, num_classes=1000, seconds=seconds)


def timings_of(fake):
    """By the names that were timed together, the runtimes of their entries."""
    tasks = [task for task in fake.submitted if isinstance(task, Time)]
    return [{name: entrant.condition.runtime for name, entrant in task.entries.items()} for task in tasks]


def test_named_networks_are_timed_in_one_task_with_their_own_classes_and_image_sizes(tmp_path):
    write_study(tmp_path, records=demo_records(), manifest=build_manifest())
    fake = FakeEvaluator()
    found = measure(["demo:0", "timm:resnet18@64"], fake, device="cuda:1", seconds=2.0, batch_size=8)
    task = fake.submitted[-1]
    assert {name: entrant.num_classes for name, entrant in task.entries.items()} == {
        "demo:0": 10,
        "timm:resnet18@64": 1000,
    }
    assert {entrant.condition for entrant in task.entries.values()} == {found.condition}
    assert (found.condition.batch_size, found.condition.img_size, found.condition.threads) == (8, 32, None)
    assert (task.condition, task.calibration, task.target, task.seconds) == (found.condition, None, "cuda:1", 2.0)
    assert {name: item.condition.img_size for name, item in found.measurements.items()} == {
        "demo:0": 32,
        "timm:resnet18@64": 64,
    }
    assert found.tried == {}


def test_a_study_of_another_runtime_leaves_torch_its_inference_form(tmp_path):
    conditions = (build_condition(runtime="openvino"),)
    write_study(tmp_path, records=demo_records(), manifest=build_manifest(conditions=conditions))
    assert measure(["demo:0"], FakeEvaluator()).condition.runtime == "openvino"
    assert measure(["demo:0"], FakeEvaluator(), runtime="torch").condition.fused


# Files of networks, and the runtimes that follow from them.


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.onnx", "b.xml"):
        (tmp_path / name).write_bytes(b"a network")


def test_a_file_sets_the_runtime_of_all_networks(files):
    for name, runtime in (("onnx:a.onnx", "onnxruntime"), ("openvino:b.xml", "openvino")):
        fake = FakeEvaluator()
        assert measure(["litv2_small", name], fake).condition.runtime == runtime
        assert timings_of(fake) == [{"litv2_small": runtime, name: runtime}]


def test_files_of_both_kinds_run_in_their_own_runtimes(files):
    fake = FakeEvaluator()
    found = measure(["openvino:b.xml", "onnx:a.onnx"], fake)
    assert timings_of(fake) == [{"openvino:b.xml": "openvino", "onnx:a.onnx": "onnxruntime"}]
    assert found.condition == build_condition(img_size=224, threads=2)
    fake = FakeEvaluator()
    assert measure(["onnx:a.onnx", "openvino:b.xml"], fake, runtime="openvino").condition.runtime == "openvino"
    assert timings_of(fake) == [{"onnx:a.onnx": "openvino", "openvino:b.xml": "openvino"}]


def test_files_of_both_kinds_leave_the_runtime_of_another_network_to_the_user(files):
    with pytest.raises(UsageError, match=r"one runtime for litv2_small, .* --runtime openvino, or --runtime best"):
        measure(["onnx:a.onnx", "openvino:b.xml", "litv2_small"], FakeEvaluator())


# Each network in its fastest runtime.

GAINS = {
    "litv2_small": {"torch": 1.0, "onnxruntime": 1.1, "openvino": 1.3},
    "timm:resnet18@64": {"torch": 1.0, "onnxruntime": 1.01, "openvino": 0.9},
    "onnx:a.onnx": {"onnxruntime": 2.0, "openvino": 1.0},
    "openvino:b.xml": {"openvino": 1.0},
}
"""How many times as fast as in torch each network is."""


def seconds_of(name, entrant):
    return 0.01 / GAINS[name.partition(" in ")[0]][entrant.condition.runtime]


def test_each_network_is_tried_in_every_runtime_and_then_all_run_together(evaluator, events):
    fake = evaluator(seconds_of)
    found = measure(["litv2_small", "timm:resnet18@64"], fake, told=events.append, runtime="best", seconds=0.5)
    *tries, last = timings_of(fake)
    assert [list(entries.values()) for entries in tries] == [["torch", "onnxruntime", "openvino"]] * 2
    assert last == {"litv2_small": "openvino", "timm:resnet18@64": "torch"}
    assert {task.seconds for task in fake.submitted if isinstance(task, Time)} == {0.5}
    assert len({own.cohort for own in found.measurements.values()}) == 1
    assert {name: (own.condition.img_size, own.condition.fused) for name, own in found.measurements.items()} == {
        "litv2_small": (224, False),
        "timm:resnet18@64": (64, True),
    }
    assert found.condition == build_condition(img_size=224, threads=2)
    assert all(list(tried) == ["torch", "onnxruntime", "openvino"] for tried in found.tried.values())
    assert [event.text for event in events if isinstance(event, BenchStepped)] == [
        "runtimes of litv2_small",
        "runtimes of timm:resnet18@64",
        "all networks, each in its fastest runtime",
    ]
    assert any(isinstance(event, Notice) and "litv2_small runs in openvino" in event.text for event in events)


def test_files_are_tried_in_the_runtimes_that_read_them(evaluator, files):
    fake = evaluator(seconds_of)
    found = measure(["onnx:a.onnx", "openvino:b.xml"], fake, runtime="best")
    tried, last = timings_of(fake)
    assert list(tried.values()) == ["onnxruntime", "openvino"]
    assert last == {"onnx:a.onnx": "onnxruntime", "openvino:b.xml": "openvino"}
    assert found.tried["openvino:b.xml"] == {}  # there was nothing to choose
    assert [task.seconds for task in fake.submitted if isinstance(task, Time)] == [2.0, None]


def test_a_network_continues_without_the_runtime_that_cannot_run_it(evaluator):
    error = ConversionError("openvino must be able to express the network")
    fake = evaluator(seconds_of, failing=lambda name: error if name == "litv2_small in openvino" else None)
    found = measure(["litv2_small", "timm:resnet18@64"], fake, runtime="best")
    assert timings_of(fake)[-1] == {"litv2_small": "onnxruntime", "timm:resnet18@64": "torch"}
    assert found.failures == {}
    assert list(found.tried["litv2_small"]) == ["torch", "onnxruntime"]


def test_a_network_that_no_runtime_can_run_is_a_failure_and_the_others_are_timed(evaluator, files):
    error = UsageError("timm has no such model")
    options = {
        "failing": lambda name: error if name.startswith("litv2_small") else None,
        "missing": {"openvino": UsageError("openvino is not installed")},
    }
    fake = evaluator(seconds_of, **options)
    found = measure(["litv2_small", "openvino:b.xml", "timm:resnet18@64"], fake, runtime="best")
    assert list(found.measurements) == ["timm:resnet18@64"]
    assert found.failures["litv2_small"] is error
    assert str(found.failures["openvino:b.xml"]) == (
        "openvino:b.xml needs the runtime openvino, but openvino is not installed"
    )
    nothing = measure(["litv2_small", "openvino:b.xml"], evaluator(seconds_of, **options), runtime="best")
    assert (nothing.measurements, len(nothing.failures)) == ({}, 2)


def test_settings_of_torch_apply_to_torch_alone(evaluator):
    fake = evaluator(seconds_of)
    measure(["litv2_small"], fake, runtime="best", channels_last=True)
    first = next(task for task in fake.submitted if isinstance(task, Time))
    assert [entrant.condition.channels_last for entrant in first.entries.values()] == [True, False, False]
