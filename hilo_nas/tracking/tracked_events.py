"""Events of a search as entries of a tracker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hilo_nas.events import Emit, Event, Notice, SearchFinished, SearchStarted, TrialFinished
from hilo_nas.hashes import short_hash
from hilo_nas.study.csv_files import row_of
from hilo_nas.study.progress import describe_conditions
from hilo_nas.study.records import TrialRecord, load_record
from hilo_nas.study.stored_study import StoredStudy, open_study
from hilo_nas.tracking.tracker import TrackedStudy, Tracker

__all__ = ["TrackedEvents"]


class TrackedEvents:
    """Receiver of events that stores ended trials in a tracker, and passes all events on.

    If the tracker does not have the study yet, the trials of earlier searches are stored first. A tracker that fails
    ends neither the search nor loses a record: the first failure is reported as a warning, and tracking stops.

    Args:
        tracker: The tracker.
        study: Name or folder of the study. None for the one that the search names.
        report: Report to store at the end, if it exists.
        emit: Receives all events.
    """

    def __init__(self, tracker: Tracker, study: str | None, report: Path | None, emit: Emit) -> None:
        self._tracker, self._study, self._report, self._emit = tracker, study, report, emit
        self._has_failed = False

    def __call__(self, event: Event) -> None:
        """Passes the event on, and stores the trials that it reports."""
        self._emit(event)
        if self._has_failed:
            return
        try:
            self._track(event)
        except Exception as error:  # the errors of trackers have no common base class
            self._has_failed = True
            text = f"tracking stopped, because the tracker failed: {type(error).__name__}: {error}"
            self._emit(Notice(level="warning", text=f"{text}. The records of the study are complete."))

    def _track(self, event: Event) -> None:
        if isinstance(event, SearchStarted):
            self._study = self._study or event.study
            study = open_study(self._study)
            if not self._tracker.start(_describe(study)):
                for record in study.records:
                    if not record.is_open:
                        self._tracker.log_trial(_trial_row(record))
        elif isinstance(event, TrialFinished):
            assert self._study is not None, "a search names its study before its trials"
            self._tracker.log_trial(_trial_row(load_record(open_study(self._study).trials_path, event.number)))
        elif isinstance(event, SearchFinished):
            has_report = self._report is not None and self._report.is_file()
            self._tracker.finish(self._report if has_report else None)


def _describe(study: StoredStudy) -> TrackedStudy:
    manifest = study.manifest
    return TrackedStudy(
        name=study.name, key=short_hash([study.name, manifest.created_at]), settings=describe_conditions(manifest)
    )


def _trial_row(record: TrialRecord) -> Mapping[str, Any]:
    return dict(_filled(row_of(record)))


def _filled(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in row.items() if value is not None and value != "")
