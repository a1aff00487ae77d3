"""Experiment trackers: a copy of each trial in MLflow or Weights & Biases.

The records of the study stay the source of truth. A tracker receives trials and the final report, and is never read.
"""

from hilo_nas.tracking.tracked_events import TrackedEvents
from hilo_nas.tracking.tracker import TRACKERS, TrackedStudy, Tracker, build_tracker

__all__ = ["TRACKERS", "TrackedEvents", "TrackedStudy", "Tracker", "build_tracker"]
