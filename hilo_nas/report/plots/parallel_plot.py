"""Plot of knobs, speed and value of each network on parallel axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from hilo_nas.errors import UsageError
from hilo_nas.report.plots.style import build_figure
from hilo_nas.report.study_view import NetworkView, Place, StudyView
from hilo_nas.text.figures import figure

__all__ = ["plot_parallel"]

_SCORED = (Place.FRONT, Place.TIED, Place.BEATEN, Place.STOPPED)


def plot_parallel(view: StudyView) -> go.Figure:
    """Returns a line for each scored network of the space through its knobs, its images/s and its value.

    Axes of knobs have evenly spaced choices. The speed axis is logarithmic. In a browser, drag along an axis to select
    networks.

    Args:
        view: The study.

    Raises:
        UsageError: No network of the space has a speed and a value.
    """
    own = [n for n in view.networks if n.place in _SCORED and n.knobs and n.images_per_s is not None]
    own.sort(key=lambda network: network.place == Place.FRONT)  # the front is drawn last
    if not own:
        raise UsageError(f"study {view.name} has no scored network of its space")
    built = build_figure("Knobs")
    knobs = {name: _choices(view, name) for name in own[0].knobs}
    dimensions = [_knob_axis(name, choices, own) for name, choices in knobs.items() if len(choices) > 1]
    speeds = [math.log10(network.images_per_s or 1.0) for network in own]
    values = [view.metric.scale * (network.value or 0.0) for network in own]
    dimensions += [_speed_axis(speeds), {"label": view.metric.heading, "values": values}]
    built.add_trace(
        go.Parcoords(
            dimensions=dimensions,
            line={"color": values, "colorscale": "Cividis", "showscale": True, "colorbar": _bar(view)},
            labelangle=-25,
            labelside="top",
            name=view.name,
        )
    )
    built.update_layout(margin={"t": 110, "l": 48})
    return built


def _bar(view: StudyView) -> dict[str, Any]:
    return {"title": {"text": view.metric.heading}, "thickness": 12}


def _choices(view: StudyView, param: str) -> list[Any]:
    return list(next(knob.choices for knob in view.manifest.space.knobs if knob.param == param))


def _knob_axis(name: str, choices: Sequence[Any], own: Sequence[NetworkView]) -> dict[str, Any]:
    return {
        "label": name,
        "values": [choices.index(network.knobs[name]) for network in own],
        "range": [0, len(choices) - 1],
        "tickvals": list(range(len(choices))),
        "ticktext": [str(choice) for choice in choices],
    }


def _speed_axis(speeds: Sequence[float]) -> dict[str, Any]:
    low, high = math.floor(min(speeds) * 4) / 4, math.ceil(max(speeds) * 4) / 4
    ticks = [low + i * (high - low) / 4 for i in range(5)] if high > low else [low]
    return {
        "label": "images/s",
        "values": list(speeds),
        "range": [low, high if high > low else low + 0.25],
        "tickvals": ticks,
        "ticktext": [figure(10**tick, 2) for tick in ticks],
    }
