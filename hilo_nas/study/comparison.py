"""Comparison of two networks by what was measured: which is faster, which has the better value, and how surely.

Speeds are compared by paired rounds where two networks were timed side by side, else by their intervals; values by
their standard errors, the noise between training seeds included.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from functools import cached_property

from hilo_nas.measurement import Measurement, ProxyScore
from hilo_nas.measurement.intervals import Z95
from hilo_nas.measurement.rounds import error_apart, normal_above_zero, probability_faster, quality
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState

__all__ = ["BETWEEN_TIMINGS", "SURE", "Point", "counted_scores", "value_error"]

SURE = 0.95
"""A network is beaten when another is better in both objectives with at least this probability."""
BETWEEN_TIMINGS = 0.02
"""Relative standard error that a timing has beside its interval, when two networks never shared a round.

Between passes, anchored images/s varied by 1.1 % on a quiet machine and by 2.4 % on a bursty one (two shared CPU cores,
`hilo-nas bench ruler`, report in benchmarks/).
"""
_probability_faster = functools.lru_cache(maxsize=8192)(probability_faster)
"""Rounds do not change, and a running search asks for the same pairs again and again."""
_Rounds = tuple[float, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """A scored network at its speed under one condition: what a comparison needs, read from its record once."""

    record: TrialRecord
    timing: Measurement
    """The timing that counts under the condition."""
    value: float
    """Of the score that counts."""
    error_of_images: float
    """Standard error of the value from the held-out images, which all seeds share."""
    seeds: int
    """Scores that the value is the mean of."""

    @classmethod
    def from_record(cls, record: TrialRecord, condition: str | None) -> Point | None:
        """Returns the point of a complete trial that trained and was timed; None for any other.

        Args:
            record: The trial's.
            condition: Label of the condition; None for the timing that counts first, the objective's.
        """
        if record.state != TrialState.COMPLETE:
            return None
        timing = record.measurement if condition is None else record.measurements_by_condition().get(condition)
        score = record.score
        if timing is None or score is None or score.is_at_chance:
            return None
        counted = counted_scores(record, score)
        return cls(record, timing, score.value, _error_of_images(counted), len(counted))

    @property
    def number(self) -> int:
        """The trial's."""
        return self.record.number

    @cached_property
    def images_per_s(self) -> float:
        """Speed under the condition."""
        return self.timing.images_per_s

    @cached_property
    def interval_error(self) -> float:
        """Relative standard error of the speed that the timing's own rounds tell."""
        return self.timing.half_width / Z95 / self.timing.images_per_s

    @cached_property
    def speed_error(self) -> float:
        """Relative standard error of the speed beside one that was timed in other rounds."""
        return math.hypot(self.interval_error, BETWEEN_TIMINGS)

    def value_error(self, noise: float) -> float:
        """Returns the standard error of the value; see `value_error`."""
        return math.hypot(self.error_of_images, noise / math.sqrt(self.seeds))

    def dominates(self, other: Point) -> bool:
        """Returns whether this network is at least as fast and as good by its values, and better in one of them."""
        return (
            self.images_per_s >= other.images_per_s
            and self.value >= other.value
            and (self.images_per_s, self.value) != (other.images_per_s, other.value)
        )

    def probability_beats(self, other: Point, noise: float) -> float:
        """Returns how probable it is that this network is both faster and better scored than another.

        Speed and value are independent of each other.

        Args:
            other: The other.
            noise: Standard deviation of a value from one training seed to another.
        """
        return self.probability_better(other, noise) * self.probability_faster(other)

    def surely_beats(self, other: Point, noise: float) -> bool:
        """Returns whether `probability_beats` is at least `SURE`; looks at rounds only where values leave it open."""
        better = self.probability_better(other, noise)
        return better >= SURE and better * self.probability_faster(other) >= SURE

    def probability_better(self, other: Point, noise: float) -> float:
        """Returns how probable it is that this network has the better value."""
        return normal_above_zero(
            self.value - other.value, math.hypot(self.value_error(noise), other.value_error(noise))
        )

    def probability_faster(self, other: Point) -> float:
        """Returns how probable it is that this network is the faster one.

        Where they shared rounds, by these: of several such timings the best counts (`measurement.rounds.quality`), then
        the most recent. Elsewhere each by the timing that counts for it.
        """
        if shared := self._shared_rounds(other):
            best = min(item[0] for item in shared)
            _, _, ours, theirs, apart = max((item for item in shared if item[0] == best), key=lambda item: item[1])
            return _probability_faster(ours, theirs, apart)
        difference = math.log(self.images_per_s / other.images_per_s)
        return normal_above_zero(difference, math.hypot(self.speed_error, other.speed_error))

    @cached_property
    def _comparable(self) -> tuple[Measurement, ...]:
        """The timings comparable with the one that counts: of its condition, device, protocol and form."""
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
        """Rounds that its timings share with others, by name."""
        return frozenset(timing.cohort for timing in self._comparable if timing.cohort)

    @cached_property
    def beside(self) -> frozenset[str]:
        """Keys of the networks that were timed in its own rounds."""
        return frozenset(key for timing in self._comparable for key in timing.beside)

    def _shared_rounds(self, other: Point) -> list[tuple[int, str, _Rounds, _Rounds, float]]:
        """The rounds that two networks shared, with the timing's quality, its time, and the error they do not show."""
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
    """Returns the scores that a record's `score` is the mean of."""
    return [own for own in record.scores if own.images_seen == score.images_seen]


def value_error(record: TrialRecord, score: ProxyScore, noise: float) -> float:
    """Returns the standard error of a record's value: that of the held-out images and that of its seeds' mean.

    All seeds share the images, so only the noise of a seed falls with their number.

    Args:
        record: The record.
        score: The one that counts.
        noise: Standard deviation of a value from one training seed to another.
    """
    counted = counted_scores(record, score)
    return math.hypot(_error_of_images(counted), noise / math.sqrt(len(counted)))


def _error_of_images(scores: list[ProxyScore]) -> float:
    return math.sqrt(statistics.fmean(score.interval_error**2 for score in scores))
