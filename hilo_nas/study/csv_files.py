"""`trials.csv` and `front.csv`: a study's records as rows, with every value, its spread and its unit."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hilo_nas.measurement.rounds import verdict_name
from hilo_nas.study.front import Front
from hilo_nas.study.records import TrialRecord, write_atomically

__all__ = ["COLUMNS", "CsvFiles", "render_front", "render_trials"]

COLUMNS = (
    "number",
    "state",
    "key",
    "origin",
    "images_per_s",
    "images_per_s_low",
    "images_per_s_high",
    "images_per_s_spread",
    "images_per_s_raw",
    "latency_ms_p50",
    "latency_ms_p95",
    "latency_ms_p99",
    "memory_mib",
    "steady",
    "verdict",
    "value",
    "standard_error",
    "metric",
    "loss",
    "images_seen",
    "seeds",
    "has_trained",
    "params_m",
    "gmacs",
    "patch_size",
    "embed_dims",
    "depths",
    "num_heads",
    "attention",
    "alpha",
    "window_size",
    "mlp_ratios",
    "on_front",
    "on_front_probability",
    "tied_with",
    "form",
    "condition",
    "seconds",
    "reason",
)
"""The columns of both files; a cell is empty where its value was not taken.

`images_per_s_low` and `_high` are a 95 % interval. `value` is the mean of `seeds` trainings of `images_seen` images;
`standard_error` is `Front.standard_errors`, and `on_front_probability` is `Front.probabilities`, which the end of a
search fills in: while it runs, that column is empty. The per-stage knobs are text, four values joined by a hyphen
(`96-192-384-768`), and so are the numbers in `tied_with` (`Front.ties`). A peer has no knobs, and its `key` is its
name, `timm:NAME`. Each condition beside the objective has three more columns, `NAME@LABEL`.
"""
_MEASURED = (
    *("images_per_s", "images_per_s_spread", "images_per_s_raw", "latency_ms_p50", "latency_ms_p95", "latency_ms_p99"),
    *("memory_mib", "steady", "form"),
)
_SCORED = ("value", "standard_error", "metric", "loss", "images_seen", "seeds")
_FURTHER = ("images_per_s", "latency_ms_p95", "memory_mib")
"""Columns of each condition beside the objective."""
_PAUSE_S = 5.0
"""Seconds between two writings, at least."""
_SHARE = 0.05
"""Share of the time that the writing may take: with many trials, the pauses become longer."""

_Row = dict[str, Any]


class CsvFiles:
    """The CSV files of one study; a record is turned into a row once.

    Args:
        folder: The study's.
        clock: Returns seconds, monotonic.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder, clock
        self._rows: dict[int, tuple[TrialRecord, _Row]] = {}
        self._due = clock() + _PAUSE_S

    def refresh(self, front: Callable[[], Front]) -> None:
        """Writes the files without P(front), unless they were written a moment ago.

        Raises:
            StorageError: The folder cannot be written.
        """
        if self._clock() >= self._due:
            self.write(front(), with_probabilities=False)

    def write(self, front: Front, *, with_probabilities: bool = True) -> None:
        """Writes both files; `with_probabilities` runs the simulation behind P(front) where that was not done yet.

        Raises:
            StorageError: The folder cannot be written.
        """
        start = self._clock()
        rows = _complete(front, map(self._row, front.records), with_probabilities=with_probabilities)
        header = _header(front.records)
        write_atomically(self._folder / "trials.csv", _render(rows.values(), header))
        members = [rows[member.number] for member in front.members]
        write_atomically(self._folder / "front.csv", _render(members, header))
        end = self._clock()
        self._due = end + max(_PAUSE_S, (end - start) / _SHARE)

    def _row(self, record: TrialRecord) -> _Row:
        known = self._rows.get(record.number)
        if known is None or known[0] is not record:
            known = self._rows[record.number] = (record, _row_of(record))
        return known[1]


def render_trials(front: Front, *, leave_out_empty: bool = False) -> str:
    """Returns a row per trial in the order of their numbers, as CSV.

    Args:
        front: The study's.
        leave_out_empty: Whether columns without any value are left out.
    """
    rows = _complete(front, map(_row_of, front.records))
    header = _header(front.records)
    if leave_out_empty:
        header = [name for name in header if any(row.get(name) is not None for row in rows.values())]
    return _render(rows.values(), header)


def render_front(front: Front, *, ties: bool = False) -> str:
    """Returns the rows of the trials on the front, the fastest first, as CSV; with `ties`, then those tied with it."""
    rows = _complete(front, map(_row_of, front.records))
    numbers = [member.number for member in front.members] + (list(front.ties) if ties else [])
    return _render([rows[number] for number in numbers], _header(front.records))


def _complete(front: Front, rows: Iterable[_Row], *, with_probabilities: bool = True) -> dict[int, _Row]:
    """Adds what a row says of the front, by number."""
    members = {member.number for member in front.members}
    probabilities: Mapping[int, float] = front.probabilities() if with_probabilities else {}
    return {
        (number := row["number"]): {
            **row,
            "standard_error": front.standard_errors.get(number, row.get("standard_error")),
            "on_front": number in members,
            "on_front_probability": probabilities.get(number),
            "tied_with": _join(front.ties.get(number, ())) or None,
        }
        for row in rows
    }


def _header(records: Iterable[TrialRecord]) -> list[str]:
    """All columns; further conditions in the order in which they were measured."""
    labels: dict[str, None] = {}
    for record in records:
        if len(record.measurements) > 1:
            labels |= dict.fromkeys(list(record.measurements_by_condition())[1:])
    return [*COLUMNS, *(f"{name}@{label}" for label in labels for name in _FURTHER)]


def _render(rows: Iterable[_Row], header: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([row.get(name) for name in header] for row in rows)
    return text.getvalue()


def _row_of(record: TrialRecord) -> _Row:
    row: _Row = {
        "number": record.number,
        "state": str(record.state),
        "key": record.key,
        "origin": record.origin,
        "params_m": None if record.parameters is None else record.parameters / 1e6,
        "gmacs": None if record.macs is None else record.macs / 1e9,
        "seconds": round(record.seconds, 1),
        "reason": record.reason,
    }
    if record.subject.arch is not None:
        knobs = record.subject.arch.to_dict()
        row |= {name: _join(value) if isinstance(value, list) else value for name, value in knobs.items()}
    if record.measurement is not None:
        measurement = record.measurement
        row |= {name: getattr(measurement, name) for name in _MEASURED}
        row["verdict"] = verdict_name(measurement)
        row["images_per_s_low"], row["images_per_s_high"] = measurement.images_per_s_interval or (None, None)
        row["condition"] = measurement.condition.label()
        for label, further in list(record.measurements_by_condition().items())[1:]:
            row |= {f"{name}@{label}": getattr(further, name) for name in _FURTHER}
    if record.score is not None:
        row |= {name: getattr(record.score, name) for name in _SCORED} | {"has_trained": record.has_trained}
    return row


def _join(values: Iterable[Any]) -> str:
    return "-".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
