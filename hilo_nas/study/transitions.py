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
    """Returns a copy of the record in state WAITING. Its trial runs before the sampler proposes further networks."""
    return _move(record, TrialState.WAITING, reason=None, **changes)


def begin(record: TrialRecord, **changes: Any) -> TrialRecord:
    """Returns a copy of the record in state RUNNING. A trial that starts again keeps its number, timings and scores."""
    return _move(record, TrialState.RUNNING, reason=None, imputed={}, finished_at=None, **changes)


def mark_timed(record: TrialRecord, **changes: Any) -> TrialRecord:
    """Returns a copy of the record in state TIMED: the network was timed and is not trained."""
    return _move(record, TrialState.TIMED, reason=None, **changes)


def complete(record: TrialRecord, **changes: Any) -> TrialRecord:
    """Returns a copy of the record in state COMPLETE: the network was scored at the full budget."""
    return _move(record, TrialState.COMPLETE, reason=None, imputed={}, **changes)


def stop(record: TrialRecord, reason: str, **changes: Any) -> TrialRecord:
    """Returns a copy of the record in state STOPPED: the training of the network ended at a rung."""
    return _move(record, TrialState.STOPPED, reason=reason, **changes)


def rule_out(record: TrialRecord, reason: str, **changes: Any) -> TrialRecord:
    """Returns a copy of the record in state INFEASIBLE: the network violates a limit."""
    return _move(record, TrialState.INFEASIBLE, reason=reason, **changes)


def fail(record: TrialRecord, reason: str, **changes: Any) -> TrialRecord:
    """Returns a copy of the record in state FAILED: the network itself caused the failure, which is counted.

    The trial does not run again.
    """
    return _move(record, TrialState.FAILED, reason=reason, failures=record.failures + 1, **changes)


def interrupt(record: TrialRecord, reason: str = "", **changes: Any) -> TrialRecord:
    """Returns a copy of the record in state FAILED, marked as interrupted (`TrialRecord.is_interrupted`).

    The cause is unrelated to the network, for example a signal. The next search runs the trial again.
    """
    text = "interrupted before it finished" + f": {reason}" * bool(reason)
    return dataclasses.replace(_move(record, TrialState.FAILED, reason=text, **changes), is_interrupted=True)


def mark_raised(record: TrialRecord) -> TrialRecord:
    """Returns a copy of a scored record in state STOPPED, marked to run again (`TrialRecord.is_raised`).

    The trial runs again under the same number because the training budget of the study was raised.
    """
    marked = _move(record, TrialState.STOPPED, reason="must be trained further because the budget was raised")
    return dataclasses.replace(marked, is_raised=True)


def readmit(record: TrialRecord, since: str) -> TrialRecord:
    """Returns a copy of an INFEASIBLE record whose network is within all limits again.

    The new state is COMPLETE if the network was fully trained, and STOPPED if its training ended at a rung. Without a
    score, the state is FAILED and marked as interrupted, so the next search runs the trial again.

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
    """Returns a copy of the record in another state. Its `is_interrupted` and `is_raised` are False."""
    return dataclasses.replace(record, state=state, reason=reason, is_interrupted=False, is_raised=False, **changes)
