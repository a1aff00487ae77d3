import json

import pytest
from builders import build_infeasible, demo_records, write_study

from hilo_nas.cli.app import main


@pytest.fixture(autouse=True)
def studies(tmp_path, monkeypatch):
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path / "studies"))
    monkeypatch.setenv("COLUMNS", "100")
    return write_study(tmp_path / "studies", "my-gpu", demo_records())


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
