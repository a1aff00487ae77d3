"""Trial states."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["TrialState"]


class TrialState(StrEnum):
    """State of a trial."""

    WAITING = "waiting"
    """Queued: runs before the sampler proposes further networks. Copied from another study or named by the user."""
    RUNNING = "running"
    """In progress. A killed search leaves such trials, and the next search closes them."""
    TIMED = "timed"
    """Timed but not trained. A search that trains can select it."""
    COMPLETE = "complete"
    """Scored at the full budget."""
    STOPPED = "stopped"
    """Timed, and trained up to a rung at which others did better."""
    INFEASIBLE = "infeasible"
    """Violates a limit of the study."""
    FAILED = "failed"
    """Ended by an error, or interrupted (`TrialRecord.is_interrupted`)."""

    @property
    def is_measured(self) -> bool:
        """True if the trial is complete, stopped or infeasible."""
        return self in (TrialState.COMPLETE, TrialState.STOPPED, TrialState.INFEASIBLE)

    @property
    def is_scored(self) -> bool:
        """True if the proxy scored the network, at a rung or at the full budget."""
        return self in (TrialState.COMPLETE, TrialState.STOPPED)
