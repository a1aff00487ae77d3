"""MLflow: a run per study, and a nested run per trial with its parameters and metrics.

Runs are stored where MLflow's settings say, such as $MLFLOW_TRACKING_URI. The client of `mlflow-skinny` is enough.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from hilo_nas.tracking.tracker import TrackedStudy

__all__ = ["MlflowTracker"]

_EXPERIMENT = "hilo-nas"
_KEY = "hilo_nas.study"
"""Tag of a study's run with the key of the study."""
_MAX_TEXT = 500
"""Maximum length of a parameter that MLflow stores."""


class MlflowTracker:
    """Tracker that stores trials as runs of the experiment `hilo-nas`."""

    def __init__(self) -> None:
        self._client = MlflowClient()
        self._experiment = ""
        self._parent = ""

    def start(self, study: TrackedStudy) -> bool:
        """Finds the run of the study, or creates it. Returns True if it was found."""
        found = self._client.get_experiment_by_name(_EXPERIMENT)
        self._experiment = found.experiment_id if found else self._client.create_experiment(_EXPERIMENT)
        runs = self._client.search_runs([self._experiment], f"tags.`{_KEY}` = '{study.key}'", max_results=1)
        if runs:
            self._parent = runs[0].info.run_id
            return True
        tags = {_KEY: study.key}
        self._parent = self._client.create_run(self._experiment, run_name=study.name, tags=tags).info.run_id
        params = [Param(name, text[:_MAX_TEXT]) for name, text in study.settings.items()]
        self._client.log_batch(self._parent, params=params)
        return False

    def log_trial(self, row: Mapping[str, Any]) -> None:
        """Stores a trial as a nested run: numbers as metrics, text as parameters."""
        name = f"trial {row['number']}"
        tags = {"mlflow.parentRunId": self._parent}
        run = self._client.create_run(self._experiment, run_name=name, tags=tags).info.run_id
        now = int(time.time() * 1000)
        metrics = [Metric(_safe(key), float(value), now, 0) for key, value in row.items() if _is_metric(key, value)]
        params = [Param(_safe(key), str(value)[:_MAX_TEXT]) for key, value in row.items() if not _is_metric(key, value)]
        self._client.log_batch(run, metrics=metrics, params=params, tags=[RunTag("state", str(row["state"]))])
        self._client.set_terminated(run)

    def finish(self, report: Path | None) -> None:
        """Stores the report as an artifact of the study's run, and ends the run."""
        if report is not None:
            self._client.log_artifact(self._parent, str(report))
        self._client.set_terminated(self._parent)


def _is_metric(name: str, value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and name != "patch_size"


def _safe(name: str) -> str:
    """Returns a name without the characters that MLflow refuses."""
    return name.replace("@", " at ").replace("=", "-")
