import json
import re

import pytest
from builders import build_arch, build_record, write_study
from fakes import FakeMachine

import hilo_nas
from hilo_nas.errors import UsageError
from hilo_nas.events import Notice, SearchStarted, TrialFinished
from hilo_nas.report.live_report import LiveReport
from hilo_nas.testing import use_evaluator


def finished(number=0):
    return TrialFinished(
        number=number,
        key="k",
        state="complete",
        reason=None,
        images_per_s=1.0,
        value=0.5,
        seconds=1.0,
        measured=1,
        total=9,
    )


def test_a_report_is_written_after_a_trial_but_not_after_every_one(tmp_path):
    study, path, seen = write_study(tmp_path, "demo", [build_record(0)]), tmp_path / "report.html", []
    clock = iter([0.0, 0.0, 0.0, 1.0, 10.0, 40.0, 40.0, 41.0])
    live = LiveReport(path, str(study.path), seen.append, clock=lambda: next(clock))
    live(SearchStarted(study="demo", done=0, total=9, device="cpu"))
    assert not path.exists()
    live(finished())
    first = path.read_text()
    write_study_record = build_record(1, 500.0, 0.7, arch=build_arch(3))
    study.write(write_study_record)
    live(finished(1))  # ten seconds later
    assert path.read_text() == first
    live(finished(2))  # forty seconds later
    assert path.read_text() != first
    assert len(seen) == 4


def test_a_file_that_is_no_report_is_refused_before_the_search(tmp_path):
    path = tmp_path / "notes.html"
    path.write_text("notes")
    with pytest.raises(UsageError, match="is not a report"):
        LiveReport(path, None, lambda event: None)


def test_a_search_writes_its_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path / "studies"))
    with use_evaluator(FakeMachine()):
        hilo_nas.search("litv2_digits", study="first", trials=3, device="cpu", settings={"study.report": "report.html"})
    page = (tmp_path / "report.html").read_text()
    (study,) = json.loads(re.search(r'id="content">(.*?)</script>', page, re.DOTALL)[1])["studies"]
    assert study["name"] == "first"
    assert sum(row["place"] != "predicted" for row in study["networks"]) >= 3


def test_a_report_that_cannot_be_written_does_not_end_the_search(tmp_path):
    study, seen = write_study(tmp_path, "demo", [build_record(0)]), []
    (tmp_path / "out").mkdir()
    live = LiveReport(tmp_path / "out" / "report.html", str(study.path), seen.append)
    (tmp_path / "out").rmdir()
    for number in range(2):
        live(finished(number))
    (warning,) = [event for event in seen if isinstance(event, Notice)]
    assert "StorageError" in warning.text


def test_a_missing_folder_is_refused_before_the_search(tmp_path):
    with pytest.raises(UsageError, match="existing folder"):
        LiveReport(tmp_path / "missing" / "report.html", None, lambda event: None)
