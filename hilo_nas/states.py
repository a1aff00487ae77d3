"""Trial states and the transitions between them: the only place where the state of a trial changes."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hilo_nas.records import TrialRecord

__all__ = [
    "TrialState",
    "complete",
    "fail",
    "interrupt",
    "mark_raised",
    "readmit",
    "rule_out",
    "stop",
]


class TrialState(StrEnum):
    """State of a trial."""

    RUNNING = "running"
    """Under way; a killed search leaves it behind and the next one closes it."""
    TIMED = "timed"
    """Timed only: in a table of speeds (`hilo_nas.speeds`)."""
    COMPLETE = "complete"
    """Scored at the full budget."""
    STOPPED = "stopped"
    """Timed, and trained up to a rung where others did better."""
    INFEASIBLE = "infeasible"
    """Beyond a limit of the study."""
    FAILED = "failed"
    """Ended by an error, or interrupted (`TrialRecord.is_interrupted`)."""

    @property
    def is_measured(self) -> bool:
        """Whether the trial ended and did not fail."""
        return self in (TrialState.COMPLETE, TrialState.STOPPED, TrialState.INFEASIBLE)

    @property
    def is_scored(self) -> bool:
        """Whether the proxy scored the network, at a rung or at the full budget."""
        return self in (TrialState.COMPLETE, TrialState.STOPPED)


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
    """Ends a trial through no fault of its network, which is due again under another number."""
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
    if "proxy_top1" in record.imputed:  # its training ended at a rung
        return stop(record, f"others did better at its rung; it keeps the limits since {since}")
    return complete(record)


def _move(record: TrialRecord, state: TrialState, *, reason: str | None, **changes: Any) -> TrialRecord:
    """Returns the record in another state; marks of an earlier one are taken off."""
    return dataclasses.replace(record, state=state, reason=reason, is_interrupted=False, is_raised=False, **changes)
