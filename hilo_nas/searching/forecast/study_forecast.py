"""Posteriors of a study, computed from its records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random

import numpy as np

from hilo_nas.clock import utc_now
from hilo_nas.errors import SpaceExhaustedError
from hilo_nas.measurement.intervals import Z95
from hilo_nas.searching.sampling.candidates import (
    Candidate,
    CandidateSource,
    forecast_candidates,
    list_best,
)
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.posteriors import Believed, Outlook, Posteriors, PredictedNetwork, hash_results
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.surrogate.features import describe_network
from hilo_nas.surrogate.observations import know_networks
from hilo_nas.surrogate.outlook import expect_gains
from hilo_nas.surrogate.search_model import Forecast, SearchModel

__all__ = ["build_source", "forecast_study"]

_PREDICTED = 40
"""Maximum number of predicted networks."""
_LIKELY = 0.5
"""Minimum probability that a predicted network is feasible."""
_NETWORKS = (5, 10, 20, 40)
"""Numbers of further trainings whose gain is predicted."""
_DRAWN = 200
"""Number of networks with the largest gains from which further trainings are chosen."""
_DRAWS = 64


def forecast_study(
    records: Sequence[TrialRecord], manifest: Manifest, source: CandidateSource | None = None
) -> Posteriors | None:
    """Returns the posteriors of a study. None if too few networks are timed or trained, or if it has no scores.

    Took 3 s with 10 networks and 5 s with 100 on two busy cores, most of it for the candidates.

    Args:
        records: All records of the study.
        manifest: Its manifest.
        source: Source of candidates (`build_source`), if several calls share it. It takes most of the time.
    """
    source = source or build_source(records, manifest)
    if source is None:
        return None
    model = source.fit(
        know_networks(records, manifest),
        chance=manifest.guessing_score,
        min_images_per_s=manifest.limits_in_force.get("images_per_s"),
    )
    if model is None:
        return None
    networks = [record for record in records if record.arch is not None]
    believed = {
        record.key: Believed(value=float(value), standard_error=float(sd))
        for record, value, sd in zip(networks, model.known.value, model.known_value_sd, strict=True)
        if record.state == TrialState.COMPLETE
    }
    tried = {record.key for record in networks if not record.is_open}
    best = list_best(model.known, [record.params for record in networks])
    try:
        candidates = source.list_new(best, is_known=tried.__contains__, random=Random(f"{manifest.seed}/forecast"))
    except SpaceExhaustedError:
        candidates = []
    forecast = forecast_candidates(model, candidates) if candidates else None
    trained = [row for row, record in enumerate(networks) if record.state == TrialState.COMPLETE]
    return Posteriors(
        results_hash=hash_results(records, manifest),
        written_at=utc_now(),
        believed=believed,
        predicted=() if forecast is None else _list_predicted(candidates, forecast, model, trained),
        outlook=() if forecast is None else _predict_gains(candidates, forecast, model, networks, trained, manifest),
    )


def build_source(records: Sequence[TrialRecord], manifest: Manifest) -> CandidateSource | None:
    """Returns the source of the candidates of a study. None if it has no scores or no knobs."""
    if not manifest.plan.declaration.gives_scores or not manifest.space.dimensions:
        return None
    return CandidateSource.of(manifest, _list_pool(records, manifest))


def _list_pool(records: Sequence[TrialRecord], manifest: Manifest) -> list[dict[str, int]] | None:
    """Returns the only networks that can be tried: those whose timings were copied. None for the whole space."""
    if manifest.speeds is None:
        return None
    return [record.params for record in records if record.state == TrialState.TIMED and record.params is not None]


def _list_predicted(
    candidates: Sequence[Candidate], forecast: Forecast, model: SearchModel, trained: Sequence[int]
) -> tuple[PredictedNetwork, ...]:
    """Returns the networks that no trained or other predicted network dominates by predicted speed and value."""
    known = model.known
    points = [(float(known.speed[row]), float(known.value[row]), -1) for row in trained]
    points += [
        (float(forecast.speed[m]), float(forecast.value[m]), m)
        for m in range(len(candidates))
        if forecast.feasible[m] >= _LIKELY
    ]
    found, highest = [], -math.inf
    for speed, value, m in sorted(points, key=lambda point: (-point[0], -point[1])):
        if value > highest and speed > model.ref_point[0]:
            highest = value
            if m >= 0:
                found.append(m)
    gain = model.gain(forecast)
    likely = sorted(found, key=lambda m: -float(gain[m]))[:_PREDICTED]
    return tuple(_predict(candidates[m], forecast, m) for m in found if m in likely)


def _predict(candidate: Candidate, forecast: Forecast, m: int) -> PredictedNetwork:
    speed, speed_half = float(forecast.speed[m]), Z95 * float(forecast.speed_sd[m])
    value, value_half = float(forecast.value[m]), Z95 * float(forecast.value_sd[m])
    return PredictedNetwork(
        key=candidate.key,
        params=dict(candidate.params),
        images_per_s=math.exp(speed),
        images_per_s_low=math.exp(speed - speed_half),
        images_per_s_high=math.exp(speed + speed_half),
        is_timed=bool(forecast.is_timed[m]),
        value=value,
        value_low=value - value_half,
        value_high=value + value_half,
        feasible_probability=float(forecast.feasible[m]),
    )


def _predict_gains(
    candidates: Sequence[Candidate],
    forecast: Forecast,
    model: SearchModel,
    networks: Sequence[TrialRecord],
    trained: Sequence[int],
    manifest: Manifest,
) -> tuple[Outlook, ...]:
    """Returns the expected gains of further trainings; none if no network is trained."""
    if not trained:
        return ()
    chosen = np.argsort(-model.gain(forecast), kind="stable")[:_DRAWN]
    generator = np.random.default_rng(manifest.seed)
    described = [
        describe_network(arch, manifest.objective.img_size, manifest.data.num_classes)
        for row in trained
        if (arch := networks[row].arch) is not None
    ]
    drawn = model.draw_values([*described, *(candidates[m].features for m in chosen)], _DRAWS, generator)
    shape = (_DRAWS, len(chosen))
    speed_DM = forecast.speed[chosen] + forecast.speed_sd[chosen] * generator.standard_normal(shape)
    is_feasible_DM = generator.random(shape) < forecast.feasible[chosen]
    value_DM = np.where(is_feasible_DM, drawn[:, len(trained) :], -math.inf)
    speeds = model.known.speed[np.array(trained)]
    gains = expect_gains(speeds, drawn[:, : len(trained)], speed_DM, value_DM, model.ref_point, max(_NETWORKS))
    if not gains:
        return ()
    counts = [count for count in _NETWORKS if count <= len(gains)] or [len(gains)]
    return tuple(
        Outlook(
            networks=count,
            hypervolume_gain=gains[count - 1].hypervolume,
            value_gain=max(gains[count - 1].value, 0.0),
            images_per_s=math.exp(gains[count - 1].log_speed),
        )
        for count in counts
    )
