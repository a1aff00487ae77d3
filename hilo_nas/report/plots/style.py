"""Colours, symbols and axes that all plots share.

Colours are those of Okabe and Ito (2008), which people with colour-blindness can distinguish. They have enough contrast
on white and on dark grey. Backgrounds are transparent, so a page can choose its own.
"""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence

import plotly.graph_objects as go

from hilo_nas.report.study_view import NetworkView, Place, StudyView
from hilo_nas.text.figures import figure

__all__ = ["COLOURS", "MARKS", "Mark", "build_figure", "faded", "hover_text", "study_label"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#7F7F7F")
"""Colour of each study, in order."""


@dataclasses.dataclass(frozen=True)
class Mark:
    """Marker of the networks at one place."""

    symbol: str
    colour: str
    """Colour in a plot of one study. With several studies, each has its own colour."""
    size: int = 7
    opacity: float = 1.0


MARKS = {
    Place.BEATEN: Mark("circle", "#7F7F7F", 5, 0.7),
    Place.STOPPED: Mark("triangle-down-open", "#7F7F7F", 6, 0.7),
    Place.UNTRAINED: Mark("asterisk-open", "#7F7F7F", 6, 0.9),
    Place.TIMED: Mark("line-ns-open", "#7F7F7F", 6, 0.7),
    Place.INFEASIBLE: Mark("x-thin-open", "#D55E00", 6, 0.9),
    Place.PREDICTED: Mark("square-open", "#CC79A7", 7),
    Place.BASELINE: Mark("diamond", "#009E73", 10),
    Place.TIED: Mark("circle-open", "#0072B2", 8),
    Place.FRONT: Mark("circle", "#0072B2", 9),
}
"""Marker of each place that a plot shows, from the back to the front."""


def build_figure(title: str, *, x: str = "", y: str = "") -> go.Figure:
    """Returns an empty figure with titles for the figure and its axes."""
    built = go.Figure()
    built.update_layout(
        template="none",
        title={"text": title, "x": 0, "xref": "paper", "xanchor": "left", "font": {"size": 16}},
        font={"family": "system-ui, -apple-system, Segoe UI, sans-serif", "size": 13},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 64, "r": 16, "t": 44, "b": 104},
        legend={"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0, "x": 0},
        hovermode="closest",
        hoverlabel={"align": "left"},
        colorway=COLOURS,
    )
    grid = {"gridcolor": "rgba(127,127,127,0.25)", "zeroline": False, "automargin": True}
    built.update_xaxes(title=x, **grid)
    built.update_yaxes(title=y, **grid)
    return built


def faded(colour: str, opacity: float) -> str:
    """Returns a colour such as `#0072B2` with an opacity from 0 to 1."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def study_label(view: StudyView, views: Sequence[StudyView]) -> str:
    """Returns the start of a legend entry: empty for one study, else the name of the study."""
    return "" if len(views) == 1 else f"{view.name}: "


def hover_text(network: NetworkView, view: StudyView) -> str:
    """Returns the label of a network's marker: its figures as HTML lines."""
    metric = view.metric
    name = html.escape(network.title) if network.number is None else f"trial {network.number}"
    name += f" (anchor {html.escape(network.anchor)})" if network.anchor else ""
    lines = [f"<b>{name}</b>, {network.place}"]
    if network.images_per_s is not None:
        lines.append(f"{network.speed_text} images/s")
    if network.value is not None:
        seen = f" after {network.images_seen:,} images" if network.images_seen else ""
        lines.append(f"{metric.label} {network.value_text(metric)}{' %' * metric.is_share}{seen}")
    if network.parameters:
        gmacs = figure((network.macs or 0) / 1e9, 3)
        lines.append(f"{figure(network.parameters / 1e6, 3)} M parameters, {gmacs} GMACs")
    if network.number is not None:
        lines.append(html.escape(network.title))
    if network.reason:
        lines.append(html.escape(network.reason[:120]))
    return "<br>".join(lines)
