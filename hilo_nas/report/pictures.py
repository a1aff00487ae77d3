"""Plots of results as SVG. They need matplotlib, which the extra `plot` of this package installs."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hilo_nas.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Cloud", "TauBar", "can_draw", "render_agreement"]

_OVERALL, _LIKE = "#4c72b0", "#dd8452"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TauBar:
    """A row of the plot: Kendall's tau with its interval, over all pairs and over pairs of similar speed."""

    name: str
    overall: tuple[float, float, float]
    """Tau over all pairs: value, lower end and upper end. NaN is not drawn."""
    like_speed: tuple[float, float, float]
    """Tau over pairs of networks with similar speeds: value, lower end and upper end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cloud:
    """Top-1 of each network after one budget and after the long training, in [0, 1]."""

    name: str
    long_top1: Sequence[float]
    values: Sequence[float]


def can_draw() -> bool:
    """Returns True if matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def render_agreement(
    bars: Sequence[TauBar], clouds: Sequence[Cloud], *, ceiling: TauBar | None = None, title: str
) -> str:
    """Returns an SVG with the taus of each proxy, and with top-1 after each budget against top-1 of the long training.

    Args:
        bars: Rows of the first panel, from the top.
        clouds: Point sets of the second panel. If empty, the panel is left out.
        ceiling: Noise ceiling. Its two values are drawn as vertical lines.
        title: Title of the figure.

    Raises:
        UsageError: matplotlib is not installed.
    """
    if not can_draw():
        raise UsageError("a plot needs matplotlib, which is not installed. Use pip install 'hilo-nas[plot]'.")
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # Keep text as text, which is smaller and searchable. A fixed salt makes files reproducible byte by byte.
    with matplotlib.rc_context({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "hilo-nas"}):
        width = 11.0 if clouds else 6.5
        figure = Figure(figsize=(width, max(3.6, 1.4 + 0.34 * len(bars))), layout="constrained")
        FigureCanvasSVG(figure)
        figure.suptitle(title)
        panels = figure.subplots(1, 2 if clouds else 1, squeeze=False)[0]
        _draw_taus(panels[0], bars, ceiling)
        if clouds:
            _draw_clouds(panels[1], clouds)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _draw_taus(axes: Axes, bars: Sequence[TauBar], ceiling: TauBar | None) -> None:
    for field, colour, label, shift in (
        ("overall", _OVERALL, "all pairs", -0.14),
        ("like_speed", _LIKE, "pairs of similar speed", 0.14),
    ):
        places = [i + shift for i in range(len(bars))]
        values, lows, highs = zip(*(getattr(bar, field) for bar in bars), strict=True)
        axes.hlines(places, lows, highs, color=colour, linewidth=1.6)
        axes.plot(values, places, "o", color=colour, markersize=4, label=label)
        limit = getattr(ceiling, field)[0] if ceiling else math.nan
        if not math.isnan(limit):
            axes.axvline(limit, color=colour, linestyle="--", linewidth=1, label=f"noise ceiling, {label}")
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.set_yticks(range(len(bars)), [bar.name for bar in bars])
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlabel("Kendall's tau to the long training, 95 % intervals")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)


def _draw_clouds(axes: Axes, clouds: Sequence[Cloud]) -> None:
    for cloud in clouds:
        axes.plot(
            [100 * value for value in cloud.long_top1],
            [100 * value for value in cloud.values],
            "o",
            markersize=3.5,
            alpha=0.75,
            label=cloud.name,
        )
    axes.set_xlabel("top-1 of the long training, %")
    axes.set_ylabel("top-1 of the proxy, %")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False)
