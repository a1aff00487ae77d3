"""Report that a search rewrites while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from hilo_nas.errors import UsageError
from hilo_nas.events import Emit, Event, Notice, SearchFinished, SearchStarted, TrialFinished
from hilo_nas.study.stored_study import open_study

__all__ = ["LiveReport"]

_PAUSE_S = 30.0
"""Minimum number of seconds between two writes."""
_MAX_TIME_SHARE = 0.05
"""Maximum share of the time of the search for writing."""


class LiveReport:
    """Receiver of events that writes a report after trials, and passes all events on.

    The search waits while the report is written. With many trials, writes become rarer. A report that cannot be written
    does not end the search: the first failure is reported as a warning, and is the last attempt.

    Args:
        path: HTML file. Only an earlier report is replaced.
        study: Name or folder of the study. None for the one that the search names.
        emit: Receives all events.
        clock: Function that returns monotonic seconds.

    Raises:
        UsageError: The file exists and is not a report, or its folder does not exist.
    """

    def __init__(self, path: Path, study: str | None, emit: Emit, clock: Callable[[], float] = time.monotonic) -> None:
        from hilo_nas.report.html_report import check_report_path

        check_report_path(path)
        if not path.expanduser().parent.is_dir():
            raise UsageError(f"study.report must be a file in an existing folder, but got {path}")
        self._path, self._study, self._emit, self._clock = path, study, emit, clock
        self._due = clock()
        self._has_failed = False

    def __call__(self, event: Event) -> None:
        """Passes the event on, and writes the report after a trial if it is due, and after the search."""
        self._emit(event)
        if isinstance(event, SearchStarted):
            self._study = self._study or event.study
        elif isinstance(event, SearchFinished) or (isinstance(event, TrialFinished) and self._clock() >= self._due):
            self._write()

    def _write(self) -> None:
        from hilo_nas.report.html_report import write_html_report

        assert self._study is not None, "a search names its study before its trials"
        if self._has_failed:
            return
        began = self._clock()
        try:
            write_html_report([open_study(self._study)], self._path)
        except Exception as error:  # a report is never worth a search
            self._has_failed = True
            text = f"the report is not written any more: {type(error).__name__}: {error}"
            self._emit(Notice(level="warning", text=text))
            return
        ended = self._clock()
        self._due = ended + max(_PAUSE_S, (ended - began) / _MAX_TIME_SHARE)
