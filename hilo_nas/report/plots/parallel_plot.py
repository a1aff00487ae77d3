"""Plot of knobs, speed and value of each network on parallel axes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from hilo_nas.errors import UsageError
from hilo_nas.report.plots.style import build_figure
from hilo_nas.report.study_view import NetworkView, Place, StudyView
from hilo_nas.text.figures import figure

__all__ = ["plot_parallel"]

_SCORED = (Place.FRONT, Place.TIED, Place.BEATEN, Place.STOPPED)
_JITTER = 0.05
"""Range of the offsets on axes of knobs, in units of the axis, so that lines through the same choice stay apart."""
_BANDS = 8
"""Number of colours: networks are split into bands of equal size by their values."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Axis:
    """An axis. Heights are from 0 to 1."""

    name: str
    heights: tuple[float, ...]
    """Height of each network."""
    ticks: tuple[tuple[float, str], ...]
    """Height and label of each tick."""


def plot_parallel(view: StudyView) -> go.Figure:
    """Returns a line for each scored network of the space through its knobs, its images/s and its value.

    The choices of a knob are evenly spaced, and small offsets keep lines apart. The speed axis is logarithmic. Brighter
    lines have higher values.

    Args:
        view: The study.

    Raises:
        UsageError: No network of the space has a speed and a value.
    """
    own = [
        (i, n)
        for i, n in enumerate(view.networks)
        if n.place in _SCORED and n.knobs and n.images_per_s is not None and n.value is not None
    ]
    if not own:
        raise UsageError(f"study {view.name} has no scored network of its space")
    own.sort(key=lambda item: item[1].value or 0.0)  # the best are drawn last
    networks = [network for _, network in own]
    axes = [_knob_axis(view, name, networks) for name in networks[0].knobs]
    axes += [_number_axis("images/s", [n.images_per_s or 1.0 for n in networks], is_log=True)]
    axes += [_number_axis(view.metric.heading, [view.metric.scale * (n.value or 0.0) for n in networks])]
    built = build_figure("Knobs")
    colours = sample_colorscale("Viridis", [0.05 + 0.9 * band / (_BANDS - 1) for band in range(_BANDS)])
    for band, colour in enumerate(colours):
        begin, end = (len(own) * edge // _BANDS for edge in (band, band + 1))
        if end > begin:
            built.add_trace(_build_band(view, axes, own[begin:end], range(begin, end), colour))
    for i, axis in enumerate(axes):
        built.add_vline(x=i, line={"width": 1, "color": "#7F7F7F"}, layer="below")
        for height, text in axis.ticks:
            built.add_annotation(x=i, y=height, text=text, showarrow=False, xanchor="left", xshift=3, font={"size": 10})
    built.update_xaxes(
        tickvals=list(range(len(axes))),
        ticktext=[axis.name for axis in axes],
        tickangle=-35,
        range=[-0.2, len(axes) - 0.4],
        showgrid=False,
        side="bottom",
    )
    built.update_yaxes(visible=False, range=[-0.06, 1.06])
    built.update_layout(showlegend=False)
    return built


def _build_band(
    view: StudyView, axes: Sequence[_Axis], own: Sequence[tuple[int, NetworkView]], places: range, colour: str
) -> go.Scatter:
    """Returns the lines of some networks as one trace, with a gap after each network.

    `customdata` names the network of each point, as in the front's plot.
    """
    xs: list[float | None] = []
    ys: list[float | None] = []
    texts: list[str] = []
    names: list[str] = []
    for (index, network), place in zip(own, places, strict=True):
        xs += [*range(len(axes)), None]
        ys += [*(axis.heights[place] for axis in axes), None]
        label = f"trial {network.number}: {network.speed_text} images/s, {network.value_text(view.metric)}"
        texts += [label] * (len(axes) + 1)  # short, because each point repeats it
        names += [f"{view.index}:{index}"] * (len(axes) + 1)
    return go.Scatter(
        x=xs,
        y=ys,
        mode="lines",
        line={"width": 1.2, "color": colour},
        opacity=0.8,
        text=texts,
        hovertemplate="%{text}<extra></extra>",
        customdata=names,
        connectgaps=False,
    )


def _knob_axis(view: StudyView, name: str, networks: Sequence[NetworkView]) -> _Axis:
    choices: list[Any] = list(next(knob.choices for knob in view.manifest.space.knobs if knob.param == name))
    last = max(len(choices) - 1, 1)
    return _Axis(
        name=name,
        heights=tuple(
            choices.index(network.knobs[name]) / last + _JITTER * ((i + 0.5) / len(networks) - 0.5)
            for i, network in enumerate(networks)
        ),
        ticks=tuple((i / last, str(choice)) for i, choice in enumerate(choices)),
    )


def _number_axis(name: str, values: Sequence[float], *, is_log: bool = False) -> _Axis:
    scaled = [math.log(value) for value in values] if is_log else list(values)
    low, high = min(scaled), max(scaled)
    span = (high - low) or 1.0
    ticks = [low + span * i / 4 for i in range(5)] if high > low else [low]
    texts = [figure(math.exp(tick) if is_log else tick, 3) for tick in ticks]
    shown = dict(zip(texts, ticks, strict=True)).items()  # equal labels once
    return _Axis(
        name=name,
        heights=tuple((value - low) / span for value in scaled),
        ticks=tuple(((tick - low) / span, text) for text, tick in shown),
    )
