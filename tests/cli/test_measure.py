"""`hilo-nas measure`, with a real worker once and fakes elsewhere."""

import csv
import json
import subprocess
import sys

import pytest
import yaml
from builders import TINY

from hilo_nas.arch.config import ArchConfig
from hilo_nas.cli import main
from hilo_nas.testing import use_evaluator

TINIER = ArchConfig(patch_size=2, embed_dims=(8, 16, 32, 64), depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 4))


@pytest.fixture
def archs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, arch in (("a.yaml", TINY), ("b.yaml", TINIER)):
        (tmp_path / name).write_text(yaml.safe_dump(arch.to_dict()))


SHORT = ["--batch-size", "2", "--img-size", "16", "--set", "timing.seconds=0.1", "--device", "cpu"]


def test_networks_are_timed_side_by_side_and_a_wrong_one_is_named(archs, capsys):
    assert main(["measure", "a.yaml", "timm:nonesuch", "b.yaml", *SHORT, "--format", "json"]) == 2
    captured = capsys.readouterr()
    content = json.loads(captured.out)
    first, second = content["networks"]
    assert [first["name"], second["name"]] == ["a.yaml", "b.yaml"]
    assert first["ratio"] == 1
    assert second["ratio_low"] <= second["ratio"] <= second["ratio_high"]
    assert first["measurement"]["cohort"] == second["measurement"]["cohort"]
    assert "timm:nonesuch" in content["failures"]
    assert "no model 'nonesuch'" in captured.err


@pytest.mark.slow
def test_each_network_runs_in_its_fastest_runtime_in_the_same_rounds(archs, capsys):
    for library in ("onnxruntime", "onnxscript", "openvino"):
        pytest.importorskip(library)
    assert main(["measure", "a.yaml", "timm:test_resnet", *SHORT, "--runtime", "best", "--format", "json"]) == 0
    captured = capsys.readouterr()
    content = json.loads(captured.out)
    assert list(content["tried"]["a.yaml"]) == ["torch", "onnxruntime", "openvino"]
    first, second = (row["measurement"] for row in content["networks"])
    assert first["cohort"] == second["cohort"]
    assert first["threads"] == second["threads"]
    for row in content["networks"]:
        own = row["measurement"]
        assert row["runtime"] == own["condition"]["runtime"]
        tried = {runtime: timing["ratio"] for runtime, timing in content["tried"][row["name"]].items()}
        assert tried[row["runtime"]] >= 0.98 * max(tried.values())
        assert (own["memory_mib"] is None) == (row["runtime"] != "torch")
    assert "1/3 runtimes of a.yaml" in captured.err
    assert "3/3 a.yaml in openvino is ready to be timed" in captured.err
    assert "2/2 timm:test_resnet is ready to be timed" in captured.err


def test_the_table_names_the_runtime_of_each_network_where_they_can_differ(archs, evaluator, capsys):
    def seconds_of(name, entrant):
        return 0.01 if (entrant.condition.runtime == "openvino") == name.startswith("a.yaml") else 0.02

    with use_evaluator(lambda logs, **options: evaluator(seconds_of)):
        assert main(["measure", "a.yaml", "b.yaml", *SHORT, "--runtime", "best"]) == 0
        captured = capsys.readouterr()
        words = captured.out.replace("│", " ").split()
        assert [words[words.index(name) + 1] for name in ("a.yaml", "b.yaml")] == ["openvino", "torch"]
        assert "runtime: the fastest of those" in captured.out
        assert "cpu-b2-16px-fp32-t2 on" in captured.out
        assert "a.yaml runs in openvino" in captured.err
        assert main(["measure", "a.yaml", "b.yaml", *SHORT]) == 0
        assert "runtime" not in capsys.readouterr().out


CHILD = """
import sys
from hilo_nas.cli import main
code = main(sys.argv[1:])
print("code", code, "loaded", *(name for name in ("torch", "optuna") if name in sys.modules))
"""


@pytest.mark.slow
def test_each_network_may_have_its_own_image_size_and_the_command_itself_loads_no_torch(archs):
    arguments = ["measure", "a.yaml", "timm:test_resnet@32", *SHORT, "--format", "csv"]
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, check=False)
    *table, end = done.stdout.splitlines()
    assert end == "code 0 loaded", done.stdout[-300:] + done.stderr[-2000:]
    rows = {row["name"]: row for row in csv.DictReader(table)}
    assert {name: row["img_size"] for name, row in rows.items()} == {"a.yaml": "16", "timm:test_resnet@32": "32"}
    assert "-32px-" in rows["timm:test_resnet@32"]["condition"]
    assert all(row["is_paired"] == "True" for row in rows.values())


@pytest.mark.slow
def test_a_network_that_cannot_be_timed_is_named_where_it_is_the_only_one(archs, capsys):
    assert main(["measure", "timm:nonesuch", *SHORT]) == 2
    assert "timm:nonesuch could not be timed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["a.yaml", "--set", "timing.seconds=0"], "timing.seconds must be a number above 0"),
        (["a.yaml", "--num-classes", "0"], "num_classes must be at least 1"),
        (["a.yaml", "--precision", "int3"], "precision must be one of"),
        (["a.yaml", "--device", "tpu"], "device must be"),
        (["a.yaml", "--set", "timing.env=wild"], "env must be one of tuned, default"),
        (
            ["a.yaml", "--runtime", "onnxruntime", "--set", "timing.compile=true"],
            "compile must be false with runtime onnxruntime",
        ),
        (["a.yaml", "--set", "timing.cuda_graph=true", "--device", "cpu"], "cuda_graph needs a cuda device"),
        (["nonsense"], "a network must be named as"),
        (["litv2_small@wide"], "the SIZE of NAME@SIZE must be"),
    ],
)
def test_wrong_input_is_refused_with_the_law(archs, capsys, arguments, text):
    assert main(["measure", *arguments]) == 2
    assert text in " ".join(capsys.readouterr().err.split())
