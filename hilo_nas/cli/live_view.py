"""Live view of a search on a terminal: progress, current trial, and the front as it grows."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hilo_nas.cli.scatter import render_scatter
from hilo_nas.events import (
    CalibrationStarted,
    DataPrepared,
    DeviceAwaited,
    Event,
    FrontChanged,
    NetworkPrepared,
    RoundTimed,
    RungReached,
    SearchStarted,
    TrainingProgressed,
    TrialFinished,
    TrialStarted,
)
from hilo_nas.proxy.kinds import DEFAULT_PROXY, metric_named
from hilo_nas.study.states import TrialState
from hilo_nas.text.durations import duration
from hilo_nas.text.figures import figure

__all__ = ["LiveView"]

_FEWEST_POINTS = 3
"""Minimum number of networks in a scatter plot."""
_OTHER_LINES = 8
"""Lines of the terminal that a scatter plot leaves for the rest."""
_SCATTER_LINES = (5, 14)
"""Minimum and maximum height of a scatter plot."""
_SCATTER_COLUMNS = 100
"""Maximum width of a scatter plot."""


class LiveView:
    """Receiver of events that renders the state of a search.

    Args:
        console: Console to print lines on. Its size limits the scatter plot.
        line: Function that returns an event as a line with markup, or None.
        clock: Function that returns monotonic seconds.
    """

    def __init__(
        self, console: Console, line: Callable[[Event], str | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._line, self._clock = console, line, clock
        self._measured = self._total = self._done_before = 0
        self._states: Counter[str] = Counter()
        self._started = self._finished = clock()
        self._running: dict[int, TrialStarted] = {}
        """Running trials by number: one per device of the search."""
        self._phase = "starting"
        self._share: float | None = None
        self._training_began: tuple[float, int] | None = None
        """Time and number of images at the first progress of a training."""
        self._front: tuple[tuple[float, float], ...] = ()
        self._scored: list[tuple[float, float]] = []
        """Speed and value of each network that was scored in this run."""
        self._metric = DEFAULT_PROXY.metrics[0]

    def __call__(self, event: Event) -> None:
        """Prints the event as a line if it has one, and updates the view."""
        text = self._line(event)
        if text:
            self._console.print(text, markup=True)
        if isinstance(event, SearchStarted):
            self._measured, self._total, self._done_before = event.done, event.total, event.done
            self._states[TrialState.STOPPED] += event.stopped
            self._started = self._finished = self._clock()
            self._metric = metric_named(event.metric)
        elif isinstance(event, TrialStarted):
            self._running[event.number], self._training_began = event, None
            self._show("building")
        elif isinstance(event, TrialFinished):
            self._running.pop(event.number, None)
            self._measured, self._finished, self._training_began = event.measured, self._clock(), None
            self._states[event.state] += 1
            if event.images_per_s is not None and event.value is not None and not event.is_baseline:
                self._scored.append((event.images_per_s, event.value))
        elif isinstance(event, FrontChanged):
            self._front = event.points
        else:
            self._show_progress(event)

    def _show(self, phase: str, share: float | None = None) -> None:
        self._phase, self._share = phase, None if share is None else min(share, 1.0)

    def _show_progress(self, event: Event) -> None:
        """Shows the progress within a trial or before the first one."""
        if isinstance(event, CalibrationStarted):
            self._show(f"timing the reference at {event.condition}")
        elif isinstance(event, DataPrepared):
            self._show(f"decoding images: {event.done:,}", event.done / event.total if event.total else None)
        elif isinstance(event, NetworkPrepared):
            self._show(f"preparing {event.done} of {event.total} networks", event.done / event.total)
        elif isinstance(event, DeviceAwaited):
            self._show(f"waiting for {event.device}")
        elif isinstance(event, RoundTimed):
            self._show(f"timing: {event.images_per_s:,.0f} images/s", event.round / event.rounds)
        elif isinstance(event, TrainingProgressed):
            self._show(f"training: {self._training_text(event)}", event.images_seen / event.images_total)
        elif isinstance(event, RungReached):
            self._training_began = None
            metric = metric_named(event.metric)
            after = f" after {event.images_seen:,} images" if metric.is_share else ""
            decision = ", goes on" if event.goes_on else ""
            self._show(f"scored{after}: {metric.text(event.value)}{decision}")

    def _training_text(self, event: TrainingProgressed) -> str:
        now = self._clock()
        began, seen = self._training_began = self._training_began or (now, event.images_seen)
        total = f" of {event.images_total:,}" if event.images_seen <= event.images_total else ""
        parts = [f"{event.images_seen:,}{total} images"]
        if now > began and event.images_seen > seen:
            parts.append(f"{figure((event.images_seen - seen) / (now - began), 3)} images/s")
        if event.loss is not None:
            parts.append(f"loss {event.loss:.3f}")
        if event.score is not None:
            parts.append(f"score {figure(event.score)}")
        return ", ".join(parts)

    def render(self) -> RenderableType:
        """Returns the current content of the view."""
        rows: list[RenderableType] = []
        if self._total:
            grid = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=self._total, completed=self._measured, width=24)
            grid.add_row("trials", bar, f"{self._measured}/{self._total}", self._counts(), self._time_left())
            rows.append(grid)
        grid = Table.grid(padding=(0, 1))
        if len(self._running) > 1:  # their progress is mixed, because its events do not name the trial
            text, share = f"trials {', '.join(map(str, self._running))}: running", None
        else:
            prefix = "".join(f"trial {own.number} ({_name(own)}): " for own in self._running.values())
            text, share = prefix + self._phase, self._share
        cells: list[RenderableType] = [Text(text, overflow="ellipsis", no_wrap=True)]
        if share is not None:
            cells.append(ProgressBar(completed=share, total=1.0, width=16))
        grid.add_row(*cells)
        rows.append(grid)
        rows += self._front_rows()
        return Group(*rows)

    def _front_rows(self) -> list[RenderableType]:
        """Returns a scatter plot if the terminal has room for it, else the members of the front in one line."""
        width, height = self._console.size
        low, high = _SCATTER_LINES
        others = [point for point in self._scored if point not in self._front]
        if len(others) + len(self._front) >= _FEWEST_POINTS and height >= low + _OTHER_LINES and width >= 40:
            lines = render_scatter(
                others,
                self._front,
                self._metric,
                width=min(width - 1, _SCATTER_COLUMNS),
                height=min(height - _OTHER_LINES, high),
            )
            return [Text(line, no_wrap=True) for line in lines]
        points = "   ".join(f"{figure(speed)}/s {self._metric.text(score)}" for speed, score in reversed(self._front))
        return [Text(f"front: {points}", overflow="ellipsis", no_wrap=True)] if points else []

    def _counts(self) -> str:
        """Returns the numbers of trials that did not end as complete."""
        shown = (TrialState.STOPPED, TrialState.INFEASIBLE, TrialState.FAILED)
        found = [f"{self._states[state]} {state}" for state in shown if self._states[state]]
        return f"({', '.join(found)})" if found else ""

    def _time_left(self) -> str:
        done = self._measured - self._done_before
        if not done:
            return ""
        expected = (self._finished - self._started) / done * (self._total - self._measured)
        return f"about {duration(max(expected - (self._clock() - self._finished), 0))} left"


def _name(event: TrialStarted) -> str:
    """Returns the label of the running network: its number of parameters, such as `5.20 M params`, or its key."""
    return event.key if event.params_m is None else f"{event.params_m:.2f} M params"
