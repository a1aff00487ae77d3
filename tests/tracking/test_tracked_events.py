"""What a tracker receives of a search, and that its failures cost nothing."""

import pytest
from fakes import FakeMachine

import hilo_nas
from hilo_nas.errors import UsageError
from hilo_nas.events import Notice
from hilo_nas.report.live_report import LiveReport
from hilo_nas.testing import use_evaluator
from hilo_nas.tracking import TrackedEvents, build_tracker


class FakeTracker:
    """Keeps what it receives. `fails_at` is the trial at which it fails."""

    def __init__(self, *, knows_study=False, fails_at=None):
        self.knows_study, self.fails_at = knows_study, fails_at
        self.studies, self.rows, self.reports = [], [], []

    def start(self, study):
        self.studies.append(study)
        return self.knows_study

    def log_trial(self, row):
        if len(self.rows) == self.fails_at:
            raise ConnectionError("no server")
        self.rows.append(row)

    def finish(self, report):
        self.reports.append(report)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path / "studies"))
    return tmp_path


def search(tracker, *, trials=3, emit=lambda event: None, report=None):
    with use_evaluator(FakeMachine()):
        return hilo_nas.search(
            "litv2_digits",
            study="first",
            trials=trials,
            device="cpu",
            on_event=TrackedEvents(tracker, "first", report, emit),
        )


def test_each_ended_trial_is_stored_with_its_values():
    tracker = FakeTracker()
    study = search(tracker)
    assert sorted(row["number"] for row in tracker.rows) == [own.number for own in study.records if not own.is_open]
    row = tracker.rows[0]
    assert row["images_per_s"] == study.records[0].measurement.images_per_s
    assert row["depths"] == "1-1-2-1"
    assert None not in row.values()
    (seen,) = tracker.studies
    assert seen.name == "first"
    assert "litv2_digits" in seen.settings["space"]
    assert tracker.reports == [None]


def test_a_resumed_study_has_the_same_key_and_stores_new_trials_only():
    first, again = FakeTracker(), FakeTracker(knows_study=True)
    search(first)
    search(again, trials=2)
    assert again.studies[0].key == first.studies[0].key
    assert {row["number"] for row in again.rows} & {row["number"] for row in first.rows} == set()


def test_a_tracker_that_joins_later_receives_the_earlier_trials():
    search(FakeTracker())
    late = FakeTracker()
    study = search(late, trials=1)
    assert sorted(row["number"] for row in late.rows) == [own.number for own in study.records if not own.is_open]


def test_a_tracker_that_fails_costs_no_trial():
    events = []
    study = search(FakeTracker(fails_at=1), emit=events.append)
    assert sum(own.is_measured for own in study.records) == 3
    (warning,) = [own.text for own in events if isinstance(own, Notice) and "tracker" in own.text]
    assert "no server" in warning


def test_the_report_is_stored_when_it_is_complete(home):
    report, tracker = home / "report.html", FakeTracker()
    search(tracker, emit=LiveReport(report, "first", lambda event: None), report=report)
    assert tracker.reports == [report]


def test_an_unknown_tracker_and_a_missing_library_are_usage_errors(monkeypatch):
    with pytest.raises(UsageError, match="one of mlflow, wandb, but got 'neptune'"):
        build_tracker("neptune")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'hilo-nas\[mlflow\]'"):
        build_tracker("mlflow")
