import json
import re
from importlib.metadata import metadata

import pytest
from fakes import FakeMachine

from hilo_nas.cli.app import main
from hilo_nas.testing import use_evaluator


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HILO_NAS_CACHE_DIR", str(tmp_path / "cache"))


def test_the_host_is_checked_without_a_timing(capsys):
    assert main(["doctor", "--no-timing"]) == 0
    text = capsys.readouterr().out
    for name in ("system:", "cores:", "memory:", "load:", "studies:", "cache:", "extras:"):
        assert name in text
    assert "device:" not in text


def test_each_extra_of_the_package_is_named_once(capsys):
    assert main(["doctor", "--no-timing", "--format", "json"]) == 0
    (text,) = [own["text"] for own in json.loads(capsys.readouterr().out) if own["name"] == "extras"]
    present, _, missing = text.partition("; not installed: ")
    named = [*(present.split(", ") if present != "none" else []), *re.findall(r"hilo-nas\[(\w+)\] for ", missing)]
    assert sorted(named) == sorted(set(metadata("hilo-nas").get_all("Provides-Extra")) - {"dev", "docs"})


def test_the_timing_follows_as_json(capsys):
    with use_evaluator(FakeMachine()):
        assert main(["doctor", "--device", "cpu", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [own["name"] for own in found][-2:] == ["device", "noise"]


def test_csv_is_refused(capsys):
    assert main(["doctor", "--format", "csv"]) == 2
    assert "table and json" in capsys.readouterr().err


def test_what_the_host_tells_is_shown_even_if_the_device_is_missing(capsys):
    with use_evaluator(FakeMachine()):
        assert main(["doctor", "--device", "cuda:7"]) == 0
    text = capsys.readouterr().out
    assert "cores:" in text
    assert "device:" in text
    assert "problem: " in text
