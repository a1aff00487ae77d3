"""Error and calibration of the models of the sampler hilo, on the networks of a table that a search has not tried."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from benchmarks.tables.table import Table
from hilo_nas.searching.sampling.candidates import CandidateSource, forecast_candidates
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord
from hilo_nas.surrogate.observations import know_networks

__all__ = ["ModelCheck", "check_models"]

_QUANTILES = {80: 1.2816, 95: 1.9600}
_Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelCheck:
    """Models of a search after a number of trainings, compared with the table. NaN if no network is left to compare."""

    trained: int
    timed: int
    """Number of networks timed so far, in full or briefly."""
    value_error: float
    """Root mean square error of the predicted values of networks that were not trained."""
    value_held_80: float
    """Share of their values within the predicted 80 % intervals. These include the noise of a training."""
    value_held_95: float
    tau: float
    """Kendall's tau between their predicted values and those of the table."""
    tau_params: float
    tau_macs: float
    speed_error: float
    """Root mean square error of the log images/s of networks that were not timed."""
    speed_held_80: float
    """Share of their log images/s within the predicted 80 % intervals. These include the error of the timing."""
    speed_held_95: float


def check_models(records: Sequence[TrialRecord], manifest: Manifest, table: Table) -> ModelCheck | None:
    """Returns the check of the models of a search. None if too few networks are trained.

    Args:
        records: Records of the search.
        manifest: Its manifest.
        table: Table with all networks.
    """
    source = CandidateSource.of(manifest, [row.params for row in table.rows])
    model = source.fit(know_networks(records, manifest), chance=manifest.guessing_score, min_images_per_s=None)
    if model is None:
        return None
    forecast = forecast_candidates(model, source.pool)
    rows = [table.by_key[own.key] for own in source.pool]
    trained = {record.key for record in records if record.scores}
    timed = {record.key for record in records if record.measurements}
    is_new = np.array([row.key not in trained for row in rows])
    is_untimed = np.array([row.key not in timed for row in rows])
    values = np.array([row.judged_top1(table.budgets[-1]) for row in rows])
    speeds = np.log([row.images_per_s for row in rows])
    errors = np.array(
        [
            0.0
            if row.images_per_s_low is None or row.images_per_s_high is None
            else (row.images_per_s_high - row.images_per_s_low) / 2 / _QUANTILES[95] / row.images_per_s
            for row in rows
        ]
    )
    value_sd = np.hypot(forecast.value_sd, model.score_sd)
    speed_sd = np.hypot(forecast.speed_sd, errors)
    return ModelCheck(
        trained=len(trained),
        timed=len(timed),
        value_error=_error(forecast.value, values, is_new),
        value_held_80=_held(forecast.value, values, value_sd, is_new, 80),
        value_held_95=_held(forecast.value, values, value_sd, is_new, 95),
        tau=_tau(forecast.value, values, is_new),
        tau_params=_tau(np.array([row.parameters for row in rows], float), values, is_new),
        tau_macs=_tau(np.array([row.macs for row in rows], float), values, is_new),
        speed_error=_error(forecast.speed, speeds, is_untimed),
        speed_held_80=_held(forecast.speed, speeds, speed_sd, is_untimed, 80),
        speed_held_95=_held(forecast.speed, speeds, speed_sd, is_untimed, 95),
    )


def _error(predicted: _Floats, true: _Floats, chosen: NDArray[np.bool_]) -> float:
    return float(np.sqrt(np.square(predicted - true)[chosen].mean())) if chosen.any() else math.nan


def _held(predicted: _Floats, true: _Floats, sd: _Floats, chosen: NDArray[np.bool_], share: int) -> float:
    within = np.abs(predicted - true) <= _QUANTILES[share] * sd
    return float(within[chosen].mean()) if chosen.any() else math.nan


def _tau(predicted: _Floats, true: _Floats, chosen: NDArray[np.bool_]) -> float:
    return float(kendalltau(predicted[chosen], true[chosen]).statistic)
