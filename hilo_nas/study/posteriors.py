"""Posteriors of a study: values of its networks as the models of a search see them, and networks worth training next.

A score of one training is noisy. Its posterior combines it with the scores of similar networks, so a lucky score moves
towards what the model expects. Posteriors follow from the records. They are stored because they take seconds. The file
`posteriors.json` may be deleted at any time. The next search in the study writes it again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hilo_nas.errors import HiloNasError
from hilo_nas.files.plain_files import read_bytes
from hilo_nas.hashes import short_hash
from hilo_nas.measurement.fields import Count, Finite, NonNegative, read_value, to_plain
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord, write_atomically
from hilo_nas.text.one_line import decode_json

__all__ = ["Believed", "Outlook", "Posteriors", "PredictedNetwork", "hash_results", "load_posteriors"]

_MAX_BYTES = 2**25
_VERSION = 1
"""Version of the models. Posteriors of another version are computed again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Believed:
    """Value of a trained network at the full budget, given all scores of the study."""

    value: Finite
    standard_error: NonNegative
    """Standard deviation of the value without the noise of a training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictedNetwork:
    """Network that was not trained, on the predicted front. Intervals are 95 % intervals."""

    key: str
    params: dict[str, Count]
    """Flat integer parameters."""
    images_per_s: NonNegative
    images_per_s_low: NonNegative
    images_per_s_high: NonNegative
    is_timed: bool
    """True if the speed was measured in full."""
    value: Finite
    value_low: Finite
    value_high: Finite
    feasible_probability: NonNegative
    """Probability that the network meets all measured limits and does not fail."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outlook:
    """Expected gain of further trainings of the networks that the model would choose now.

    The search learns from each training and would choose better, so the gain is a lower estimate.
    """

    networks: Count
    """Number of further trainings."""
    hypervolume_gain: NonNegative
    """Expected growth of the hypervolume, relative to the current one."""
    value_gain: NonNegative
    """Expected growth of the best value among networks of at least `images_per_s`. The speed is the one at which the
    growth is largest."""
    images_per_s: NonNegative


@dataclasses.dataclass(frozen=True, kw_only=True)
class Posteriors:
    """Posteriors of a study under its objective condition."""

    results_hash: str
    """Hash of the results that they follow from (`hash_results`)."""
    written_at: str
    believed: dict[str, Believed]
    """Values of fully trained networks by key. Baselines have none."""
    predicted: tuple[PredictedNetwork, ...]
    """Networks on the front of the predictions, the fastest first."""
    outlook: tuple[Outlook, ...]
    """Expected gains of increasing numbers of trainings."""
    version: Count = _VERSION

    def is_current(self, records: Iterable[TrialRecord], manifest: Manifest) -> bool:
        """Returns True if the posteriors follow from these records, and their networks are in the study's space."""
        if self.version != _VERSION or self.results_hash != hash_results(records, manifest):
            return False
        try:
            return all(manifest.space.decode(own.params).key() == own.key for own in self.predicted)
        except HiloNasError:
            return False

    def write(self, path: Path) -> None:
        """Writes the file atomically.

        Raises:
            StorageError: The folder cannot be written.
        """
        write_atomically(path, json.dumps(to_plain(self), indent=1, allow_nan=False) + "\n")


def load_posteriors(path: Path) -> Posteriors | None:
    """Returns the stored posteriors. None if there are none, or if the file is damaged, because they can be renewed."""
    try:
        return read_value(Posteriors, decode_json(read_bytes(path, _MAX_BYTES)))
    except (OSError, HiloNasError, ValueError, RecursionError):
        return None


def hash_results(records: Iterable[TrialRecord], manifest: Manifest) -> str:
    """Returns a hash of everything on which posteriors depend: the results of the records, limits and budgets."""
    results = [_results_of(record) for record in sorted(records, key=lambda record: record.number)]
    return short_hash([results, manifest.limits_in_force, manifest.plan.budgets, manifest.guessing_score])


def _results_of(record: TrialRecord) -> list[Any]:
    timings = [
        [
            own.condition.label(),
            own.is_preliminary,
            f"{own.images_per_s:.6g}",
            f"{own.half_width:.3g}",
            own.latency_ms_p95,
            own.memory_mib,
        ]
        for own in record.measurements
    ]
    scores = sorted([own.seed, own.images_seen, own.value, own.standard_error or 0.0] for own in record.scores)
    return [record.number, record.key, str(record.state), timings, scores]
