"""The front of a study's records: its points, and which other networks cannot be told from them.

A point front takes every value at its word. But speeds and scores are measured, so a network may miss the front by less
than both can be told apart: it is then tied with the members that beat it, until more samples decide.

Networks of others (`TrialRecord.is_peer`) are marked points beside the search: no front here holds one, nor is any
network beaten or tied by them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from hilo_nas.measurement import Measurement
from hilo_nas.pareto import dominates, is_non_dominated
from hilo_nas.records import TrialRecord
from hilo_nas.rounds import normal_above_zero, probability_faster

__all__ = ["SURE", "front_of", "near_front", "probability_beats", "probability_of_speed", "ties_of"]

SURE = 0.95
"""A network is beaten when another is better in both objectives with at least this probability."""
_BETWEEN_TIMINGS = 0.02
"""Relative standard error that a timing has beside its interval, when two networks never shared a round.

Between passes, anchored images/s varied by 1.1 % on a quiet machine and by 2.4 % on a bursty one (two shared CPU cores,
`hilo-nas bench ruler`, report in benchmarks/).
"""
_Z95 = 1.96
_probability_faster = functools.lru_cache(maxsize=8192)(probability_faster)
"""Rounds do not change, and a running search asks for the same pairs after each trial."""


def front_of(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Returns the complete trials that none beats in both speed and proxy top-1, the fastest first."""
    scored = _scored(records)
    on_front = is_non_dominated([_point(record) for record in scored])
    front = [record for record, keep in zip(scored, on_front, strict=True) if keep]
    return sorted(front, key=lambda record: -_point(record)[0])


def ties_of(records: Sequence[TrialRecord]) -> dict[int, tuple[int, ...]]:
    """Returns the trials that miss the point front but are not surely beaten, the fastest first.

    By number, the front's members that beat such a trial by their values alone: it is tied with those.
    """
    front = front_of(records)
    members = {record.number for record in front}
    tied = {}
    for record in sorted(_scored(records), key=lambda record: -_point(record)[0]):
        if record.number in members or any(_surely_beats(rival, record) for rival in front):
            continue
        tied[record.number] = tuple(rival.number for rival in front if dominates(_point(rival), _point(record)))
    return tied


def near_front(records: Sequence[TrialRecord], *, at_most: int) -> list[TrialRecord]:
    """Returns the front and those tied with it, the fastest first: the networks whose order is worth more samples.

    Args:
        records: The study's.
        at_most: How many to return, the front included, which is never cut; the ties that are hardest to tell from it
            come first. Those left out are tied all the same: `ties_of` names every one.
    """
    front = front_of(records)
    by_number = {record.number: record for record in records}
    tied = [by_number[number] for number in ties_of(records)]
    tied.sort(key=lambda record: max(probability_beats(rival, record) for rival in front))
    return sorted([*front, *tied][: max(at_most, len(front))], key=lambda record: -_point(record)[0])


def probability_beats(own: TrialRecord, other: TrialRecord) -> float:
    """Returns how probable it is that a complete trial is both faster and more accurate than another.

    Speed from paired rounds where the two were timed side by side, top-1 from its standard errors; the two are
    independent of each other.
    """
    return _probability_of_top1(own, other) * probability_of_speed(own, other)


def probability_of_speed(own: TrialRecord, other: TrialRecord) -> float:
    """Returns how probable it is that a measured trial is faster than another."""
    assert own.measurement
    assert other.measurement
    ours, theirs = own.measurement, other.measurement
    if ours.cohort and ours.cohort == theirs.cohort:
        return _probability_faster(ours.call_seconds, theirs.call_seconds)
    if other.key in ours.beside:
        return _probability_faster(ours.call_seconds, ours.beside[other.key])
    if own.key in theirs.beside:
        return _probability_faster(theirs.beside[own.key], theirs.call_seconds)
    difference = math.log(ours.images_per_s / theirs.images_per_s)
    return normal_above_zero(difference, math.hypot(_relative_error(ours), _relative_error(theirs)))


def _surely_beats(own: TrialRecord, other: TrialRecord) -> bool:
    """Whether `probability_beats` is at least `SURE`; the rounds are looked at only where the top-1 leaves it open."""
    return _probability_of_top1(own, other) >= SURE and probability_beats(own, other) >= SURE


def _probability_of_top1(own: TrialRecord, other: TrialRecord) -> float:
    assert own.score
    assert other.score
    gain = own.score.proxy_top1 - other.score.proxy_top1
    return normal_above_zero(gain, math.hypot(own.score.proxy_top1_se, other.score.proxy_top1_se))


def _relative_error(measurement: Measurement) -> float:
    return math.hypot(measurement.half_width / _Z95 / measurement.images_per_s, _BETWEEN_TIMINGS)


def _scored(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [r for r in records if r.state == "complete" and not r.is_peer and r.measurement and r.score]


def _point(record: TrialRecord) -> tuple[float, float]:
    assert record.measurement
    assert record.score
    return record.measurement.images_per_s, record.score.proxy_top1
