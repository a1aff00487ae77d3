"""Timing without a search: what may be named, and what the evaluator is asked for."""

import pytest
import yaml
from builders import TINY, build_condition, build_manifest, demo_records, write_study

from hilo_nas.errors import ArchError, NotFoundError, UsageError
from hilo_nas.evaluation import time_networks
from hilo_nas.evaluation.named_networks import find_network
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


def test_named_networks_are_timed_in_one_task_with_their_own_classes_and_image_sizes(tmp_path):
    write_study(tmp_path, records=demo_records(), manifest=build_manifest())
    networks = [find_network(name) for name in ("demo:0", "timm:resnet18@64")]
    evaluator, condition = FakeEvaluator(), build_condition()
    timing = time_networks(networks, condition, evaluator, ignore, num_classes=1000, target="cuda:1", seconds=2.0)
    (task,) = evaluator.submitted
    assert {name: entrant.num_classes for name, entrant in task.entries.items()} == {
        "demo:0": 10,
        "timm:resnet18@64": 1000,
    }
    assert {entrant.condition for entrant in task.entries.values()} == {condition}
    assert (task.condition, task.calibration, task.target, task.seconds) == (condition, None, "cuda:1", 2.0)
    assert {name: item.condition.img_size for name, item in timing.measurements.items()} == {
        "demo:0": 32,
        "timm:resnet18@64": 64,
    }
