"""Trials as pandas frames."""

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
"""Columns that hold text even where it looks like a number."""


def build_trials_frame(front: Front) -> pd.DataFrame:
    """Returns a row per trial of a study, indexed by number, with the columns of `trials.csv`."""
    return _read(render_trials(front))


def build_front_frame(front: Front, *, ties: bool = False) -> pd.DataFrame:
    """Returns a row per trial of a front, the fastest first, indexed by number, with the columns of `front.csv`.

    Args:
        front: The front.
        ties: Add the trials that cannot be told from it.
    """
    return _read(render_front(front, ties=ties))


def _read(text: str) -> pd.DataFrame:
    """Returns CSV as a frame with nullable types: whole numbers stay whole where some are missing."""
    frame = pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(_TEXT, "string"))
    return frame.convert_dtypes().set_index("number")
