"""States of a trial."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["TrialState"]


class TrialState(StrEnum):
    """State of a trial."""

    WAITING = "waiting"
    """Next in turn, before the sampler is asked: taken over from another study, or named by the user."""
    RUNNING = "running"
    """Under way; a killed search leaves it behind and the next one closes it."""
    TIMED = "timed"
    """Timed only: it becomes a candidate of a search that trains."""
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
