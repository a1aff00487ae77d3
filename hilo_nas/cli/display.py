"""Progress of a running search: a live display on a terminal, or one line per event elsewhere."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.markup import escape

from hilo_nas.cli.console import IS_QUIET, build_console
from hilo_nas.cli.live_view import LiveView
from hilo_nas.data.summary import DataSummary
from hilo_nas.events import (
    BenchStepped,
    Calibrated,
    CalibrationChanged,
    CohortTimed,
    ConfirmationForeseen,
    CostForeseen,
    DataRead,
    DeviceAwaited,
    Event,
    LimitsForeseen,
    NetworkPrepared,
    NetworksTimed,
    Notice,
    OtherProxyScored,
    SearchPlanned,
    SearchStarted,
    SeedScored,
    TrialFinished,
)
from hilo_nas.proxy.kinds import metric_named
from hilo_nas.study.states import TrialState
from hilo_nas.text.durations import duration
from hilo_nas.text.figures import figure

__all__ = ["build_display", "show_progress"]


class Display(Protocol):
    """Receiver of events."""

    def __call__(self, event: Event) -> None:
        """Shows the event."""


@contextlib.contextmanager
def build_display(console: Console, *, shows_networks: bool = False) -> Iterator[Display]:
    """Yields a receiver that shows events: live on a terminal, else as lines. If `IS_QUIET`, shows warnings only.

    A live view moves the cursor by escape codes, so a terminal without colours (`NO_COLOR`) gets lines as well.

    Args:
        console: Console to print on.
        shows_networks: True for a line about each network that is ready to be timed, if events are shown as lines.
    """
    if IS_QUIET.get() or not console.is_terminal or os.environ.get("NO_COLOR"):
        lines = _line_with_networks if shows_networks else _line
        yield _Lines(console, _warning if IS_QUIET.get() else lines)
        return
    display = LiveView(console, _line)
    with Live(console=console, get_renderable=display.render, refresh_per_second=4, transient=True):
        yield display


@contextlib.contextmanager
def show_progress() -> Iterator[Display]:
    """Yields a receiver that shows events: live on a terminal, as lines in a notebook or a pipe.

    Examples:
        >>> with hilo_nas.show_progress() as on_event:
        ...     study = hilo_nas.search("litv2_digits", study="first", on_event=on_event)
    """
    with build_display(build_console()) as display:
        yield display


class _Lines:
    """Prints one line per event, except for events without a line.

    Args:
        console: Console to print on.
        line: Function that returns an event as a line with markup, or None.
    """

    def __init__(self, console: Console, line: Callable[[Event], str | None]) -> None:
        self._console, self._line = console, line

    def __call__(self, event: Event) -> None:
        text = self._line(event)
        if text:
            self._console.print(text, soft_wrap=True, markup=True)


def _warning(event: Event) -> str | None:
    """Returns a warning as text with markup; None for other events."""
    if isinstance(event, Notice) and event.level == "warning":
        return f"[yellow]warning:[/] {escape(event.text)}"
    if isinstance(event, CohortTimed) and event.verdict != "steady":
        return f"[yellow]warning:[/] {escape(event.text)}"
    return None


def _line(event: Event) -> str | None:
    """Returns an event as text with markup; None for events that are too frequent for a line."""
    if isinstance(event, Notice):
        return _warning(event) or escape(event.text)
    if isinstance(event, DataRead):
        first, *rest = DataSummary.from_dict(event.summary).to_lines()
        return escape("\n".join([first, *(f"  {line}" for line in rest)]))
    if isinstance(event, DeviceAwaited):
        holders = "; ".join(event.holders) or "another process"
        return escape(f"waiting for {event.device}: {holders}")
    if isinstance(event, BenchStepped):
        return escape(f"{event.done + 1}/{event.total} {event.text}")
    if isinstance(event, Calibrated):
        return escape(f"reference (resnet18) at {event.condition}: {event.images_per_s:,.0f} images/s")
    if isinstance(event, CalibrationChanged):
        return escape(
            f"reference (resnet18) at {event.condition}: recalibrated from {event.old_images_per_s:,.0f} to "
            f"{event.images_per_s:,.0f} images/s; all images/s change by {event.ratio:.3g}x, and limits are checked "
            "again"
        )
    if isinstance(event, LimitsForeseen):
        return escape(_limit_estimate(event))
    if isinstance(event, SearchPlanned):
        lines = (f"planned: {event.trials} trials in about {duration(event.total_s)}", *event.reasons)
        return escape("\n  ".join(lines))
    if isinstance(event, NetworksTimed):
        return f"{event.done} of {event.total} networks timed"
    if isinstance(event, CostForeseen):
        text = f"{event.trials} networks will take about {duration(event.total_s)}"
        return text if event.tried is None else f"{text} (first estimate, from {event.tried} network)"
    if isinstance(event, ConfirmationForeseen):
        return (
            f"confirming {event.networks} networks with further seeds: {event.trainings} trainings, "
            f"about {duration(event.seconds)}"
        )
    if isinstance(event, SeedScored):
        score_text = _score_text(event.metric, event.value)
        return f"{event.done}/{event.total} trial {event.number}, seed {event.seed}: {score_text}"
    if isinstance(event, OtherProxyScored):
        return f"{event.done}/{event.total} trial {event.number}: {escape(event.proxy)} {event.value:.4g}"
    if isinstance(event, CohortTimed):
        text = f"{event.networks} networks timed side by side at {event.condition} in {duration(event.seconds)}"
        return "\n".join(filter(None, [escape(f"{text}: {event.verdict}"), _warning(event)]))
    if isinstance(event, SearchStarted):
        return escape(f"study {event.study} on {event.device}: {event.done} of {event.total} networks measured")
    if isinstance(event, TrialFinished):
        count = f"{event.measured}/{event.total}"
        head = escape(f"trial {event.number:>3} ({count}) {event.network or event.key}")
        if TrialState(event.state).is_scored:
            speed, score = event.images_per_s or 0.0, _score_text(event.metric, event.value or 0.0, width=7)
            verdict = f" ({event.verdict})" if event.verdict not in (None, "steady") else ""
            return f"{head}  {figure(speed):>8} images/s{verdict}  {score}  {duration(event.seconds)}" + (
                f"  stopped: {escape(event.reason or '')}" * (event.state == TrialState.STOPPED)
            )
        return f"{head}  {event.state}: {escape(event.reason or '')}"
    return None


def _line_with_networks(event: Event) -> str | None:
    """Returns an event as text with markup, as `_line` does. Networks that are ready to be timed have a line too."""
    if isinstance(event, NetworkPrepared):
        return escape(f"{event.done}/{event.total} {event.name} is ready to be timed")
    return _line(event)


def _score_text(metric: str, score: float, width: int = 0) -> str:
    """Returns a score with its label, as markup."""
    found = metric_named(metric)
    return f"{escape(found.label)} {found.text(score):>{width}}"


def _limit_estimate(event: LimitsForeseen) -> str:
    """Returns a sentence with the share of networks that meet the limits."""
    limits, seen = " and ".join(event.limits), "; ".join(event.seen)
    timed = "timed briefly" if event.timed_by is None else f"timed by study {event.timed_by}"
    if event.keeping:
        return (
            f"{limits}: met by {event.keeping} of {event.networks} sampled networks, {timed} "
            f"({event.share_low:.0%} to {event.share_high:.0%} of the space); measured {seen}"
        )
    if event.smallest_keeps:
        return (
            f"{limits}: met by none of {event.networks} sampled networks, but by the smallest of the space "
            f"(at most {event.share_high:.0%} of the space); measured {seen}"
        )
    return (
        f"{limits}: met by none of {event.networks} sampled networks, {timed}, and not by the smallest of the space; "
        f"measured {seen}. It is unlikely that a network meets it. Loosen the limit, or search a space with smaller "
        "networks."
    )
