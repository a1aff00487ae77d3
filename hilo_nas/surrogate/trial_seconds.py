"""Expected seconds of timings and trainings, learnt from the records of a search."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

import numpy as np

from hilo_nas.study.records import TrialRecord
from hilo_nas.surrogate.gaussian_process import Floats

__all__ = ["TrialSeconds", "training_seconds"]

_FIRST_BRIEF_S = 2.0
"""Assumed seconds of a brief timing before the first one."""


class TrialSeconds:
    """Expected seconds of the parts of a trial.

    The logarithm of the seconds of a training is linear in the log images/s. The slope is shrunk towards -1: after few
    trainings, a network that is twice as fast is expected to train in half of the time.

    Args:
        records: Records of a study. Those of baselines are left out.
        budget: Full budget in training images. A training counts if it has a score there.
    """

    def __init__(self, records: Sequence[TrialRecord], budget: int) -> None:
        records = [record for record in records if not record.is_baseline]
        self.full_timing = _mean(
            sum(own.seconds for own in record.full_measurements) for record in records if record.full_measurements
        )
        """Mean seconds of the full timings of a network, under all conditions; 0 before the first one."""
        brief = [own.seconds for record in records for own in record.measurements if own.is_preliminary]
        self.brief_timing = _mean(brief) or _FIRST_BRIEF_S
        """Mean seconds of a brief timing."""
        trained = [
            (math.log(record.measurement.images_per_s), training_seconds(record, budget))
            for record in records
            if record.measurement is not None and record.score_at(budget) is not None
        ]
        self.has_trained = bool(trained)
        """True if a full training has ended."""
        self._log_speed = self._log_seconds = 0.0
        self._slope = -1.0
        self.median_training = statistics.median(seconds for _, seconds in trained) if trained else 0.0
        """Median seconds of a full training; 0 before the first one."""
        costly = [(speed, math.log(seconds)) for speed, seconds in trained if seconds > 0]
        if costly:
            speeds, seconds = np.array(costly).T
            self._log_speed, self._log_seconds = float(speeds.mean()), float(seconds.mean())
            speeds, seconds = speeds - self._log_speed, seconds - self._log_seconds
            self._slope = float((speeds @ seconds - 1) / (speeds @ speeds + 1))

    def training(self, log_speed_M: Floats) -> Floats:
        """Returns the seconds of a full training of networks, shape [M]; 0 if trainings cost nothing.

        Args:
            log_speed_M: Log images/s of the networks.
        """
        if self.median_training == 0.0:
            return np.zeros_like(log_speed_M)
        return np.exp(self._log_seconds + self._slope * (log_speed_M - self._log_speed))


def training_seconds(record: TrialRecord, budget: int) -> float:
    """Returns the mean seconds of a network's full trainings, summed over their rungs; 0 if there is none.

    Args:
        record: Record of the network.
        budget: Full budget in training images.
    """
    full = {score.seed for score in record.scores if score.images_seen == budget}
    return sum(score.seconds for score in record.scores if score.seed in full) / max(len(full), 1)


def _mean(seconds: Iterable[float]) -> float:
    found = list(seconds)
    return statistics.fmean(found) if found else 0.0
