"""Interface of trackers, and their registry."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from hilo_nas.errors import UsageError

__all__ = ["TRACKERS", "TrackedStudy", "Tracker", "build_tracker"]

TRACKERS: Mapping[str, str] = {
    "mlflow": "hilo_nas.tracking.mlflow_tracker:MlflowTracker",
    "wandb": "hilo_nas.tracking.wandb_tracker:WandbTracker",
}
"""Class of each tracker, as `module:class`, by the name of its library, which is that of the extra that installs it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackedStudy:
    """Study as a tracker sees it."""

    name: str
    key: str
    """Hash of the study's name and creation time. It stays the same when a search resumes the study."""
    settings: Mapping[str, str]
    """Conditions of the study as text, by name."""


class Tracker(Protocol):
    """Receiver of the trials of one study."""

    def start(self, study: TrackedStudy) -> bool:
        """Opens the study in the tracker. Returns True if the tracker has it from an earlier search."""

    def log_trial(self, row: Mapping[str, Any]) -> None:
        """Stores one trial that ended: its values by the names of the columns of `trials.csv`, without empty ones."""

    def finish(self, report: Path | None) -> None:
        """Stores the report as a file, if there is one, and closes the study."""


def build_tracker(name: str) -> Tracker:
    """Returns a tracker by name.

    Raises:
        UsageError: There is no such tracker, or its library is not installed.
    """
    if name not in TRACKERS:
        raise UsageError(f"study.track must be one of {', '.join(TRACKERS)}, but got {name!r}")
    if importlib.util.find_spec(name) is None:
        raise UsageError(
            f"study.track={name} needs the library {name}, which is not installed. Use pip install 'hilo-nas[{name}]'."
        )
    module, _, kind = TRACKERS[name].partition(":")
    tracker: Tracker = getattr(importlib.import_module(module), kind)()
    return tracker
