"""The front of a study under one condition, and which other networks cannot be told from it.

A point front takes every value at its word. But speeds and scores are measured, so a network may miss the front by less
than both can be told apart: it is then tied with the members that beat it, until more samples decide.

Networks of others (`TrialRecord.is_peer`) are marked points beside the search: no front here holds one, nor is any
network beaten or tied by them.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from hilo_nas.comparison import BETWEEN_TIMINGS, SURE, Z95, Point, counted_scores, value_error
from hilo_nas.pareto import hypervolume, is_non_dominated
from hilo_nas.records import TrialRecord
from hilo_nas.standings import Standing, find_references, stand
from hilo_nas.states import TrialState

__all__ = ["Front", "speed_hypervolume"]

_DRAWS = 1000
"""A probability of 0.5 is then known to 0.016 (standard error), one of 0.05 to 0.007."""
_DRAWS_AT_ONCE = 100
"""Draws that lie in memory together: 1 MB per 600 networks."""
_HOPELESS = 8.0
"""Standard errors by which a network is beaten in both objectives when it takes no part in the simulation: it would
have to be on the front once in 10^14 draws."""
_BORDER = NormalDist().inv_cdf(SURE) - 1e-6
"""Standard errors below which a gain is not `SURE`; what lies near it is computed exactly."""
_Values = NDArray[np.float64]


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
            records: The study's, as `Study.records` reads them, in any order.
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
        gains, errors = self._gains(rivals, others)
        tied = {}
        for j, other in enumerate(others):
            may_beat = np.flatnonzero(gains[:, j] >= _BORDER * errors[:, j])  # what follows is slower
            if not any(rivals[i].surely_beats(other, self.seed_noise) for i in may_beat):
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
            self._simulated[draws, seed] = self._simulate(draws, np.random.default_rng(seed))
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

    def _gains(self, rivals: Sequence[Point], others: Sequence[Point]) -> tuple[_Values, _Values]:
        """The gain in value of each rival (rows) over each other (columns), and its standard error."""
        gains = _column([own.value for own in rivals]) - np.array([own.value for own in others])
        errors = np.hypot(
            _column([own.value_error(self.seed_noise) for own in rivals]),
            [own.value_error(self.seed_noise) for own in others],
        )
        return gains, errors

    def _simulate(self, draws: int, random: np.random.Generator) -> Mapping[int, float]:
        scored = sorted(self._candidates, key=lambda point: point.number)
        wins = dict.fromkeys((point.number for point in scored), 0.0)
        drawn = [point for point, is_drawn in zip(scored, self._has_a_chance(scored), strict=True) if is_drawn]
        sizes = Counter(point.timing.cohort for point in scored)
        together = sorted(cohort for cohort, size in sizes.items() if cohort and size > 1)
        speeds = np.log([point.images_per_s for point in drawn])
        speed_errors = [
            point.interval_error if point.timing.cohort in together else point.speed_error for point in drawn
        ]
        cohorts = np.array([together.index(p.timing.cohort) if p.timing.cohort in together else -1 for p in drawn], int)
        values, errors = [point.value for point in drawn], [point.value_error(self.seed_noise) for point in drawn]
        count = np.zeros(len(drawn))
        for start in range(0, draws, _DRAWS_AT_ONCE):
            shape = min(_DRAWS_AT_ONCE, draws - start), len(drawn)
            # One more column, of zeros, for those that share their rounds with none.
            shared = np.zeros((shape[0], len(together) + 1))
            shared[:, :-1] = random.normal(0.0, BETWEEN_TIMINGS, (shape[0], len(together)))
            count += _count_fronts(
                random.normal(speeds, speed_errors, shape) + shared[:, cohorts], random.normal(values, errors, shape)
            )
        return wins | dict(zip((point.number for point in drawn), (count / draws).tolist(), strict=True))

    def _has_a_chance(self, scored: Sequence[Point]) -> NDArray[np.bool_]:
        """Whether some draw may put a network on the front: no member beats it in both by `_HOPELESS` errors.

        Leaving out the others changes no draw: whom they would beat, the member that beats them beats too.
        """
        rivals = self._front
        gains, errors = self._gains(rivals, scored)
        leads = np.log(_column([own.images_per_s for own in rivals])) - np.log([own.images_per_s for own in scored])
        lead_errors = np.hypot(_column([own.speed_error for own in rivals]), [own.speed_error for own in scored])
        is_beaten = (gains > _HOPELESS * errors) & (leads > _HOPELESS * lead_errors)
        return np.logical_not(is_beaten.any(axis=0))


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
    return tuple(own[i].record for i in sorted(np.flatnonzero(keep), key=lambda i: _fastest_first(own[i])))


def _fastest_first(point: Point) -> tuple[float, int]:
    return -point.images_per_s, point.number


def _column(values: Sequence[float]) -> _Values:
    return np.array(values, dtype=np.float64)[:, np.newaxis]


def _count_fronts(speeds: _Values, values: _Values) -> _Values:
    """Returns for each network in how many draws no other is both faster and better scored.

    Args:
        speeds: A row per draw, a column per network.
        values: Likewise.
    """
    order = np.lexsort((-values, -speeds), axis=1)  # the fastest first; of equal ones the better
    ordered = np.take_along_axis(values, order, axis=1)
    before = np.maximum.accumulate(ordered, axis=1)
    wins = np.ones(values.shape, dtype=np.bool_)
    wins[:, 1:] = ordered[:, 1:] > before[:, :-1]
    return np.bincount(order[wins], minlength=values.shape[1]).astype(np.float64)
