"""Trials as pandas data frames."""

from __future__ import annotations

import io

import pandas as pd

from hilo_nas.study.csv_files import render_front, render_trials
from hilo_nas.study.front import Front

__all__ = ["build_front_frame", "build_trials_frame"]

_TEXT = (
    *("key", "origin", "reason", "tied_with", "embed_dims", "depths", "num_heads", "attention", "alpha"),
    *("window_size", "mlp_ratios", "form", "condition"),
)
"""Columns that pandas must read as text, even if it looks like a number."""


def build_trials_frame(front: Front) -> pd.DataFrame:
    """Returns a row per trial of a study, indexed by number, with the columns of `trials.csv`."""
    return _read(render_trials(front))


def build_front_frame(front: Front, *, ties: bool = False) -> pd.DataFrame:
    """Returns a row per trial of a front, fastest first, indexed by number, with the columns of `front.csv`.

    Args:
        front: The front.
        ties: True to add the trials that do not differ significantly from the front.
    """
    return _read(render_front(front, ties=ties))


def _read(text: str) -> pd.DataFrame:
    """Returns CSV as a data frame with nullable types, so integer columns stay integer despite missing values."""
    frame = pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(_TEXT, "string"))
    return frame.convert_dtypes().set_index("number")
