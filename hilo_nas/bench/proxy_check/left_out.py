"""Error and calibration of the models of a search, from networks that are left out.

The models are those of `hilo_nas.surrogate`. Each network is predicted from the others, so the predictions rank
networks as a search ranks candidates that it has not trained.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord
from hilo_nas.surrogate.features import FeatureScale, describe_network
from hilo_nas.surrogate.network_model import NetworkModel, Observations, compute_kernels

__all__ = ["MODEL", "LeftOut", "leave_out_scores", "leave_out_speeds"]

MODEL = "model"
"""Prefix of the proxy `model@IMAGES`: the score that the model predicts for a network from the scores of the others."""
_LEAST = 8
"""Minimum number of networks."""
_QUANTILES = {0.8: 1.2816, 0.95: 1.9600}
_SPEED_NOISE = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Predictions for networks that were left out, compared with their results."""

    predicted: Mapping[str, float]
    """Predictions by key."""
    error: float
    """Root mean square error."""
    held: Mapping[float, float]
    """Share of the results within the predicted 80 % and 95 % intervals, by the nominal share."""

    def sentence(self, quantity: str, error: str) -> str:
        """Returns a sentence with the error and the shares. An example of a quantity is `top1@4608`."""
        shares = " and ".join(f"{100 * own:.0f} % of the {100 * share:.0f} %" for share, own in self.held.items())
        return (
            f"model of {quantity}: each of {len(self.predicted)} networks predicted from the others, error {error}; "
            f"{shares} intervals hold the result"
        )


def leave_out_scores(records: Sequence[TrialRecord], manifest: Manifest, *, images: int, seed: int) -> LeftOut | None:
    """Returns the predictions of the scores after a number of images. None if fewer than 8 networks have one.

    Args:
        records: Records of the networks.
        manifest: Manifest of their study.
        images: Budget of the scores in training images.
        seed: Training seed of the scores.
    """
    found = {
        record.key: (record, score.value, max(score.standard_error or 0.0, 1e-6))
        for record in records
        for score in record.scores
        if (score.seed, score.images_seen) == (seed, images) and record.arch is not None
    }
    return _leave_out(found, manifest)


def leave_out_speeds(records: Sequence[TrialRecord], manifest: Manifest) -> LeftOut | None:
    """Returns the predictions of log images/s. None if fewer than 8 networks were timed."""
    found = {
        record.key: (
            record,
            math.log(timing.images_per_s),
            max(timing.half_width / timing.images_per_s / _QUANTILES[0.95], _SPEED_NOISE),
        )
        for record in records
        if record.arch is not None and (timing := record.measurement) is not None
    }
    return _leave_out(found, manifest)


def _leave_out(found: Mapping[str, tuple[TrialRecord, float, float]], manifest: Manifest) -> LeftOut | None:
    if len(found) < _LEAST:
        return None
    described = [
        describe_network(arch, manifest.objective.img_size, manifest.data.num_classes)
        for record, _, _ in found.values()
        if (arch := record.arch) is not None
    ]
    features = FeatureScale(described).transform(described)
    values = np.array([value for _, value, _ in found.values()])
    noise = [error**2 for _, _, error in found.values()]
    observations = Observations.of_networks(range(len(found)), values.tolist(), noise)
    predicted = NetworkModel(compute_kernels(features, features), observations).leave_one_out()
    return LeftOut(
        predicted=dict(zip(found, predicted.mean.tolist(), strict=True)),
        error=float(np.sqrt(np.mean(np.square(predicted.mean - values)))),
        held={
            share: float(np.mean(np.abs(values - predicted.mean) <= quantile * predicted.sd))
            for share, quantile in _QUANTILES.items()
        },
    )
