"""Plot of the time that a study took: timing, training and the rest of each trial."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from hilo_nas.errors import UsageError
from hilo_nas.report.plots.style import build_figure
from hilo_nas.report.study_view import NetworkView, Place, StudyView
from hilo_nas.text.durations import duration

__all__ = ["ACTIVITIES", "plot_timeline", "seconds_spent"]

ACTIVITIES = ("timing", "training", "other")
"""Activities of a trial. `other` is building, waiting and storing."""
_GROUPS = {
    "on the front or tied": ("#0072B2", (Place.FRONT, Place.TIED)),
    "beaten": ("#7F7F7F", (Place.BEATEN,)),
    "stopped at a rung": ("#56B4E9", (Place.STOPPED,)),
    "baseline": ("#009E73", (Place.BASELINE,)),
    "infeasible, failed or did not train": ("#D55E00", (Place.INFEASIBLE, Place.FAILED, Place.UNTRAINED)),
    "timed only or not finished": ("#E69F00", (Place.TIMED, Place.OPEN)),
}
"""Colour of the trials by their places."""


def seconds_spent(own: NetworkView) -> dict[str, float]:
    """Returns the seconds of each of `ACTIVITIES` in a trial."""
    rest = max(own.seconds - own.timing_s - own.training_s, 0.0)
    return {"timing": own.timing_s, "training": own.training_s, "other": rest}


def plot_timeline(view: StudyView) -> go.Figure:
    """Returns a bar for each activity of each trial along the hours of the study, without pauses between its runs.

    The record of a trial has the duration of its timings and trainings, not their start. The plot puts the timings of
    a trial first, and its trials in the order in which they ended. Copied results took their time in another study.

    Args:
        view: The study.

    Raises:
        UsageError: The study has no trial.
    """
    trials = sorted(
        (own for own in view.networks if own.number is not None),
        key=lambda own: (own.finished_at is None, own.finished_at or "", own.number or 0),
    )
    if not trials:
        raise UsageError(f"study {view.name} has no trial")
    built = build_figure("Time", x="hours")
    begin, rows = 0.0, []
    totals = dict.fromkeys(ACTIVITIES, 0.0)
    for own in trials:
        for activity, seconds in seconds_spent(own).items():
            rows.append((own, activity, begin, seconds))
            begin += seconds
            totals[activity] += seconds
    names = {activity: f"{activity}<br>{duration(totals[activity])}" for activity in ACTIVITIES}
    for group, (colour, places) in _GROUPS.items():
        found = [row for row in rows if row[0].place in places and row[3] > 0]
        if found:
            built.add_trace(_build_bars(group, colour, found, names))
    built.update_yaxes(categoryorder="array", categoryarray=[names[activity] for activity in reversed(ACTIVITIES)])
    built.update_layout(barmode="overlay", bargap=0.3)
    return built


def _build_bars(
    group: str, colour: str, rows: Sequence[tuple[NetworkView, str, float, float]], names: dict[str, str]
) -> go.Bar:
    return go.Bar(
        orientation="h",
        y=[names[activity] for _, activity, _, _ in rows],
        base=[begin / 3600 for _, _, begin, _ in rows],
        x=[seconds / 3600 for _, _, _, seconds in rows],
        marker={"color": colour, "line": {"width": 0}},
        name=group,
        text=[f"trial {own.number}, {activity}: {duration(seconds)}" for own, activity, _, seconds in rows],
        textposition="none",
        hovertemplate="%{text}<extra></extra>",
    )
