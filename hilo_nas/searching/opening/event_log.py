"""The study's log: every event as a line of JSON, kept beside the records; the finest are only passed on."""

from __future__ import annotations

import contextlib
import datetime
import json
from pathlib import Path
from types import TracebackType
from typing import TextIO

from hilo_nas.events import DataPrepared, Emit, Event, RoundTimed, TrainingProgressed, event_to_dict

__all__ = ["Journal"]

_TOO_FINE = (RoundTimed, TrainingProgressed, DataPrepared)


class Journal:
    """Passes events on and appends them to a file; a full disk loses log lines, never a search.

    Args:
        path: The file.
        emit: Where events go.
    """

    def __init__(self, path: Path, emit: Emit) -> None:
        self._path, self._emit = path, emit
        self._file: TextIO | None = None

    def __call__(self, event: Event) -> None:
        """Takes an event."""
        if self._file is not None and not isinstance(event, _TOO_FINE):
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
            with contextlib.suppress(OSError):
                self._file.write(json.dumps({"at": now, **event_to_dict(event)}) + "\n")
                self._file.flush()
        self._emit(event)

    def __enter__(self) -> Journal:
        with contextlib.suppress(OSError):
            self._file = open(self._path, "a", encoding="utf-8")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
