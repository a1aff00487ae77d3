import json

import pytest
from builders import (
    build_condition,
    build_infeasible,
    build_manifest,
    build_record,
    build_score,
    demo_records,
    write_study,
)

from hilo_nas.arch.config import PRESETS
from hilo_nas.arch.cost import PARTS
from hilo_nas.cli.app import main
from hilo_nas.study.stage_times import PartTimes, StageTimes


@pytest.fixture(autouse=True)
def studies(tmp_path, monkeypatch):
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path / "studies"))
    monkeypatch.setenv("COLUMNS", "100")
    return write_study(tmp_path / "studies", "my-gpu", demo_records())


@pytest.mark.parametrize("command", ["show", "measure", "bench stages"])
def test_the_help_names_every_preset(command, capsys):
    assert main([*command.split(), "--help"]) == 0
    assert ", ".join(PRESETS) in " ".join(capsys.readouterr().out.split())


def test_a_trial_is_shown_with_its_figures_and_conditions(capsys):
    assert main(["show", "my-gpu:3"]) == 0
    text = capsys.readouterr().out
    for part in (
        "on the front",
        "900",
        "75.0 ± ",
        "cpu-b32-32px-fp32",
        "Test CPU",
        "hilo-nas export my-gpu --trial 3 -o out/",
        "stage 3",
    ):
        assert part in text
    assert "[bold]" not in text


def test_a_score_in_int8_is_shown_with_the_value_in_float(tmp_path, capsys):
    quantized = build_record(0, scores=(build_score(0.7, float_value=0.71, drop_error=0.002),))
    write_study(tmp_path / "studies", "int8", [quantized])
    assert main(["show", "int8:0"]) == 0
    text = capsys.readouterr().out
    assert "71.0 %; quantized to INT8: -1.0 ± 0.4 points" in text
    assert "float layers" not in text


def test_the_layers_that_stay_in_float_are_shown(tmp_path, capsys):
    scores = (
        build_score(0.7, float_value=0.71, drop_error=0.002, float_layers=("layers.0.blocks.0.mlp.fc1", "head.fc")),
    )
    write_study(tmp_path / "studies", "int8", [build_record(0, scores=scores)])
    assert main(["show", "int8:0"]) == 0
    assert "layers.0.blocks.0.mlp.fc1, head.fc. Its timing quantizes them too" in capsys.readouterr().out
    assert main(["show", "int8:0", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["float_layers"] == ["layers.0.blocks.0.mlp.fc1", "head.fc"]


def test_the_shares_of_the_parts_add_up(capsys):
    assert main(["show", "litv2_small", "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert sum(part["parameters"] for part in content["parts"].values()) == pytest.approx(27.84e6, rel=1e-3)
    assert content["img_size"] == 224
    assert content["stages"][2]["hifi_heads"] == 2


def test_an_infeasible_trial_is_shown_with_its_reason(capsys):
    assert main(["show", "my-gpu:5"]) == 0
    text = capsys.readouterr().out
    assert build_infeasible(5).reason in text
    assert "export" not in text


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["my-gpu:99"], "has no trial 99: its trials are 0 to 6"),
        (["nothing:1"], "nothing"),
        (["resnet18"], "STUDY:TRIAL"),
        (["missing.yaml"], "missing.yaml"),
        (["litv2_small", "--img-size", "8"], "at least 32 pixels"),
        (["litv2_small", "--format", "csv"], "table and json"),
    ],
)
def test_what_cannot_be_shown_is_a_usage_error(words, part, capsys):
    assert main(["show", *words]) == 2
    assert part in capsys.readouterr().err


@pytest.fixture
def fused(tmp_path):
    """A study under a condition in which parts can be timed."""
    manifest = build_manifest("fused", conditions=(build_condition(fused=True),))
    return write_study(tmp_path / "studies", "fused", demo_records(), manifest)


def test_the_stored_share_of_time_is_shown(fused, capsys):
    manifest = fused.manifest
    times = PartTimes(
        condition=manifest.objective.label(),
        device=manifest.device,
        measured_at="2026-11-28T10:00:00Z",
        verdict="bursty",
        seconds={part: 0.001 * (2 if part == "stage 3" else 1) for part in PARTS},
    )
    key = next(record.key for record in fused.records if record.number == 3)
    StageTimes(networks={key: times}).write(fused.stages_path)
    assert main(["show", "fused:3", "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)["times"]
    assert content["shares"]["stage 3"] == pytest.approx(2 / 7)
    assert content["seconds"]["head"] == 0.001
    assert main(["show", "fused:3"]) == 0
    text = capsys.readouterr().out
    for part in (
        "28.6%",
        "The machine was bursty",
        "7 ms per call in total",
        "2026-11-28T10:00:00Z",
        manifest.objective.label(),
    ):
        assert part in text
    assert main(["show", "fused:3", "--img-size", "64"]) == 0
    text = capsys.readouterr().out
    assert "28.6%" not in text
    assert "not measured" not in text


def test_without_stored_times_the_command_is_named(fused, capsys):
    assert main(["show", "fused:3"]) == 0
    text = capsys.readouterr().out.replace("\n", " ")
    assert "hilo-nas bench stages --network fused:3 --precision fp32 --device cpu --batch-size 32 --img-size 32" in text
    assert main(["show", "fused:3", "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["times"] is None
    assert "bench stages" in content["times_missing"]


def test_where_parts_cannot_be_timed_the_reason_is_given(capsys):
    assert main(["show", "my-gpu:3"]) == 0
    assert "parts are timed in the inference form only" in capsys.readouterr().out
