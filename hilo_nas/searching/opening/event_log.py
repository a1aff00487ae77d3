"""Event log of a study: events as lines of JSON in its folder. Progress events are passed on but not logged."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from pathlib import Path
from types import TracebackType
from typing import TextIO

from hilo_nas.events import DataPrepared, Emit, Event, RoundTimed, TrainingProgressed, event_to_dict

__all__ = ["EventLog"]

_NOT_LOGGED = (RoundTimed, TrainingProgressed, DataPrepared)


class EventLog:
    """Passes events on and appends them to a file. Write errors, such as a full disk, are ignored.

    Args:
        path: Path of the log file.
        emit: Receives every event.
    """

    def __init__(self, path: Path, emit: Emit) -> None:
        self._path, self._emit = path, emit
        self._file: TextIO | None = None

    def __call__(self, event: Event) -> None:
        """Logs an event and passes it on."""
        if self._file is not None and not isinstance(event, _NOT_LOGGED):
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
            with contextlib.suppress(OSError):
                self._file.write(json.dumps({"at": now, **event_to_dict(event)}) + "\n")
                self._file.flush()
        self._emit(event)

    def __enter__(self) -> EventLog:
        with contextlib.suppress(OSError):
            is_torn = self._has_torn_line()
            self._file = open(self._path, "a", encoding="utf-8")
            if is_torn:  # only the torn line is lost, not the first event of this search with it
                self._file.write("\n")
        return self

    def _has_torn_line(self) -> bool:
        """Returns True if a killed search or a full disk left a line without its end."""
        with contextlib.suppress(FileNotFoundError), open(self._path, "rb") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                return file.read() != b"\n"
        return False

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
