"""`hilo-nas bench` as a user types it: files, formats, exit codes; two tiny benches run for real."""

import json
import os
import subprocess
import sys

import pytest

from hilo_nas.cli import main
from hilo_nas.cli.bench.running import spell_command
from hilo_nas.measurement import Condition


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HILO_NAS_LOCKS_DIR", str(tmp_path / "locks"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_the_ruler_runs_and_leaves_its_evidence(home, capsys):
    arguments = "--space litv2_digits --networks 2 --passes 2 --seconds 0.1 --batch-size 1 --device cpu"
    assert main(["bench", "ruler", *arguments.split(), "--output", "results", "--format", "json"]) == 0
    said = capsys.readouterr()
    (content,) = json.loads(said.out)
    assert [(row["state"], row["way"]) for row in content["results"]] == [("quiet", "cohort"), ("bursty", "cohort")]
    assert all(0 <= row["cv_relative_median"] < 1 and -1 <= row["tau_min"] <= 1 for row in content["results"])
    assert len(content["passes"]) == 2 * 2 * 2
    assert len(content["statistics"]) == 2 * 4
    assert "4/4 bursty, cohort, pass 2 of 2" in said.err
    names = sorted(path.name for path in (home / "results").iterdir())
    (stem,) = {name.removesuffix(".md") for name in names if name.endswith(".md")}
    assert stem.startswith("ruler-cpu-fp32-b1-pt")
    assert names == sorted([f"{stem}{end}.csv" for end in ("", "-networks", "-passes", "-statistics")] + [f"{stem}.md"])
    report = (home / "results" / f"{stem}.md").read_text()
    assert content["command"] in report
    assert f"{content['command']} ".startswith("hilo-nas bench ruler --device cpu --precision fp32 --batch-size 1 ")
    assert not list(home.glob("hilo-nas-bench-*"))  # the timing process's log, when all went well


@pytest.mark.slow
def test_attention_runs_and_prints_its_table(home, capsys):
    arguments = "--shape 4/16/2 --layer msa --quick --batch-size 1 --seconds 0.1 --device cpu"
    assert main(["bench", "attention", *arguments.split()]) == 0
    out = capsys.readouterr().out
    assert "HiLo alpha 0.9 window 2" in out
    assert "MSA" in out
    assert "ratio to HiLo" in out
    assert not list(home.glob("benchmarks/*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("ruler --networks 99 --passes 1", "networks must be from 2 to 24"),
        ("ruler --networks 99 --passes 1", "passes must be at least 2"),
        ("ruler --space nowhere", "no search space is called 'nowhere'"),
        ("ruler --batch-size 0", "batch_size must be at least 1, but got 0"),
        ("attention --shape 14", "a shape must be SIDE/DIM/HEADS"),
        ("attention --layer focal", "a layer must be one of hilo, msa"),
        ("attention --device tpu", "device must be cpu, cuda, cuda:N or mps, but got 'tpu'"),
        ("backbones --network vgg16", "a network must be one of litv2_small"),
        ("backbones --precision fp8", "precision must be one of fp32"),
        ("backbones --format xml", "Invalid value for '--format'"),
    ],
)
def test_wrong_input_is_refused_with_the_way_out(home, capsys, arguments, message):
    assert main(["bench", *arguments.split()]) == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in said
    assert not list(home.glob("benchmarks/*"))
    assert not list(home.glob("hilo-nas-bench-*"))


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_timed(home, capsys):
    (home / "taken").write_text("a file")
    assert main(["bench", "attention", "-o", "taken"]) == 1
    assert "but taken" in " ".join(capsys.readouterr().err.split())


def test_the_command_says_what_was_left_out_and_can_be_typed_again():
    condition = Condition(device="cpu", batch_size=8, precision="bf16")
    options = {"network": ["resnet50", "pvt_v2_b2"], "compile": False, "alone": False, "quick": True, "threads": None}
    assert spell_command("hilo-nas bench backbones", condition, options) == (
        "hilo-nas bench backbones --device cpu --precision bf16 --batch-size 8 "
        "--network resnet50 --network pvt_v2_b2 --no-compile --quick"
    )


def test_help_loads_neither_torch_nor_pandas():
    child = """
import sys
from hilo_nas.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("loaded", *[name for name in ("torch", "timm", "pandas", "optuna") if name in sys.modules])
"""
    for arguments in (["bench", "--help"], ["bench", "ruler", "--help"]):
        done = subprocess.run(
            [sys.executable, "-c", child, *arguments], capture_output=True, text=True, check=True, env=os.environ
        )
        assert done.stdout.rstrip().endswith("loaded"), done.stdout[-300:]
