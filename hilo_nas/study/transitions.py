"""Transitions between trial states. No other module changes the state of a trial."""

from __future__ import annotations

import dataclasses
from typing import Any

from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState

__all__ = [
    "begin",
    "complete",
    "fail",
    "interrupt",
    "mark_raised",
    "mark_timed",
    "queue",
    "readmit",
    "rule_out",
    "stop",
]


def queue(record: TrialRecord, **changes: Any) -> TrialRecord:
    """Returns the record as queued. Queued networks run before the sampler proposes further ones."""
    return _move(record, TrialState.WAITING, reason=None, **changes)


def begin(record: TrialRecord, **changes: Any) -> TrialRecord:
    """Returns the record as running. A trial that starts again keeps its number, measurements and scores."""
    return _move(record, TrialState.RUNNING, reason=None, imputed={}, finished_at=None, **changes)


def mark_timed(record: TrialRecord, **changes: Any) -> TrialRecord:
    """Returns the record of a network that was timed and is not trained."""
    return _move(record, TrialState.TIMED, reason=None, **changes)


def complete(record: TrialRecord, **changes: Any) -> TrialRecord:
    """Returns the record as complete at the full budget."""
    return _move(record, TrialState.COMPLETE, reason=None, imputed={}, **changes)


def stop(record: TrialRecord, reason: str, **changes: Any) -> TrialRecord:
    """Returns the record as stopped at a rung."""
    return _move(record, TrialState.STOPPED, reason=reason, **changes)


def rule_out(record: TrialRecord, reason: str, **changes: Any) -> TrialRecord:
    """Returns the record as infeasible because it violates a limit."""
    return _move(record, TrialState.INFEASIBLE, reason=reason, **changes)


def fail(record: TrialRecord, reason: str, **changes: Any) -> TrialRecord:
    """Returns the record as failed because of its network. The trial does not run again."""
    return _move(record, TrialState.FAILED, reason=reason, **changes)


def interrupt(record: TrialRecord, reason: str = "", **changes: Any) -> TrialRecord:
    """Returns the record as failed for a reason unrelated to its network. The trial runs again later."""
    text = "interrupted before it finished" + f": {reason}" * bool(reason)
    return dataclasses.replace(_move(record, TrialState.FAILED, reason=text, **changes), is_interrupted=True)


def mark_raised(record: TrialRecord) -> TrialRecord:
    """Returns a scored record that must run again under the same number because the budget was raised."""
    marked = _move(record, TrialState.STOPPED, reason="must be trained further because the budget was raised")
    return dataclasses.replace(marked, is_raised=True)


def readmit(record: TrialRecord, since: str) -> TrialRecord:
    """Returns an infeasible record as feasible again.

    The result is complete or stopped, depending on its training. Without a score, the trial runs again.

    Args:
        record: The record.
        since: Clause that explains the change, such as "it was timed again".
    """
    if not record.scores:
        return interrupt(record, f"it is within the limits since {since}, but not trained yet")
    if "value" in record.imputed:  # its training ended at a rung
        return stop(record, f"others did better at its rung; it is within the limits since {since}")
    return complete(record)


def _move(record: TrialRecord, state: TrialState, *, reason: str | None, **changes: Any) -> TrialRecord:
    """Returns the record in another state, without the marks of the previous state."""
    return dataclasses.replace(record, state=state, reason=reason, is_interrupted=False, is_raised=False, **changes)
