"""Weights & Biases: a run per study with a step per trial, and the report as a file.

Settings of wandb apply, such as $WANDB_PROJECT and $WANDB_MODE=offline.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from hilo_nas.tracking.tracker import TrackedStudy

__all__ = ["WandbTracker"]

_PROJECT = "hilo-nas"


class WandbTracker:
    """Tracker that stores the trials of a study as the steps of one run. A resumed study continues its run."""

    def __init__(self) -> None:
        self._run: Any = None

    def start(self, study: TrackedStudy) -> bool:
        """Starts or resumes the run of the study. Returns True if wandb resumed it, which it cannot do offline."""
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or _PROJECT,
            id=study.key,
            name=study.name,
            resume="allow",
            config=dict(study.settings),
        )
        self._run.define_metric("*", step_metric="number")
        return bool(self._run.resumed)

    def log_trial(self, row: Mapping[str, Any]) -> None:
        """Stores a trial as one step, with `number` as the step."""
        self._run.log(dict(row))

    def finish(self, report: Path | None) -> None:
        """Stores the report as a file of the run, and ends the run."""
        if report is not None:
            shutil.copy(report, Path(self._run.dir) / report.name)  # wandb uploads the files of this folder
        self._run.finish()
