"""Tables of differences between trials."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from hilo_nas.cli.tables import Column, print_fitting
from hilo_nas.proxy.kinds import Metric
from hilo_nas.study.trial_differences import TrialDifference
from hilo_nas.text.figures import probability_text

__all__ = ["print_differences"]


def print_differences(rows: Sequence[TrialDifference], base: int, metric: Metric, console: Console) -> None:
    """Prints a row per trial with its differences from a base trial, and the meaning of the columns."""
    columns = [
        Column("trial", [str(row.number) for row in rows]),
        Column("images/s", [f"{row.speed_ratio:.3g}x" for row in rows]),
        Column("P(faster)", [probability_text(row.faster_probability, is_short=True) for row in rows], rank=1),
        Column(metric.short, [metric.difference_text(row.value_difference, row.half_width) for row in rows]),
        Column("P(better)", [probability_text(row.better_probability, is_short=True) for row in rows], rank=1),
        Column("other knobs", [", ".join(row.knobs) for row in rows], rank=2, justify="left"),
    ]
    print_fitting(columns, console, other_format="json")
    text = f"Each row is compared with trial {base}. ±: half of a 95 % interval."
    console.print(text, style="dim", soft_wrap=True)
