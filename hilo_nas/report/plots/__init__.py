"""Plots of studies as plotly figures.

Each takes studies as `StudyView`. `Study.plot_front()` and the other methods of `hilo_nas.Study` are shorter.
`static_figure.render_static` draws a figure with matplotlib.
"""

from hilo_nas.report.plots.front_plot import plot_front
from hilo_nas.report.plots.hypervolume_plot import plot_hypervolume
from hilo_nas.report.plots.importances_plot import plot_importances
from hilo_nas.report.plots.parallel_plot import plot_parallel
from hilo_nas.report.plots.timeline_plot import plot_timeline

__all__ = ["plot_front", "plot_hypervolume", "plot_importances", "plot_parallel", "plot_timeline"]
