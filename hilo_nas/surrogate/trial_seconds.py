"""Expected seconds of timings and trainings, learnt from the records of a search."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

import numpy as np

from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.surrogate.gaussian_process import Floats

__all__ = ["TrialSeconds"]

_FIRST_BRIEF_S = 2.0
"""Assumed seconds of a brief timing before the first one."""


class TrialSeconds:
    """Expected seconds of the parts of a trial.

    The logarithm of the seconds of a training is linear in the log images/s. The slope is shrunk towards -1: after few
    trainings, a network that is twice as fast is expected to train in half of the time.

    Args:
        records: Records of a study. Those of baselines are left out.
    """

    def __init__(self, records: Sequence[TrialRecord]) -> None:
        records = [record for record in records if not record.is_baseline]
        timings = [own for record in records for own in record.measurements]
        self.full_timing = _mean(own.seconds for own in timings if not own.is_preliminary)
        """Mean seconds of a full timing; 0 before the first one."""
        self.brief_timing = _mean(own.seconds for own in timings if own.is_preliminary) or _FIRST_BRIEF_S
        """Mean seconds of a brief timing."""
        trained = [
            (math.log(record.measurement.images_per_s), _training_seconds(record))
            for record in records
            if record.scores and record.measurement is not None and record.state != TrialState.STOPPED
        ]
        self.has_trained = bool(trained)
        """True if a training has ended."""
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


def _training_seconds(record: TrialRecord) -> float:
    """Returns the seconds of the training with the first seed. Further seeds confirm a network."""
    return sum(score.seconds for score in record.scores if score.seed == record.scores[0].seed)


def _mean(seconds: Iterable[float]) -> float:
    found = list(seconds)
    return statistics.fmean(found) if found else 0.0
