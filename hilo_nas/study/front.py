"""The front of a study under one condition, and which other networks cannot be told from it.

A point front takes every value at its word. But speeds and scores are measured, so a network may miss the front by less
than both can be told apart: it is then tied with the members that beat it, until more samples decide.

Networks of others (`TrialRecord.is_peer`) are marked points beside the search: no front here holds one, nor is any
network beaten or tied by them.
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
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.standings import Standing, find_references, stand
from hilo_nas.study.states import TrialState

__all__ = ["Front", "speed_hypervolume"]

_DRAWS = 1000
"""A probability of 0.5 is then known to 0.016 (standard error), one of 0.05 to 0.007."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Front:
    """The front of a study's records under one condition, and where its other networks stand.

    Made by `from_records`, or from an earlier front by `updated`. The members are known at once. What takes longer
    is computed when it is asked for and kept: at 3,000 networks `ties` takes about 0.1 s, `probabilities` about 0.3 s.
    Nothing depends on the order of the records.
    """

    condition: str | None
    """Label of the condition whose speed counts; None for the objective's."""
    by_number: Mapping[int, TrialRecord]
    """Every record of the study."""
    members: tuple[TrialRecord, ...]
    """Complete trials of the search that no other beats in both speed and value, the fastest first.

    A network that did not train (`TrialRecord.has_trained`) is no evidence of anything: it stands on no front, is tied
    with none and beats none, however fast it is."""
    _points: Mapping[int, Point]
    """Of the trials that are complete, trained and timed under the condition, peers included."""
    _simulated: dict[tuple[int, int], Mapping[int, float]] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_records(cls, records: Iterable[TrialRecord], condition: str | None = None) -> Front:
        """Returns the front of some records.

        Args:
            records: The study's, as `StoredStudy.records` reads them, in any order.
            condition: Label of the condition whose speed counts; the objective's if left out.
        """
        by_number = {record.number: record for record in sorted(records, key=lambda record: record.number)}
        found = {number: Point.from_record(record, condition) for number, record in by_number.items()}
        points = {number: point for number, point in found.items() if point is not None}
        return cls(condition=condition, by_number=by_number, members=_members_of(points), _points=points)

    def updated(self, record: TrialRecord) -> Front:
        """Returns the front with a record that is new or has changed.

        A new network is compared with the members alone; where one that was a point has changed, the members are found
        anew.
        """
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
            if not record.is_peer and not any(rival.dominates(point) for rival in rivals):
                kept = [rival for rival in rivals if not point.dominates(rival)]
                members = tuple(own.record for own in sorted([*kept, point], key=_fastest_first))
        return dataclasses.replace(self, by_number=by_number, members=members, _points=points, _simulated={})

    def __repr__(self) -> str:
        return f"Front(trials {', '.join(str(m.number) for m in self.members) or 'none'} of {len(self.by_number)})"

    @property
    def records(self) -> tuple[TrialRecord, ...]:
        """Every record of the study, in the order of their numbers."""
        return tuple(self.by_number.values())

    @cached_property
    def candidates(self) -> tuple[TrialRecord, ...]:
        """Trials that the front is made of: complete, of the search, trained and timed; the fastest first."""
        return tuple(point.record for point in self._candidates)

    @cached_property
    def peers(self) -> tuple[TrialRecord, ...]:
        """Complete trials of networks of others."""
        return tuple(r for r in self.by_number.values() if r.is_peer and r.state == TrialState.COMPLETE)

    @cached_property
    def untrained(self) -> tuple[TrialRecord, ...]:
        """Complete trials whose score cannot be told from guessing, peers included."""
        return tuple(
            r for r in self.by_number.values() if r.state == TrialState.COMPLETE and r.score and not r.has_trained
        )

    @cached_property
    def standings(self) -> tuple[Standing, ...]:
        """How the front stands to each anchor and each peer, in the order of their trials."""
        references = find_references(self.by_number.values())
        return tuple(
            stand(name, record, self._points.get(record.number), self._front, self.seed_noise)
            for name, record in references.items()
        )

    @cached_property
    def ties(self) -> Mapping[int, tuple[int, ...]]:
        """The trials that miss the point front but are not surely beaten, the fastest first.

        By number, the front's members that beat such a trial by their values alone: it is tied with those.
        """
        rivals = self._front
        on_front = {rival.number for rival in rivals}
        others = [point for point in self._candidates if point.number not in on_front]
        if not others:
            return {}
        from hilo_nas.study.simulation import find_rivals  # imports numpy, which the members do not need

        tied = {}
        for other, (is_beaten, doubtful) in zip(
            others, find_rivals(rivals, others, noise=self.seed_noise), strict=True
        ):
            if not (is_beaten or any(rival.surely_beats(other, self.seed_noise) for rival in doubtful)):
                tied[other.number] = tuple(rival.number for rival in rivals if rival.dominates(other))
        return tied

    def near(self, *, at_most: int) -> list[TrialRecord]:
        """Returns the front and those tied with it, the fastest first: the networks whose order is worth more samples.

        Args:
            at_most: How many to return, the front included, which is never cut; the ties that are hardest to tell from
                it come first. Those left out are tied all the same: `ties` names every one.
        """
        rivals, tied = self._front, [self._points[number] for number in self.ties]
        tied.sort(key=lambda own: max(rival.probability_beats(own, self.seed_noise) for rival in rivals))
        chosen = [*rivals, *tied][: max(at_most, len(rivals))]
        return [point.record for point in sorted(chosen, key=_fastest_first)]

    @cached_property
    def seed_noise(self) -> float:
        """Standard deviation of a value from one training seed to another; 0.0 where no network has two seeds.

        Pooled over all complete networks with several seeds, each about its own mean. The seed that brought a network
        onto the front is among its own, and was a lucky one more often than not: the estimate errs on the wide side.
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
        """By number the standard error of each complete trial's value, the noise between seeds included.

        The errors hold for few held-out images (`ProxyScore.interval_error`).

        That noise is the pooled one (`seed_noise`) for all, for networks with several seeds too: two or three values of
        a network's own tell its spread within a factor of two or worse, and those that agree by chance would make it
        look certain. Where one network alone has several seeds, the pooled noise is its own. Until there are some, the
        errors are those of the held-out images alone.
        """
        return {
            number: value_error(record, score, self.seed_noise)
            for number, record in self.by_number.items()
            if record.state == TrialState.COMPLETE and (score := record.score) is not None
        }

    @cached_property
    def half_widths(self) -> Mapping[int, float]:
        """By number half of the 95 % interval of each complete trial's value, from `standard_errors`."""
        return {number: Z95 * error for number, error in self.standard_errors.items()}

    def probability_beats(self, own: int, other: int) -> float:
        """Returns how probable it is that a trial is both faster and better scored than another, both by number.

        Raises:
            KeyError: One of them is not complete, did not train, or was not timed under the condition.
        """
        return self._points[own].probability_beats(self._points[other], self.seed_noise)

    def probability_faster(self, own: int, other: int) -> float:
        """Returns how probable it is that a trial is faster than another, both by number; see `probability_beats`."""
        return self._points[own].probability_faster(self._points[other])

    def probabilities(self, *, draws: int = _DRAWS, seed: int = 0) -> Mapping[int, float]:
        """Returns P(front): by number how probable it is that no other complete trial is both faster and better scored.

        Speeds and values of all are drawn together, again and again, each around its value by its own error, and fronts
        are counted: a network of the point front with a near rival may have less than 0.5, and one that misses it a
        good chance. Networks that were timed in the same rounds share what differs from one timing to the next. Kept.

        Args:
            draws: How many; a probability p comes out with a standard error of sqrt(p * (1 - p) / draws).
            seed: Of the draws; the same records give the same probabilities, in any order.
        """
        if (draws, seed) not in self._simulated:
            from hilo_nas.study.simulation import simulate_fronts

            self._simulated[draws, seed] = simulate_fronts(
                self._candidates, self._front, noise=self.seed_noise, draws=draws, seed=seed
            )
        return self._simulated[draws, seed]

    def hypervolume(self, ref_point: tuple[float, float]) -> float:
        """Returns the hypervolume of the members; see `speed_hypervolume`.

        Args:
            ref_point: Images/s above 0, and value.
        """
        return speed_hypervolume(((point.images_per_s, point.value) for point in self._front), ref_point)

    @cached_property
    def _candidates(self) -> list[Point]:
        return sorted((point for point in self._points.values() if not point.record.is_peer), key=_fastest_first)

    @property
    def _front(self) -> list[Point]:
        return [self._points[member.number] for member in self.members]


def speed_hypervolume(points: Iterable[tuple[float, float]], ref_point: tuple[float, float]) -> float:
    """Returns the area that networks dominate above a reference point, over log images/s and value.

    A speed counts by its logarithm: 10 % more images/s are worth the same at every speed. The ratio of two such areas
    above one reference point does not depend on the units of either objective.

    Args:
        points: Images/s above 0 and value of each network; those that are not above `ref_point` in both add nothing.
        ref_point: Images/s above 0, and value: of each, what no network of interest falls below.
    """
    return hypervolume([(math.log(speed), value) for speed, value in points], (math.log(ref_point[0]), ref_point[1]))


def _members_of(points: Mapping[int, Point]) -> tuple[TrialRecord, ...]:
    own = [point for point in points.values() if not point.record.is_peer]
    keep = is_non_dominated([(point.images_per_s, point.value) for point in own])
    return tuple(point.record for point in sorted(itertools.compress(own, keep), key=_fastest_first))


def _fastest_first(point: Point) -> tuple[float, int]:
    return -point.images_per_s, point.number
