"""Figures as PNG and SVG files, drawn by matplotlib.

plotly's own image export starts a browser. This module draws what `hilo_nas.report.plots` uses of plotly: scatter
plots with error bars, lines, bars and vertical lines. It needs the extra `plot`.
"""

from __future__ import annotations

import importlib.util
import io
import math
import re
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from hilo_nas.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["render_static"]

_SYMBOLS = {
    "circle": ("o", True),
    "circle-open": ("o", False),
    "triangle-down-open": ("v", False),
    "asterisk-open": ("x", True),
    "x-thin-open": ("x", True),
    "line-ns-open": ("|", True),
    "square-open": ("s", False),
    "diamond": ("D", True),
    "star-open": ("*", False),
}
"""matplotlib's marker of each plotly symbol, and whether it is filled."""


def render_static(figure: go.Figure, format: str = "png", *, size_in: tuple[float, float] = (8.0, 5.0)) -> bytes:
    """Returns a figure as a PNG file with 200 dots per inch, or as an SVG file with text as text.

    Args:
        figure: A figure from `hilo_nas.report.plots`.
        format: `png` or `svg`.
        size_in: Width and height in inches.

    Raises:
        UsageError: matplotlib is not installed, or the figure has a kind of trace that is not supported.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("PNG and SVG files need matplotlib, which is not installed. Use pip install 'hilo-nas[plot]'.")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "hilo-nas"}):
        drawn = Figure(figsize=size_in, layout="constrained")
        FigureCanvasAgg(drawn)
        axes = drawn.subplots()
        axes.set_title(_plain(figure.layout.title.text), loc="left")
        for trace in figure.data:
            _DRAWERS.get(trace.type, _refuse)(axes, trace)
        _draw_axes(axes, figure)
        file = io.BytesIO()
        drawn.savefig(file, format=format, dpi=200, metadata={"Date": None} if format == "svg" else None)
    return file.getvalue()


def _refuse(axes: Axes, trace: Any) -> None:
    raise UsageError(f"a static figure has traces of type {', '.join(_DRAWERS)}, but got {trace.type}")


def _draw_scatter(axes: Axes, trace: Any) -> None:
    label = trace.name if trace.showlegend is not False else None
    if "lines" in trace.mode:
        style = "steps-post" if trace.line.shape == "hv" else "default"
        xs, ys = ([math.nan if value is None else value for value in values] for values in (trace.x, trace.y))
        colour = _colour_of(trace.line.color)
        axes.plot(xs, ys, drawstyle=style, color=colour, linewidth=0.8 * trace.line.width, label=label, zorder=1)
        return
    marker, is_filled = _SYMBOLS[trace.marker.symbol]
    colour, size = trace.marker.color, trace.marker.size * 0.75
    errors = {name: _error_of(getattr(trace, f"error_{name}")) for name in ("x", "y")}
    if any(errors.values()):
        bar = _colour_of(trace.error_x.color or trace.error_y.color)
        axes.errorbar(trace.x, trace.y, xerr=errors["x"], yerr=errors["y"], fmt="none", ecolor=bar, elinewidth=0.7)
    axes.plot(
        trace.x,
        trace.y,
        marker,
        markersize=size,
        markeredgecolor=colour,
        markerfacecolor=colour if is_filled else "none",
        alpha=trace.marker.opacity,
        label=label,
        zorder=2,
    )
    if "text" in trace.mode:
        from matplotlib.patheffects import withStroke

        halo = [withStroke(linewidth=3, foreground="white")]  # error bars pass behind the names
        for x, y, text in zip(trace.x, trace.y, trace.text, strict=True):
            axes.annotate(
                text, (x, y), (0, -14), textcoords="offset points", ha="center", fontsize=8, path_effects=halo
            )


def _error_of(bars: Any) -> list[Any] | None:
    return None if bars.visible is False or bars.array is None else [bars.arrayminus, bars.array]


def _draw_bars(axes: Axes, trace: Any) -> None:
    """Draws horizontal bars: stacked at their `base`, or as the next group of bars."""
    if trace.base is not None:
        axes.barh(list(map(_plain, trace.y)), trace.x, left=trace.base, color=trace.marker.color, label=trace.name)
        return
    done = len(axes.containers)
    places = [i + (0.2 if done else -0.2) for i in range(len(trace.y))]
    axes.barh(places, trace.x, height=0.38, color=trace.marker.color, label=trace.name)
    axes.set_yticks(range(len(trace.y)), list(map(_plain, trace.y)))


def _draw_axes(axes: Axes, figure: go.Figure) -> None:
    layout = figure.layout
    if layout.xaxis.type == "log":
        from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    for shape in layout.shapes:
        style = "--" if shape.line.dash else "-"
        axes.axvline(shape.x0, color=shape.line.color, linestyle=style, linewidth=1, zorder=0)
    for note in layout.annotations:
        if note.textangle:  # along a vertical line, from the top
            place: dict[str, Any] = {
                "xy": (10**note.x if layout.xaxis.type == "log" else note.x, 1.0),
                "xycoords": ("data", "axes fraction"),
                "rotation": 90,
                "va": "top",
            }
        else:
            place = {"xy": (note.x, note.y), "xytext": (2, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(note.text, fontsize=7, **place)
    if layout.xaxis.ticktext:
        axes.set_xticks(layout.xaxis.tickvals, layout.xaxis.ticktext, rotation=35, ha="right")
    if layout.yaxis.visible is False:
        axes.set_yticks([])
    if (layout.xaxis.tickformat or "").endswith("%"):
        from matplotlib.ticker import PercentFormatter

        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(_plain(layout.xaxis.title.text))
    axes.set_ylabel(_plain(layout.yaxis.title.text))
    if layout.xaxis.showgrid is not False:
        axes.grid(color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
    labels = axes.get_legend_handles_labels()[1]
    if layout.showlegend is not False and labels:
        ncols = 5 if sum(map(len, labels)) < 70 else 3
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=ncols, frameon=False, fontsize=8)


def _colour_of(text: str) -> str | tuple[float, float, float, float]:
    """Returns a colour as matplotlib reads it, from `#0072B2`, `rgb(0, 114, 178)` or `rgba(0,114,178,0.3)`."""
    if text.startswith("#"):
        return text
    red, green, blue, alpha = (*(float(part) for part in re.findall(r"[\d.]+", text)), 1.0)[:4]
    return red / 255, green / 255, blue / 255, alpha


def _plain(text: str | None) -> str:
    """Returns text with line breaks instead of HTML."""
    return re.sub("<[^>]*>", "", (text or "").replace("<br>", "\n"))


_DRAWERS = {"scatter": _draw_scatter, "bar": _draw_bars}
