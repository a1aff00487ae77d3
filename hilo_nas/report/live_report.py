"""Report that a search rewrites while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from hilo_nas.errors import UsageError
from hilo_nas.events import Emit, Event, SearchFinished, SearchStarted, TrialFinished
from hilo_nas.study.stored_study import open_study

__all__ = ["LiveReport"]

_PAUSE_S = 30.0
"""Minimum number of seconds between two writes."""
_MAX_TIME_SHARE = 0.05
"""Maximum share of the time of the search for writing."""


class LiveReport:
    """Receiver of events that writes a report after trials, and passes all events on.

    A search waits while the report is written, so nothing is timed meanwhile. With many trials, writes become rarer.

    Args:
        path: HTML file. Only an earlier report is replaced.
        study: Name or folder of the study. None for the one that the search names.
        emit: Receives all events.
        clock: Function that returns monotonic seconds.

    Raises:
        UsageError: The file exists and is not a report.
    """

    def __init__(self, path: Path, study: str | None, emit: Emit, clock: Callable[[], float] = time.monotonic) -> None:
        from hilo_nas.report.html_report import check_report_path

        check_report_path(path)
        self._path, self._study, self._emit, self._clock = path, study, emit, clock
        self._due = clock()

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
        began = self._clock()
        try:
            write_html_report([open_study(self._study)], self._path)
        except UsageError:  # nothing to show yet
            return
        ended = self._clock()
        self._due = ended + max(_PAUSE_S, (ended - began) / _MAX_TIME_SHARE)
