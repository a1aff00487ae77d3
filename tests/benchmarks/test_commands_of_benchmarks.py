"""Benchmarks as a user types them: one runs for real; wrong input, and help."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = ("official", "releases", "samplers", "soak", "tables", "training")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HILO_NAS_LOCKS_DIR", str(tmp_path / "locks"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def main(name, arguments):
    return importlib.import_module(f"benchmarks.{name}.__main__").main(arguments)


@pytest.mark.slow
def test_a_training_says_what_share_of_a_step_is_compute(home, capsys):
    arguments = "timm:test_resnet --space litv2_digits --device cpu --proxy-img-size 16 --steps 3 --format json"
    assert main("training", [*arguments.split(), "--set", "proxy.batch_size=16"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["network"], content["batch_size"], content["device"]) == ("timm:test_resnet", 16, "cpu")
    assert [row["part"] for row in content["parts"]] == ["batch", "gradient", "update"]
    assert all(row["ms"] > 0 for row in content["parts"])
    assert sum(row["share"] for row in content["parts"]) == pytest.approx(1)
    assert content["images_per_s"] == pytest.approx(16 / (content["step_ms"] / 1e3))
    assert content["scored_images_per_s"] > 0
    assert content["micro_batch_size"] == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("official", "Missing option '--checkout'"),
        ("official --checkout nowhere --network resnet50", "network must be one of litv2_small, litv2_medium"),
        ("training --steps 0", "steps must be at least 1, but got 0"),
        ("training --set proxy.batch_size=-1", "proxy.batch_size must be at least 1, but got -1"),
        ("training --set proxy.name=naswot", "proxy.name must be training or left out, but got 'naswot'"),
        ("tables --data digits", "study.name is required, but was left out. Use --study NAME."),
        ("training --space litv2_tabular", "litv2_tabular has no anchor to train. Name a NETWORK."),
        ("releases --device tpu", "device must be cpu, cuda, cuda:N or mps, but got 'tpu'"),
        ("soak .", ". exists already. Name a new folder."),
        ("soak new --only rain", "only must be one of kill of the search, "),
        ("releases --seconds 0", "seconds must be above 0, but got 0"),
    ],
)
def test_wrong_input_is_refused_with_the_way_out(home, capsys, arguments, message):
    name, *words = arguments.split()
    assert main(name, words) == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not list(home.glob("hilo-nas-bench-*"))


def test_a_fault_of_the_code_is_raised_with_debug(capsys):
    with pytest.raises(ValueError, match="nowhere"):
        main("samplers", ["nowhere", "--debug"])


def test_the_soak_tests_of_the_documentation_have_the_options_that_they_name(capsys):
    main("soak", ["--help"])
    known = capsys.readouterr().out
    docs = Path(__file__).parents[2] / "docs"
    commands = [
        line
        for path in sorted(docs.glob("*.md"))
        for line in path.read_text().splitlines()
        if line.startswith("python -m benchmarks.soak ")
    ]
    assert commands
    assert all(word in known for line in commands for word in line.split() if word.startswith("--"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_shows_an_example_and_loads_no_torch(name):
    child = f"""
import sys
from benchmarks.{name}.__main__ import main
print("code", main(["--help"]), *[name for name in ("torch", "timm", "optuna") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True, env=os.environ)
    assert f"python -m benchmarks.{name}" in done.stdout
    assert done.stdout.rstrip().endswith("code 0")
