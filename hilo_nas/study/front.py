"""Pareto front of a study under one condition, and the networks that are not distinguishable from it.

The point front is computed from the measured values and ignores their errors. A network may miss it by less than the
errors of speed and value. Such a network is tied with the members that beat it. More rounds or more seeds can break the
tie.

Baselines (`TrialRecord.is_baseline`) are shown for comparison only. They are never on a front, and they neither beat a
network nor tie with one.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Iterable, Mapping
from functools import cached_property

from hilo_nas.measurement.intervals import Z95
from hilo_nas.study.comparison import Point, counted_scores, value_error
from hilo_nas.study.pareto import hypervolume, is_non_dominated
from hilo_nas.study.posteriors import Believed
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.standings import Standing, find_references, stand
from hilo_nas.study.states import TrialState

__all__ = ["Front", "speed_hypervolume"]

_DRAWS = 1000
"""Number of draws for P(front). The standard error is 0.016 at a probability of 0.5 and 0.007 at 0.05."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Front:
    """Pareto front of a study's records under one condition, with ties, probabilities and comparisons.

    Use `from_records` to create a front and `updated` to add a record. Members are computed on creation. Slower results
    are computed on first access and cached: with 3,000 networks, `ties` takes about 0.1 s and `probabilities` about
    0.3 s. No result depends on the order of the records.
    """

    condition: str | None
    """Label of the condition whose speed counts. None selects the objective condition."""
    by_number: Mapping[int, TrialRecord]
    """All records of the study by trial number."""
    members: tuple[TrialRecord, ...]
    """Complete trials of the search that no other trial dominates in speed and value, the fastest first.

    A network that did not train (`TrialRecord.has_trained`) is excluded. It is never on the front, ties with no network
    and beats none, regardless of its speed."""
    _points: Mapping[int, Point]
    """Speeds and values (`Point`) by trial number, for trials that are complete, trained and timed under the condition.
    Includes baselines."""
    believed: Mapping[str, Believed] = dataclasses.field(default_factory=dict)
    """Posteriors of values by key (`study.posteriors`), which `ties` and `probabilities` use. Members are those of the
    measured values. Networks without a posterior count with their measured values and errors."""
    _simulated: dict[tuple[int, int], Mapping[int, float]] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_records(
        cls,
        records: Iterable[TrialRecord],
        condition: str | None = None,
        *,
        believed: Mapping[str, Believed] | None = None,
    ) -> Front:
        """Returns the front of the given records.

        Args:
            records: Records of a study, as `StoredStudy.records` returns them, in any order.
            condition: Label of the condition whose speed counts. Defaults to the objective condition.
            believed: Posteriors of values by key.
        """
        believed = believed or {}
        by_number = {record.number: record for record in sorted(records, key=lambda record: record.number)}
        found = {
            number: Point.from_record(record, condition, believed.get(record.key))
            for number, record in by_number.items()
        }
        points = {number: point for number, point in found.items() if point is not None}
        return cls(
            condition=condition,
            by_number=by_number,
            members=_members_of(points),
            _points=points,
            believed=believed,
        )

    def updated(self, record: TrialRecord) -> Front:
        """Returns the front with a new or changed record.

        A new network is compared only with the members. If the record of a network that already has a point changes,
        all members are recomputed. Posteriors no longer hold, so they are dropped.
        """
        if self.believed:
            return Front.from_records({**self.by_number, record.number: record}.values(), self.condition)
        point, number = Point.from_record(record, self.condition), record.number
        by_number = {**self.by_number, number: record}
        if number != max(by_number):
            by_number = dict(sorted(by_number.items()))
        if point is None and number not in self._points:
            return dataclasses.replace(self, by_number=by_number, _simulated={})
        points = dict(self._points)
        points.pop(number, None)
        if point is not None:
            points[number] = point
        if point is None or number in self._points:
            members = _members_of(points)
        else:
            rivals = [self._points[member.number] for member in self.members]
            members = self.members
            if not record.is_baseline and not any(rival.dominates(point) for rival in rivals):
                kept = [rival for rival in rivals if not point.dominates(rival)]
                members = tuple(own.record for own in sorted([*kept, point], key=_fastest_first))
        return dataclasses.replace(self, by_number=by_number, members=members, _points=points, _simulated={})

    def __repr__(self) -> str:
        return f"Front(trials {', '.join(str(m.number) for m in self.members) or 'none'} of {len(self.by_number)})"

    @property
    def points(self) -> Mapping[int, Point]:
        """Speeds and values with their errors by trial number, for complete, trained and timed trials."""
        return self._points

    @property
    def records(self) -> tuple[TrialRecord, ...]:
        """All records of the study, sorted by number."""
        return tuple(self.by_number.values())

    @cached_property
    def candidates(self) -> tuple[TrialRecord, ...]:
        """Trials that can be on the front: complete, trained, timed and not a baseline. The fastest comes first."""
        return tuple(point.record for point in self._candidates)

    @cached_property
    def baselines(self) -> tuple[TrialRecord, ...]:
        """Complete trials of baselines."""
        return tuple(r for r in self.by_number.values() if r.is_baseline and r.state == TrialState.COMPLETE)

    @cached_property
    def untrained(self) -> tuple[TrialRecord, ...]:
        """Complete trials with a score that is not distinguishable from guessing, including baselines."""
        return tuple(
            r for r in self.by_number.values() if r.state == TrialState.COMPLETE and r.score and not r.has_trained
        )

    @cached_property
    def standings(self) -> tuple[Standing, ...]:
        """Comparison of the front with each anchor and each baseline, in the order of their trials."""
        references = find_references(self.by_number.values())
        return tuple(
            stand(name, record, self._points.get(record.number), self._front, self.seed_noise)
            for name, record in references.items()
        )

    @cached_property
    def ties(self) -> Mapping[int, tuple[int, ...]]:
        """Trials that miss the point front but are not beaten with a probability of at least `SURE`.

        Maps the number of each such trial, the fastest first, to the numbers of the members that dominate it by their
        measured values. The trial is tied with these members: `{7: (3, 5)}` means that trial 7 is tied with 3 and 5.
        """
        rivals = self._front
        on_front = {rival.number for rival in rivals}
        others = [point for point in self._candidates if point.number not in on_front]
        if not others:
            return {}
        from hilo_nas.study.simulation import find_rivals  # imports numpy, which `members` does not need

        tied = {}
        for other, (is_beaten, uncertain) in zip(
            others, find_rivals(rivals, others, noise=self.seed_noise), strict=True
        ):
            if not (is_beaten or any(rival.surely_beats(other, self.seed_noise) for rival in uncertain)):
                tied[other.number] = tuple(rival.number for rival in rivals if rival.dominates(other))
        return tied

    def near(self, *, at_most: int) -> list[TrialRecord]:
        """Returns the members and the trials tied with them, the fastest first.

        Further timings and seeds are most useful for these networks.

        Args:
            at_most: Maximum number of trials. All members are returned even if there are more. The ties that are
                hardest to distinguish from the front are preferred. `ties` lists all of them.
        """
        rivals, tied = self._front, [self._points[number] for number in self.ties]
        tied.sort(key=lambda own: max(rival.probability_beats(own, self.seed_noise) for rival in rivals))
        chosen = [*rivals, *tied][: max(at_most, len(rivals))]
        return [point.record for point in sorted(chosen, key=_fastest_first)]

    @cached_property
    def seed_noise(self) -> float:
        """Standard deviation of a value between training seeds, or 0.0 if no network has two seeds.

        The variance is pooled over all complete networks with several seeds, each around its own mean. The estimate is
        biased upwards because it includes the seed that put a network on the front, which is often a lucky one.
        """
        squares, freedom = 0.0, 0
        for point in sorted(self._candidates, key=lambda point: point.number):
            if point.seeds > 1:
                score = point.record.score
                assert score is not None
                values = [own.value for own in counted_scores(point.record, score)]
                squares += statistics.variance(values) * (len(values) - 1)
                freedom += len(values) - 1
        return math.sqrt(squares / freedom) if freedom else 0.0

    @cached_property
    def standard_errors(self) -> Mapping[int, float]:
        """Standard error of each complete trial's value by trial number, including the noise between seeds.

        The errors are also valid for few held-out images (`ProxyScore.interval_error`).

        All networks use the pooled `seed_noise`, also those with several seeds. Two or three values estimate the spread
        of one network only within a factor of two or worse, and values that agree by chance would make it look certain.
        If no network has several seeds, the errors include only the held-out images.
        """
        return {
            number: value_error(record, score, self.seed_noise)
            for number, record in self.by_number.items()
            if record.state == TrialState.COMPLETE and (score := record.score) is not None
        }

    @cached_property
    def half_widths(self) -> Mapping[int, float]:
        """Half-width of the 95 % interval of each complete trial's value by trial number, from `standard_errors`."""
        return {number: Z95 * error for number, error in self.standard_errors.items()}

    def probability_beats(self, own: int, other: int) -> float:
        """Returns the probability that trial `own` has both a higher speed and a better value than trial `other`.

        Raises:
            KeyError: A trial is not complete, did not train, or was not timed under the condition.
        """
        return self._points[own].probability_beats(self._points[other], self.seed_noise)

    def probability_faster(self, own: int, other: int) -> float:
        """Returns the probability that trial `own` is faster than trial `other`.

        Raises:
            KeyError: A trial is not complete, did not train, or was not timed under the condition.
        """
        return self._points[own].probability_faster(self._points[other])

    def probabilities(self, *, draws: int = _DRAWS, seed: int = 0) -> Mapping[int, float]:
        """Returns P(front) by trial number: the probability that no other trial has both a higher speed and value.

        Each draw samples the speed and value of every network from normal distributions around its measured values.
        P(front) is the share of draws in which the network is on the front. A member of the point front with a close
        rival may have less than 0.5, and a network that narrowly misses the front may have a high probability. Networks
        that were timed in the same rounds share the variation between timings. The result is cached.

        Args:
            draws: Number of draws. The standard error of a probability p is sqrt(p * (1 - p) / draws).
            seed: Seed of the draws. The same records in any order give the same probabilities.
        """
        if (draws, seed) not in self._simulated:
            from hilo_nas.study.simulation import simulate_fronts

            self._simulated[draws, seed] = simulate_fronts(
                self._candidates, self._front, noise=self.seed_noise, draws=draws, seed=seed
            )
        return self._simulated[draws, seed]

    def hypervolume(self, ref_point: tuple[float, float]) -> float:
        """Returns the hypervolume of the members, as defined by `speed_hypervolume`.

        Args:
            ref_point: Images/s, above 0, and value.
        """
        return speed_hypervolume(((point.images_per_s, point.value) for point in self._front), ref_point)

    @cached_property
    def _candidates(self) -> list[Point]:
        return sorted((point for point in self._points.values() if not point.record.is_baseline), key=_fastest_first)

    @property
    def _front(self) -> list[Point]:
        return [self._points[member.number] for member in self.members]


def speed_hypervolume(points: Iterable[tuple[float, float]], ref_point: tuple[float, float]) -> float:
    """Returns the area dominated by the networks above a reference point, in log images/s and value.

    The logarithm gives a gain of 10 % in images/s the same weight at every speed. The ratio of two areas above the same
    reference point does not depend on the units of the objectives.

    Args:
        points: Images/s, above 0, and value of each network. A point that is not above `ref_point` in both objectives
            adds nothing.
        ref_point: Images/s, above 0, and value. Choose lower bounds for all networks of interest.
    """
    return hypervolume([(math.log(speed), value) for speed, value in points], (math.log(ref_point[0]), ref_point[1]))


def _members_of(points: Mapping[int, Point]) -> tuple[TrialRecord, ...]:
    own = [point for point in points.values() if not point.record.is_baseline]
    keep = is_non_dominated([(point.images_per_s, point.value) for point in own])
    return tuple(point.record for point in sorted(itertools.compress(own, keep), key=_fastest_first))


def _fastest_first(point: Point) -> tuple[float, int]:
    return -point.images_per_s, point.number
