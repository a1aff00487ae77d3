"""`hilo-nas measure`, with a real worker once and fakes elsewhere."""

import csv
import io
import json
import subprocess
import sys

import pytest
import yaml
from builders import TINY

from hilo_nas.arch import ArchConfig
from hilo_nas.cli import main

TINIER = ArchConfig(patch_size=2, embed_dims=(8, 16, 32, 64), depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 4))


@pytest.fixture
def archs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, arch in (("a.yaml", TINY), ("b.yaml", TINIER)):
        (tmp_path / name).write_text(yaml.safe_dump(arch.to_dict()))


SHORT = ["--batch-size", "2", "--img-size", "16", "--seconds", "0.1", "--device", "cpu"]


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


CHILD = """
import sys
from hilo_nas.cli import main
code = main(sys.argv[1:])
print("code", code, "loaded", *(name for name in ("torch", "optuna") if name in sys.modules))
"""


def test_a_sample_is_saved_for_a_search_elsewhere_without_what_a_search_needs(archs, tmp_path):
    arguments = ["measure", "litv2_digits", "--sample", "2", "--save", "speeds", "--also", "batch_size=1", *SHORT[4:]]
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, check=False)
    assert done.stdout.rstrip().endswith("code 0 loaded"), done.stdout[-300:] + done.stderr[-2000:]
    out = done.stdout
    assert "2 networks of litv2_digits are timed" in out
    assert "hilo-nas search litv2_digits --speeds speeds" in out
    rows = list(csv.DictReader(io.StringIO((tmp_path / "speeds/speeds.csv").read_text())))
    assert [row["state"] for row in rows] == ["timed", "timed"]
    assert all(float(row["images_per_s"]) > 0 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["a.yaml", "--save", "x", "--batch-size", "2"], "those of the table: leave out batch_size"),
        (["litv2_digits", "--sample", "3"], "--sample needs --save DIR"),
        (["litv2_digits", "litv2_cifar", "--sample", "3", "--save", "x"], "--sample takes one SPACE, but got 2"),
        (["litv2_digits", "--sample", "0", "--save", "x"], "--sample must be at least 1, but got 0"),
        (["a.yaml", "--seconds", "0"], "seconds must be more than 0"),
        (["a.yaml", "--num-classes", "0"], "num_classes must be at least 1"),
        (["a.yaml", "--precision", "int3"], "precision must be one of"),
        (["a.yaml", "--device", "tpu"], "device must be"),
        (["a.yaml", "--env", "wild"], "env must be one of tuned, default"),
        (["a.yaml", "--runtime", "onnxruntime", "--compile"], "compile is torch's own"),
        (["a.yaml", "--cuda-graph", "--device", "cpu"], "cuda_graph needs a cuda device"),
        (["nonsense"], "a network must be named as"),
        (["litv2_digits", "--sample", "3", "--save", "x", "--also", "colour=red"], "but got 'colour=red'"),
        (["litv2_digits", "--sample", "3", "--save", "x", "--also", "batch_size=32"], "same as the objective"),
        (
            [*("litv2_digits", "--sample", "3", "--save", "x"), "--also", "batch_size=1,max_latency_ms=20"],
            "a sample holds fast and slow networks alike: its --also must be without limits, but got --also "
            "batch_size=1,max_latency_ms=20. Leave them out here, and give them to the search: hilo-nas search "
            "litv2_digits --speeds x --also batch_size=1,max_latency_ms=20",
        ),
    ],
)
def test_wrong_input_is_refused_with_the_law(archs, capsys, arguments, text):
    assert main(["measure", *arguments]) == 2
    assert text in " ".join(capsys.readouterr().err.split())
