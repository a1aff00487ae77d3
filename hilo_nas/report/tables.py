"""Records as tables: a row per trial, with every value, its spread and its unit."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pandas as pd

from hilo_nas.front import front_of, probability_on_front, ties_of, top1_errors
from hilo_nas.records import TrialRecord, write_atomically
from hilo_nas.rounds import verdict_name
from hilo_nas.speeds import SpeedFolder
from hilo_nas.study import StudyFolder

__all__ = ["build_front_frame", "build_trials_frame", "write_speed_table", "write_tables"]

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
"""The columns of `trials.csv`; `front.csv` has the same. `images_per_s_low` and `_high` are a 95 % interval.
The value is the mean of `seeds` trainings of `images_seen` images; `standard_error` and `on_front_probability` are
those of `hilo_nas.front.top1_errors` and `probability_on_front`."""


_FURTHER = ("images_per_s", "latency_ms_p95", "memory_mib")
"""What is told of each condition beside the objective, in columns `NAME@LABEL`."""


def build_trials_frame(records: Sequence[TrialRecord]) -> pd.DataFrame:
    """Returns a row per trial in the order of their numbers; what was not taken is missing.

    The per-stage knobs are text, four values joined by a hyphen (`96-192-384-768`), and so are the numbers in
    `tied_with`: the members of the front that a trial cannot be told from (`hilo_nas.front.ties_of`). A peer has no
    knobs, and its `key` is its name, `timm:NAME`.
    """
    front = {record.number for record in front_of(records)}
    ties, errors, probabilities = ties_of(records), top1_errors(records), probability_on_front(records)
    rows = [
        {
            **(row := _row(record)),
            "standard_error": errors.get(record.number, row.get("standard_error")),
            "on_front": record.number in front,
            "on_front_probability": probabilities.get(record.number),
            "tied_with": _join(ties.get(record.number, ())) or None,
        }
        for record in records
    ]
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *_further_columns(records)])
    return frame.astype(dict.fromkeys(("images_seen", "seeds"), "Int64"))  # whole, though some are missing


def _further_columns(records: Sequence[TrialRecord]) -> list[str]:
    """The columns of conditions beside the objective, in the order in which they were measured."""
    labels: dict[str, None] = {}
    for record in records:
        labels |= dict.fromkeys(list(record.measurements_by_condition())[1:])
    return [f"{name}@{label}" for label in labels for name in _FURTHER]


def build_front_frame(records: Sequence[TrialRecord], *, ties: bool = False) -> pd.DataFrame:
    """Returns the rows of the trials on the front, the fastest first; with `ties`, then those tied with it."""
    frame = build_trials_frame(records)
    order = [record.number for record in front_of(records)] + (list(ties_of(records)) if ties else [])
    return frame.set_index("number", drop=False).loc[order].reset_index(drop=True)


def write_speed_table(folder: SpeedFolder) -> None:
    """Writes `speeds.csv` from the records of a table of speeds.

    Raises:
        StorageError: The folder cannot be written.
    """
    frame = build_trials_frame(folder.load_all()).dropna(axis="columns", how="all")
    text = io.StringIO()
    frame.to_csv(text, index=False)
    write_atomically(folder.path / "speeds.csv", text.getvalue())


def write_tables(folder: StudyFolder) -> None:
    """Writes `trials.csv` and `front.csv` from the records.

    Raises:
        StorageError: The folder cannot be written.
    """
    records = folder.load_records()
    for name, frame in (("trials.csv", build_trials_frame(records)), ("front.csv", build_front_frame(records))):
        text = io.StringIO()
        frame.to_csv(text, index=False)
        write_atomically(folder.path / name, text.getvalue())


def _row(record: TrialRecord) -> dict[str, Any]:
    row: dict[str, Any] = {
        "number": record.number,
        "state": record.state,
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
        row |= {
            name: getattr(measurement, name) for name in COLUMNS if hasattr(measurement, name) and name != "seconds"
        }
        row["verdict"] = verdict_name(measurement)
        row["images_per_s_low"], row["images_per_s_high"] = measurement.images_per_s_interval or (None, None)
        row["condition"] = measurement.condition.label()
        for label, further in list(record.measurements_by_condition().items())[1:]:
            row |= {f"{name}@{label}": getattr(further, name) for name in _FURTHER}
    if record.score is not None:
        names = ("value", "standard_error", "metric", "loss", "images_seen", "seeds")
        row |= {name: getattr(record.score, name) for name in names} | {"has_trained": record.has_trained}
    return row


def _join(values: Any) -> str:
    return "-".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
