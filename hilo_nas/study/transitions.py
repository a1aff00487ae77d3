"""Transitions between the states of a trial: the only place where a state changes."""

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
    """Puts a network next in turn, before the sampler is asked."""
    return _move(record, TrialState.WAITING, reason=None, **changes)


def begin(record: TrialRecord, **changes: Any) -> TrialRecord:
    """Starts a trial, or starts it again under its number: what was measured and scored before stays."""
    return _move(record, TrialState.RUNNING, reason=None, imputed={}, finished_at=None, **changes)


def mark_timed(record: TrialRecord, **changes: Any) -> TrialRecord:
    """Ends the timing of a network that is not trained."""
    return _move(record, TrialState.TIMED, reason=None, **changes)


def complete(record: TrialRecord, **changes: Any) -> TrialRecord:
    """Ends a trial at its full budget."""
    return _move(record, TrialState.COMPLETE, reason=None, imputed={}, **changes)


def stop(record: TrialRecord, reason: str, **changes: Any) -> TrialRecord:
    """Ends a trial at a rung."""
    return _move(record, TrialState.STOPPED, reason=reason, **changes)


def rule_out(record: TrialRecord, reason: str, **changes: Any) -> TrialRecord:
    """Ends a trial beyond a limit."""
    return _move(record, TrialState.INFEASIBLE, reason=reason, **changes)


def fail(record: TrialRecord, reason: str, **changes: Any) -> TrialRecord:
    """Ends a trial by a fault of its network, which is not tried again."""
    return _move(record, TrialState.FAILED, reason=reason, **changes)


def interrupt(record: TrialRecord, reason: str = "", **changes: Any) -> TrialRecord:
    """Ends a trial through no fault of its network, which is due again."""
    text = "interrupted before it finished" + f": {reason}" * bool(reason)
    return dataclasses.replace(_move(record, TrialState.FAILED, reason=text, **changes), is_interrupted=True)


def mark_raised(record: TrialRecord) -> TrialRecord:
    """Makes a scored trial due again under its own number, because the budget of its study was raised."""
    marked = _move(record, TrialState.STOPPED, reason="due again: the budget was raised")
    return dataclasses.replace(marked, is_raised=True)


def readmit(record: TrialRecord, since: str) -> TrialRecord:
    """Takes back that a trial is infeasible: it ends as it was trained, or is due again where it has no score."""
    if not record.scores:
        return interrupt(record, f"it keeps the limits since {since}, and is still to be trained")
    if "value" in record.imputed:  # its training ended at a rung
        return stop(record, f"others did better at its rung; it keeps the limits since {since}")
    return complete(record)


def _move(record: TrialRecord, state: TrialState, *, reason: str | None, **changes: Any) -> TrialRecord:
    """Returns the record in another state; marks of an earlier one are taken off."""
    return dataclasses.replace(record, state=state, reason=reason, is_interrupted=False, is_raised=False, **changes)
