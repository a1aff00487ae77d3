"""The files `trials.csv` and `front.csv`, with one row per trial."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hilo_nas.measurement.verdicts import verdict_name
from hilo_nas.study.front import Front
from hilo_nas.study.records import TrialRecord, write_atomically

__all__ = ["COLUMNS", "CsvFiles", "render_front", "render_trials", "row_of"]

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
    "is_preliminary",
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
"""Columns of both files. A cell without a measured value is empty.

* `is_preliminary` is True for a brief timing, with which a sampler chose between networks. Such a speed is not
  comparable with a full timing. The cell is empty if the network was not timed.
* `images_per_s_low` and `images_per_s_high` bound a 95 % interval.
* `value` is the mean over `seeds` trainings on `images_seen` images. `standard_error` is from `Front.standard_errors`.
* `on_front_probability` is from `Front.probabilities`. It is empty until the search ends.
* Per-stage knobs are text: four values joined by hyphens (`96-192-384-768`). The trial numbers in `tied_with`
  (`Front.ties`) have the same format.
* A baseline has no knobs. Its `key` is its name, `timm:NAME`.
* Scores in INT8 add two columns: `float_value`, the value before quantization, and `drop_error`, the standard error of
  the difference. If layers stay in float, a third one, `float_layers`, joins their names by hyphens.
* Each condition other than the objective adds three columns, `NAME@LABEL`.
* Each further target adds `on_front@LABEL`, True for the members of its front under its first condition.
"""
_MEASURED = (
    *("images_per_s", "images_per_s_spread", "images_per_s_raw", "latency_ms_p50", "latency_ms_p95", "latency_ms_p99"),
    *("memory_mib", "steady", "form"),
)
_SCORED = ("value", "standard_error", "metric", "loss", "images_seen", "seeds")
_QUANTIZED = ("float_value", "drop_error")
"""Columns of scores in INT8."""
_FLOAT_LAYERS = "float_layers"
"""Column of scores in INT8 in which layers stayed in float."""
_FURTHER = ("images_per_s", "latency_ms_p95", "memory_mib")
"""Columns for each further condition (`timing.also`). Only the objective, the first condition, has all columns."""
_PAUSE_S = 5.0
"""Minimum number of seconds between two writes."""
_MAX_TIME_SHARE = 0.05
"""Maximum share of the run time spent on writing. With many trials, the pauses between writes become longer."""

_Row = dict[str, Any]


class CsvFiles:
    """Writer of the CSV files of one study. It caches the row of each record.

    Args:
        folder: Folder of the study.
        clock: Function that returns monotonic seconds.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = folder, clock
        self._rows: dict[int, tuple[TrialRecord, _Row]] = {}
        self._due = clock() + _PAUSE_S

    def refresh(self, front: Callable[[], Front]) -> None:
        """Writes both files if enough time has passed since the last write.

        Leaves `on_front_probability` empty, because it needs a simulation.

        Raises:
            StorageError: The folder cannot be written.
        """
        if self._clock() >= self._due:
            self.write(front(), with_probabilities=False)

    def write(self, front: Front, *, with_probabilities: bool = True) -> None:
        """Writes both files.

        Args:
            front: The front of the study.
            with_probabilities: True to fill in P(front), which runs a simulation unless the front has cached it.

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
        self._due = end + max(_PAUSE_S, (end - start) / _MAX_TIME_SHARE)

    def _row(self, record: TrialRecord) -> _Row:
        known = self._rows.get(record.number)
        if known is None or known[0] is not record:
            known = self._rows[record.number] = (record, row_of(record))
        return known[1]


def render_trials(front: Front, *, leave_out_empty: bool = False) -> str:
    """Returns CSV text with one row per trial, sorted by number.

    Args:
        front: The front of the study.
        leave_out_empty: True to omit columns without any value.
    """
    rows = _complete(front, map(row_of, front.records))
    header = _header(front.records)
    if leave_out_empty:
        header = [name for name in header if any(row.get(name) is not None for row in rows.values())]
    return _render(rows.values(), header)


def render_front(front: Front, *, ties: bool = False) -> str:
    """Returns CSV text with one row per trial on the front, the fastest first.

    Args:
        front: The front of the study.
        ties: True to append the trials that are tied with the front.
    """
    rows = _complete(front, map(row_of, front.records))
    numbers = [member.number for member in front.members] + (list(front.ties) if ties else [])
    return _render([rows[number] for number in numbers], _header(front.records))


def _complete(front: Front, rows: Iterable[_Row], *, with_probabilities: bool = True) -> dict[int, _Row]:
    """Returns the rows by trial number, with the columns that depend on the front.

    These are `standard_error`, `on_front`, `on_front_probability` and `tied_with`.
    """
    members = {member.number for member in front.members}
    probabilities: Mapping[int, float] = front.probabilities() if with_probabilities else {}
    on_fronts = {
        f"on_front@{label}": {member.number for member in Front.from_records(front.records, label).members}
        for label in _further_targets(front.records)
    }
    return {
        (number := row["number"]): {
            **row,
            "standard_error": front.standard_errors.get(number, row.get("standard_error")),
            "on_front": number in members,
            "on_front_probability": probabilities.get(number),
            "tied_with": _join(front.ties.get(number, ())) or None,
            **{name: number in numbers for name, numbers in on_fronts.items()},
        }
        for row in rows
    }


def _header(records: Sequence[TrialRecord]) -> list[str]:
    """Returns the names of all columns. Conditions other than the objective follow in the order of measurement."""
    labels: dict[str, None] = {}
    quantized: tuple[str, ...] = ()
    has_float_layers = False
    for record in records:
        if record.score is not None and record.score.float_value is not None:
            quantized = _QUANTIZED
            has_float_layers = has_float_layers or bool(record.score.float_layers)
        if len(record.measurements) > 1:
            labels |= dict.fromkeys(list(record.measurements_by_condition())[1:])
    quantized += (_FLOAT_LAYERS,) * has_float_layers
    targets = [f"on_front@{label}" for label in _further_targets(records)]
    return [*COLUMNS, *quantized, *(f"{name}@{label}" for label in labels for name in _FURTHER), *targets]


def _further_targets(records: Iterable[TrialRecord]) -> list[str]:
    """Returns the label of the first condition on each target other than that of the first measurements."""
    labels: dict[tuple[str, str | None], str] = {}
    for record in records:
        if len(record.measurements) > 1:
            for label, own in record.measurements_by_condition().items():
                if not own.condition.shares_target(record.measurements[0].condition):
                    labels.setdefault((own.condition.device, own.condition.model), label)
    return list(labels.values())


def _render(rows: Iterable[_Row], header: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([row.get(name) for name in header] for row in rows)
    return text.getvalue()


def row_of(record: TrialRecord) -> dict[str, Any]:
    """Returns the values of a trial by the names of `COLUMNS`, without those that depend on the front."""
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
        row["verdict"], row["is_preliminary"] = verdict_name(measurement), measurement.is_preliminary
        row["images_per_s_low"], row["images_per_s_high"] = measurement.images_per_s_interval or (None, None)
        row["condition"] = measurement.condition.label()
        for label, further in list(record.measurements_by_condition().items())[1:]:
            row |= {f"{name}@{label}": getattr(further, name) for name in _FURTHER}
    if record.score is not None:
        row |= {name: getattr(record.score, name) for name in (*_SCORED, *_QUANTIZED)} | {
            "has_trained": record.has_trained,
            _FLOAT_LAYERS: _join(record.score.float_layers) or None,
        }
    return row


def _join(values: Iterable[Any]) -> str:
    return "-".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
