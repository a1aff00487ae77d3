"""Comparison of two measured networks in speed and value, with probabilities.

If two networks were timed in the same rounds, their speeds are compared by paired rounds, otherwise by their intervals.
Values are compared by their standard errors, which include the noise between training seeds.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from functools import cached_property

from hilo_nas.measurement import Measurement, ProxyScore
from hilo_nas.measurement.intervals import Z95, error_apart, normal_above_zero, probability_faster
from hilo_nas.measurement.verdicts import quality
from hilo_nas.study.posteriors import Believed
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState

__all__ = ["BETWEEN_TIMINGS", "SURE", "Point", "counted_scores", "value_error"]

SURE = 0.95
"""Probability at which a network counts as beaten: another one is better in both objectives."""
BETWEEN_TIMINGS = 0.02
"""Relative standard error of a timing in addition to its interval, for two networks that never shared a round.

Between passes, images/s anchored to the reference varied by 1.1 % on a quiet machine and by 2.4 % on a machine with
bursts of load (two shared CPU cores, `hilo-nas bench ruler`, report in benchmarks/).
"""
_probability_faster = functools.lru_cache(maxsize=8192)(probability_faster)
"""Cached because rounds do not change and a running search compares the same pairs repeatedly."""
_Rounds = tuple[float, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """Speed and value of a scored network under one condition, with their errors."""

    record: TrialRecord
    timing: Measurement
    """First measurement under the condition, which has the highest priority (`read_timings`)."""
    value: float
    """Mean value over the seeds (`TrialRecord.score`)."""
    error_of_images: float
    """Standard error of the value due to the finite number of held-out images. All seeds share these images."""
    seeds: int
    """Number of scores whose mean is `value`."""
    believed: Believed | None = None
    """Value given all scores of the study, for comparisons with probabilities. None to use `value` and its errors."""

    @classmethod
    def from_record(cls, record: TrialRecord, condition: str | None, believed: Believed | None = None) -> Point | None:
        """Returns the point of a complete trial. None if it is not complete, did not train or was not timed in full.

        Args:
            record: The record of the trial.
            condition: Label of the condition. None selects the objective condition.
            believed: Posterior of the network's value.
        """
        if record.state != TrialState.COMPLETE:
            return None
        timing = record.measurement if condition is None else record.measurements_by_condition().get(condition)
        score = record.score
        if timing is None or timing.is_preliminary or score is None or score.is_at_chance:
            return None
        counted = counted_scores(record, score)
        return cls(record, timing, score.value, _error_of_images(counted), len(counted), believed)

    @property
    def number(self) -> int:
        """Number of the trial."""
        return self.record.number

    @cached_property
    def images_per_s(self) -> float:
        """Images/s under the condition."""
        return self.timing.images_per_s

    @cached_property
    def interval_error(self) -> float:
        """Relative standard error of the speed, estimated from the timing's rounds."""
        return self.timing.half_width / Z95 / self.timing.images_per_s

    @cached_property
    def speed_error(self) -> float:
        """Relative standard error of the speed for a comparison with a network timed in other rounds."""
        return math.hypot(self.interval_error, BETWEEN_TIMINGS)

    @property
    def likely_value(self) -> float:
        """Mean of the posterior, or else the measured value."""
        return self.value if self.believed is None else self.believed.value

    def value_error(self, noise: float) -> float:
        """Returns the standard error of `likely_value`. Without a posterior, it is that of the function `value_error`.

        Args:
            noise: Standard deviation of a value between training seeds.
        """
        if self.believed is not None:
            return self.believed.standard_error
        return math.hypot(self.error_of_images, noise / math.sqrt(self.seeds))

    def probability_at_least(self, value: float, noise: float) -> float:
        """Returns the probability that the network's value is at least `value`.

        Args:
            value: The value to reach.
            noise: Standard deviation of a value between training seeds.
        """
        return normal_above_zero(self.likely_value - value, self.value_error(noise))

    def dominates(self, other: Point) -> bool:
        """Returns True if this network is at least as good in measured speed and value, and better in one of them."""
        return (
            self.images_per_s >= other.images_per_s
            and self.value >= other.value
            and (self.images_per_s, self.value) != (other.images_per_s, other.value)
        )

    def probability_beats(self, other: Point, noise: float) -> float:
        """Returns the probability that this network has both a higher speed and a better value than another.

        The errors of speed and value are independent.

        Args:
            other: The other network.
            noise: Standard deviation of a value between training seeds.
        """
        return self.probability_better(other, noise) * self.probability_faster(other)

    def surely_beats(self, other: Point, noise: float) -> bool:
        """Returns True if `probability_beats` is at least `SURE`.

        The function skips the costly comparison of rounds if the values alone rule it out.
        """
        better = self.probability_better(other, noise)
        return better >= SURE and better * self.probability_faster(other) >= SURE

    def probability_better(self, other: Point, noise: float) -> float:
        """Returns the probability that this network has the better value."""
        return normal_above_zero(
            self.likely_value - other.likely_value, math.hypot(self.value_error(noise), other.value_error(noise))
        )

    def probability_faster(self, other: Point) -> float:
        """Returns the probability that this network is faster than another.

        If the networks shared rounds, the paired rounds decide. With several such timings, the one with the best
        `measurement.rounds.quality` counts, then the most recent. Otherwise the intervals of `timing` decide.
        """
        if shared := self._shared_rounds(other):
            best = min(item[0] for item in shared)
            _, _, ours, theirs, apart = max((item for item in shared if item[0] == best), key=lambda item: item[1])
            return _probability_faster(ours, theirs, apart)
        difference = math.log(self.images_per_s / other.images_per_s)
        return normal_above_zero(difference, math.hypot(self.speed_error, other.speed_error))

    @cached_property
    def _comparable(self) -> tuple[Measurement, ...]:
        """Measurements of the network with the same condition, device, protocol and form as `timing`."""
        first = self.timing
        return tuple(
            timing
            for timing in self.record.measurements
            if timing is first
            or (
                (timing.condition, timing.protocol, timing.form) == (first.condition, first.protocol, first.form)
                and not timing.device.differences(first.device)
            )
        )

    @cached_property
    def cohorts(self) -> frozenset[str]:
        """IDs of the cohorts of the network's timings. Networks timed in the same rounds have the same cohort."""
        return frozenset(timing.cohort for timing in self._comparable if timing.cohort)

    @cached_property
    def beside(self) -> frozenset[str]:
        """Keys of the other networks that were timed in the same rounds as this network."""
        return frozenset(key for timing in self._comparable for key in timing.beside)

    def _shared_rounds(self, other: Point) -> list[tuple[int, str, _Rounds, _Rounds, float]]:
        """Returns the timings in which two networks shared rounds.

        Each item holds the quality, the time of the measurement, the seconds per call of this network and of the other
        in each round, and the relative error that the rounds do not show.
        """
        own_key, other_key = self.record.key, other.record.key
        if self.cohorts.isdisjoint(other.cohorts) and other_key not in self.beside and own_key not in other.beside:
            return []
        found: list[tuple[int, str, _Rounds, _Rounds, float]] = []
        for ours in self._comparable:
            if other_key in ours.beside:
                rounds = ours.call_seconds, ours.beside[other_key]
                found.append((quality(ours), ours.measured_at, *rounds, error_apart(ours)))
            for theirs in other._comparable:
                if ours.cohort and ours.cohort == theirs.cohort:
                    worse = max(quality(ours), quality(theirs))
                    rounds = ours.call_seconds, theirs.call_seconds
                    found.append((worse, ours.measured_at, *rounds, error_apart(ours)))
        for theirs in other._comparable:
            if own_key in theirs.beside:
                rounds = theirs.beside[own_key], theirs.call_seconds
                found.append((quality(theirs), theirs.measured_at, *rounds, error_apart(theirs)))
        return found


def counted_scores(record: TrialRecord, score: ProxyScore) -> list[ProxyScore]:
    """Returns the scores of all seeds that a record's mean `score` averages."""
    return [own for own in record.scores if own.images_seen == score.images_seen]


def value_error(record: TrialRecord, score: ProxyScore, noise: float) -> float:
    """Returns the standard error of a record's value, which combines the errors of held-out images and training seeds.

    Averaging over seeds reduces only the seed noise, because all seeds share the images.

    Args:
        record: The record.
        score: The score that counts.
        noise: Standard deviation of a value between training seeds.
    """
    counted = counted_scores(record, score)
    return math.hypot(_error_of_images(counted), noise / math.sqrt(len(counted)))


def _error_of_images(scores: list[ProxyScore]) -> float:
    return math.sqrt(statistics.fmean(score.interval_error**2 for score in scores))
