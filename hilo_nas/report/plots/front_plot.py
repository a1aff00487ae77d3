"""Plot of a front: images/s and value of every network, with error bars and limits."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import plotly.graph_objects as go

from hilo_nas.errors import UsageError
from hilo_nas.report.plots.style import COLOURS, MARKS, build_figure, faded, hover_text, study_label
from hilo_nas.report.study_view import NetworkView, Place, StudyView, check_same_metric
from hilo_nas.text.figures import figure

__all__ = ["plot_front"]

_MOST_BARS = 400
"""Maximum number of beaten and stopped networks with error bars. More bars hide the networks."""


def plot_front(views: Sequence[StudyView]) -> go.Figure:
    """Returns the front of each study, with all other networks that have a speed.

    The speed axis is logarithmic. Networks that were timed but not trained are at the lower edge.

    Args:
        views: Studies with the same metric.

    Raises:
        UsageError: The studies have different metrics, or no network has a speed.
    """
    metric = check_same_metric(views)
    if not any(own.is_drawable for view in views for own in view.networks):
        raise UsageError("a plot of a front needs a network with a speed, but no network was timed")
    built = build_figure("Front", x="images/s", y=metric.title if not metric.is_share else f"{metric.short}, %")
    built.update_xaxes(type="log", dtick="D2", tickformat=",~r")
    floor = _floor(views)
    for view in views:
        colour = None if len(views) == 1 else COLOURS[view.index % len(COLOURS)]
        label = study_label(view, views)
        built.add_trace(_build_line(view, colour or MARKS[Place.FRONT].colour, label))
        for place in MARKS:
            drawn = [(j, own) for j, own in enumerate(view.networks) if own.place == place and own.is_drawable]
            if drawn:
                built.add_trace(_build_points(view, place, drawn, colour, label, floor))
        anchors = [(j, own) for j, own in enumerate(view.networks) if own.anchor and own.is_drawable]
        if anchors:
            built.add_trace(_build_anchors(view, anchors, label, floor))
        limit = view.manifest.limits_in_force.get("images_per_s")
        if limit:
            built.add_vline(x=limit, line={"dash": "dash", "width": 1, "color": colour or "#7F7F7F"})
            built.add_annotation(  # on a log axis, plotly places annotations by the logarithm, and lines by the value
                x=math.log10(limit),
                y=1,
                yref="paper",
                text=f"limit {figure(limit)}",
                showarrow=False,
                textangle=-90,
                xanchor="left",
                yanchor="top",
            )
    return built


def _floor(views: Sequence[StudyView]) -> float:
    """Returns the height at which networks without a value are drawn: below all values."""
    values = [view.metric.scale * own.value for view in views for own in view.networks if own.value is not None]
    if not values:
        return 0.0
    return min(values) - 0.06 * ((max(values) - min(values)) or 1.0)


def _build_line(view: StudyView, colour: str, label: str) -> go.Scatter:
    """Returns the staircase of the front: the best value among networks of at least a speed."""
    members = sorted(((own.images_per_s, own.value) for own in view.networks if own.place == Place.FRONT), reverse=True)
    return go.Scatter(
        x=[speed for speed, _ in members],
        y=[view.metric.scale * (value or 0.0) for _, value in members],
        mode="lines",
        line={"shape": "hv", "width": 2, "color": colour},
        name=f"{label}front",
        hoverinfo="skip",
        showlegend=False,
    )


def _build_points(
    view: StudyView,
    place: Place,
    drawn: Sequence[tuple[int, NetworkView]],
    colour: str | None,
    label: str,
    floor: float,
) -> go.Scatter:
    mark, scale = MARKS[place], view.metric.scale
    has_bars = place not in (Place.BEATEN, Place.STOPPED, Place.INFEASIBLE, Place.TIMED) or len(drawn) <= _MOST_BARS
    colour = colour or mark.colour
    bars = {"color": faded(colour, 0.7 if place == Place.FRONT else 0.3), "thickness": 1, "width": 0}
    own = [network for _, network in drawn]
    return go.Scatter(
        x=[network.images_per_s for network in own],
        y=[floor if network.value is None else scale * network.value for network in own],
        error_x=_errors([_span(n.images_per_s, n.images_per_s_low, n.images_per_s_high) for n in own], bars, has_bars),
        error_y=_errors([_span(n.value, n.value_low, n.value_high, scale) for n in own], bars, has_bars),
        mode="markers",
        marker={"symbol": mark.symbol, "size": mark.size, "color": colour, "opacity": mark.opacity},
        name=f"{label}{place}" + " (not trained)" * (place == Place.INFEASIBLE),
        text=[hover_text(network, view) for network in own],
        hovertemplate="%{text}<extra></extra>",
        customdata=[f"{view.index}:{place_in_study}" for place_in_study, _ in drawn],
    )


def _build_anchors(view: StudyView, anchors: Sequence[tuple[int, NetworkView]], label: str, floor: float) -> go.Scatter:
    """Returns rings around the anchors, with their names."""
    return go.Scatter(
        x=[own.images_per_s for _, own in anchors],
        y=[floor if own.value is None else view.metric.scale * own.value for _, own in anchors],
        mode="markers+text",
        marker={"symbol": "star-open", "size": 15, "color": "#E69F00"},
        text=[html.escape(own.anchor or "") for _, own in anchors],
        textposition="bottom center",
        textfont={"size": 11},
        hoverinfo="skip",
        name=f"{label}anchor",
        customdata=[f"{view.index}:{place_in_study}" for place_in_study, _ in anchors],
    )


def _span(value: float | None, low: float | None, high: float | None, scale: float = 1.0) -> tuple[float, float] | None:
    """Returns the lengths of an error bar above and below a value."""
    if value is None or low is None or high is None:
        return None
    return scale * (high - value), scale * (value - low)


def _errors(spans: Sequence[tuple[float, float] | None], bars: dict[str, object], is_shown: bool) -> dict[str, object]:
    if not is_shown or not any(spans):
        return {"visible": False}
    return {
        "type": "data",
        "symmetric": False,
        "array": [span[0] if span else 0.0 for span in spans],
        "arrayminus": [span[1] if span else 0.0 for span in spans],
        **bars,
    }
