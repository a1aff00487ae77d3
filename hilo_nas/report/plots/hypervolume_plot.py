"""Plot of the hypervolume of a front over the trials or the hours of a search."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from hilo_nas.report.plots.style import COLOURS, build_figure
from hilo_nas.report.study_view import NetworkView, Place, StudyView, check_same_metric
from hilo_nas.study.front import speed_hypervolume
from hilo_nas.text.figures import figure

__all__ = ["hypervolume_curve", "plot_hypervolume"]


def plot_hypervolume(views: Sequence[StudyView], *, over_hours: bool = False) -> go.Figure:
    """Returns the hypervolume of each study's front after each trial, in percent of the largest one.

    All curves use the same reference point, the lowest of the studies' reference points (`StudyView.ref_point`).

    Args:
        views: Studies with the same metric.
        over_hours: True for the hours that the trials took, False for the number of trials that ended.

    Raises:
        UsageError: The studies have different metrics, or a study has no complete trial that trained.
    """
    metric = check_same_metric(views)
    points = [view.ref_point for view in views]
    ref_point = min(speed for speed, _ in points), min(value for _, value in points)
    curves = [hypervolume_curve(view, ref_point) for view in views]
    largest = max((curve[-1][2] for curve in curves if curve), default=0.0) or 1.0
    above = f"above {figure(ref_point[0], 3)} images/s and {metric.label} {metric.text(ref_point[1])}"
    built = build_figure(
        "Hypervolume", x="hours" if over_hours else "trials", y=f"hypervolume, % of the largest<br>({above})"
    )
    for i, (view, curve) in enumerate(zip(views, curves, strict=True)):
        built.add_trace(
            go.Scatter(
                x=[hours if over_hours else trials for trials, hours, _ in curve],
                y=[100 * area / largest for _, _, area in curve],
                mode="lines",
                line={"shape": "hv", "width": 2, "color": COLOURS[i % len(COLOURS)]},
                name=view.name,
                hovertemplate="%{y:.1f} % after %{x:.3g} " + ("hours" if over_hours else "trials"),
            )
        )
    built.update_layout(showlegend=len(views) > 1)
    return built


def hypervolume_curve(view: StudyView, ref_point: tuple[float, float]) -> list[tuple[int, float, float]]:
    """Returns the number of trials that ended, the hours that they took, and the hypervolume, after each trial.

    Trials count in the order in which they ended. A trial that has not ended adds its hours before the others, because
    its timing served to choose them.

    Args:
        view: The study.
        ref_point: Images/s and value, as for `speed_hypervolume`.
    """
    ended = sorted(
        (own for own in view.networks if own.number is not None and own.arch is not None),
        key=lambda own: (own.finished_at or "", own.number or 0),
    )
    curve: list[tuple[int, float, float]] = []
    front: list[tuple[float, float]] = []
    trials, seconds, area = 0, 0.0, 0.0
    for own in ended:
        seconds += own.seconds
        if own.finished_at is None or own.place in (Place.OPEN, Place.TIMED):
            continue
        trials += 1
        point = _point(own)
        if point is not None and not any(speed >= point[0] and value >= point[1] for speed, value in front):
            front = [other for other in front if not (point[0] >= other[0] and point[1] >= other[1])] + [point]
            area = speed_hypervolume(front, ref_point)
        curve.append((trials, seconds / 3600, area))
    return curve


def _point(own: NetworkView) -> tuple[float, float] | None:
    if not own.place.is_complete or own.images_per_s is None or own.value is None:
        return None
    return own.images_per_s, own.value
