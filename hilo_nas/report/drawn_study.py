"""Studies with methods that draw them. Importing this module does not import plotly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilo_nas.study.stored_study import StoredStudy

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from hilo_nas.report.study_view import StudyView

__all__ = ["DrawnStudy"]


class DrawnStudy(StoredStudy):
    """A stored study with its plots as plotly figures, which notebooks show."""

    def plot_front(self, *others: StoredStudy) -> go.Figure:
        """Returns a plotly figure of the front, with all other networks that have a speed.

        Args:
            *others: Further studies on the same axes.

        Raises:
            UsageError: The studies have different metrics.
        """
        from hilo_nas.report.plots import plot_front

        return plot_front(_views(self, *others))

    def plot_hypervolume(self, *others: StoredStudy, over_hours: bool = False) -> go.Figure:
        """Returns a plotly figure of the front's hypervolume after each trial.

        Args:
            *others: Further studies on the same axes.
            over_hours: True for the hours that the trials took, instead of their number.

        Raises:
            UsageError: The studies have different metrics, or one has no complete trial that trained.
        """
        from hilo_nas.report.plots import plot_hypervolume

        return plot_hypervolume(_views(self, *others), over_hours=over_hours)

    def plot_importances(self) -> go.Figure:
        """Returns a plotly figure of the share of the variance that each knob explains, for speed and value (fANOVA).

        Raises:
            UsageError: There are fewer than 10 complete trials.
        """
        from hilo_nas.report.plots import plot_importances

        return plot_importances(*_views(self))

    def plot_parallel(self) -> go.Figure:
        """Returns a plotly figure of knobs, speed and value of each network on parallel axes.

        Raises:
            UsageError: No network has a speed and a value.
        """
        from hilo_nas.report.plots import plot_parallel

        return plot_parallel(*_views(self))

    def plot_timeline(self) -> go.Figure:
        """Returns a plotly figure of the time that each trial spent on timing and training.

        Raises:
            UsageError: There is no trial.
        """
        from hilo_nas.report.plots import plot_timeline

        return plot_timeline(*_views(self))


def _views(*studies: StoredStudy) -> list[StudyView]:
    from hilo_nas.report.study_view import StudyView

    return [StudyView.from_study(study, i) for i, study in enumerate(studies)]
