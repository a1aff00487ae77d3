"""`hilo-nas plan`, and `search --hours`, on a fake machine."""

import pytest
import yaml
from builders import fresh

from hilo_nas.cli import main
from hilo_nas.study.stored_study import StoredStudy


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch, machine):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HILO_NAS_STUDIES_DIR", raising=False)
    return tmp_path


def test_a_plan_is_yaml_that_a_search_takes(home, capsys):
    assert main(["plan", "litv2_digits", "--hours", "0.05", "-o", "search.yaml"]) == 0
    out = capsys.readouterr().out
    assert "wrote search.yaml\nNext: hilo-nas search --config search.yaml\n" in out
    text = (home / "search.yaml").read_text()
    assert text.startswith("# proposed for 0.05 h on ")
    planned = yaml.safe_load(text)
    assert main(["search", "--config", "search.yaml", "--study", "s", "--until-trials", "2"]) == 0
    assert fresh(StoredStudy(home / "studies" / "s")).manifest.plan.images == planned["proxy"]["images"]


def test_without_a_file_the_yaml_is_printed(capsys):
    assert main(["plan", "litv2_digits", "--hours", "0.05"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["search"]["timeout_s"] == 180


def test_a_file_is_never_replaced(home, machine, capsys):
    (home / "mine.yaml").write_text("space: litv2_cifar\n")
    assert main(["plan", "litv2_digits", "--hours", "1", "-o", "mine.yaml"]) == 2
    assert "mine.yaml exists already. Choose another file." in capsys.readouterr().err
    assert (home / "mine.yaml").read_text() == "space: litv2_cifar\n"
    assert main(["plan", "litv2_digits", "--hours", "0.05", "-o", "no/such/folder.yaml"]) == 2
    assert "folder.yaml is in a folder that does not exist. Choose another file." in capsys.readouterr().err
    assert machine.submitted == []


def test_a_plan_that_cannot_be_written_is_printed(capsys):
    assert main(["plan", "litv2_digits", "--hours", "0.05", "-o", "/proc/plan.yaml"]) == 1
    printed = capsys.readouterr()
    assert yaml.safe_load(printed.out)["search"]["timeout_s"] == 180
    assert "cannot write /proc/plan.yaml" in printed.err


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--hours", "0"], "above 0"), ([], "--hours"), (["--hours", "x"], "number")]
)
def test_hours_are_needed_and_checked(arguments, said, capsys):
    assert main(["plan", "litv2_digits", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_search_of_some_hours_is_planned_and_resumed(home, capsys):
    search = ["search", "--data", "digits", "--img-size", "32", "--hours", "20", "--set", "search.sampler=random"]
    assert main([*search, "--until-trials", "2"]) == 0
    out = capsys.readouterr().out
    assert "planned: 2 trials in about " in out
    assert "2 of 2 networks measured, all done" in out
    manifest = fresh(StoredStudy(home / "studies" / "litv2_cifar")).manifest
    assert manifest.plan.images == 35_940  # twenty passes, not the 200,000 images of the space
    assert main([*search, "--trials", "1"]) == 0
    out = capsys.readouterr().out
    assert "planned" not in out
    assert "3 of 3 networks measured" in out


def test_hours_end_a_search(home, capsys):
    search = ["search", "litv2_digits", "--study", "s", "--set", "search.sampler=random"]
    assert main([*search, "--trials", "1"]) == 0
    assert main(["search", "--study", "s", "--hours", "1e-9", "--trials", "5"]) == 0
    assert "1 of 6 networks measured, timeout reached" in capsys.readouterr().out


def test_a_dry_run_of_some_hours_estimates_the_plan(home, capsys):
    assert main(["search", "litv2_digits", "--study", "s", "--hours", "0.05", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "planned: " in out
    assert "trials within the timeout" in out
    assert not (home / "studies" / "s").exists()
