"""The front of a study's records: its points, and which other networks cannot be told from them.

A point front takes every value at its word. But speeds and scores are measured, so a network may miss the front by less
than both can be told apart: it is then tied with the members that beat it, until more samples decide.

Networks of others (`TrialRecord.is_peer`) are marked points beside the search: no front here holds one, nor is any
network beaten or tied by them.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from random import Random

from hilo_nas.measurement import Measurement, ProxyScore
from hilo_nas.pareto import dominates, is_non_dominated
from hilo_nas.records import TrialRecord
from hilo_nas.rounds import error_apart, normal_above_zero, probability_faster, quality
from hilo_nas.states import TrialState

__all__ = [
    "SURE",
    "front_of",
    "near_front",
    "probability_beats",
    "probability_of_speed",
    "probability_on_front",
    "scored_trials",
    "seed_noise",
    "ties_of",
    "top1_errors",
    "top1_half_widths",
]

SURE = 0.95
"""A network is beaten when another is better in both objectives with at least this probability."""
_BETWEEN_TIMINGS = 0.02
"""Relative standard error that a timing has beside its interval, when two networks never shared a round.

Between passes, anchored images/s varied by 1.1 % on a quiet machine and by 2.4 % on a bursty one (two shared CPU cores,
`hilo-nas bench ruler`, report in benchmarks/).
"""
_DRAWS = 1000
"""A probability of 0.5 is then known to 0.016 (standard error), one of 0.05 to 0.007."""
_Z95 = 1.96
_probability_faster = functools.lru_cache(maxsize=8192)(probability_faster)
"""Rounds do not change, and a running search asks for the same pairs after each trial."""


def scored_trials(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Returns the complete trials of the search that trained, of which fronts are made."""
    found = (r for r in records if r.state == TrialState.COMPLETE and not r.is_peer and r.measurement)
    return [r for r in found if r.has_trained]


def front_of(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Returns the complete trials that none beats in both speed and proxy top-1, the fastest first.

    A network that did not train (`TrialRecord.has_trained`) is no evidence of anything: it stands on no front, is tied
    with none and beats none, however fast it is.
    """
    scored = scored_trials(records)
    on_front = is_non_dominated([_point(record) for record in scored])
    front = [record for record, keep in zip(scored, on_front, strict=True) if keep]
    return sorted(front, key=lambda record: -_point(record)[0])


def ties_of(records: Sequence[TrialRecord]) -> dict[int, tuple[int, ...]]:
    """Returns the trials that miss the point front but are not surely beaten, the fastest first.

    By number, the front's members that beat such a trial by their values alone: it is tied with those.
    """
    front, noise = front_of(records), seed_noise(records)
    members = {record.number for record in front}
    tied = {}
    for record in sorted(scored_trials(records), key=lambda record: -_point(record)[0]):
        if record.number in members or any(_surely_beats(rival, record, noise) for rival in front):
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
    front, noise = front_of(records), seed_noise(records)
    by_number = {record.number: record for record in records}
    tied = [by_number[number] for number in ties_of(records)]
    tied.sort(key=lambda record: max(probability_beats(rival, record, noise=noise) for rival in front))
    return sorted([*front, *tied][: max(at_most, len(front))], key=lambda record: -_point(record)[0])


def probability_on_front(records: Sequence[TrialRecord], *, draws: int = _DRAWS, seed: int = 0) -> dict[int, float]:
    """Returns by number how probable it is that no other complete trial is both faster and more accurate.

    Speeds and top-1s of all are drawn together, again and again, each around its value by its own error, and fronts are
    counted: a network of the point front with a near rival may have less than 0.5, and one that misses it a good
    chance. Networks that were timed in the same rounds share what differs from one timing to the next.

    Args:
        records: The study's.
        draws: How many; a probability p comes out with a standard error of sqrt(p * (1 - p) / draws). 1,000 draws of
            200 trials take a fraction of a second.
        seed: Of the draws; the same records give the same probabilities, in any order.
    """
    scored = sorted(scored_trials(records), key=lambda record: record.number)
    errors, gauss = top1_errors(records), Random(seed).gauss
    sizes = Counter(record.measurement.cohort for record in scored if record.measurement)
    together = [cohort for cohort, size in sizes.items() if cohort and size > 1]
    entries = []
    for record in scored:
        (images_per_s, top1), measurement = _point(record), record.measurement
        assert measurement is not None
        cohort = measurement.cohort if measurement.cohort in together else ""
        own = _interval_error(measurement) if cohort else _relative_error(measurement)
        entries.append((math.log(images_per_s), own, cohort, top1, errors[record.number], record.number))
    wins = {record.number: 0 for record in scored}
    for _ in range(draws):
        shared = {"": 0.0, **{cohort: gauss(0.0, _BETWEEN_TIMINGS) for cohort in together}}
        drawn = [
            (gauss(speed + shared[cohort], own), gauss(top1, error), number)
            for speed, own, cohort, top1, error, number in entries
        ]
        drawn.sort(reverse=True)
        best = -math.inf
        for _, top1, number in drawn:  # the fastest first: who is more accurate than all before is beaten by none
            if top1 > best:
                wins[number] += 1
                best = top1
    return {number: count / draws for number, count in wins.items()}


def seed_noise(records: Sequence[TrialRecord]) -> float:
    """Returns the standard deviation of top-1 from one training seed to another; 0.0 where no network has two seeds.

    Pooled over all complete networks with several seeds, each about its own mean. The seed that brought a network onto
    the front is among its own, and was a lucky one more often than not: the estimate errs on the wide side.
    """
    squares, freedom = 0.0, 0
    for record in scored_trials(records):
        top1s = [score.value for score in _counted(record)]
        if len(top1s) > 1:
            squares += statistics.variance(top1s) * (len(top1s) - 1)
            freedom += len(top1s) - 1
    return math.sqrt(squares / freedom) if freedom else 0.0


def top1_errors(records: Sequence[TrialRecord]) -> dict[int, float]:
    """Returns by number the standard error of each complete trial's top-1, the noise between seeds included.

    The errors hold for few held-out images (`ProxyScore.interval_error`).

    That noise is the pooled one (`seed_noise`) for all, for networks with several seeds too: two or three values of a
    network's own tell its spread within a factor of two or worse, and those that agree by chance would make it look
    certain. Where one network alone has several seeds, the pooled noise is its own. Until there are some, the errors
    are those of the held-out images alone.
    """
    noise = seed_noise(records)
    return {r.number: _top1_error(r, noise) for r in records if r.state == TrialState.COMPLETE and r.score}


def top1_half_widths(records: Sequence[TrialRecord]) -> dict[int, float]:
    """Returns by number half of the 95 % interval of each complete trial's top-1, from its `top1_errors`."""
    return {number: _Z95 * error for number, error in top1_errors(records).items()}


def probability_beats(own: TrialRecord, other: TrialRecord, *, noise: float = 0.0) -> float:
    """Returns how probable it is that a complete trial is both faster and more accurate than another.

    Speed from paired rounds where the two were timed side by side, top-1 from its standard errors; the two are
    independent of each other.

    Args:
        own: The one.
        other: The other.
        noise: Their study's `seed_noise`.
    """
    return _probability_of_top1(own, other, noise) * probability_of_speed(own, other)


def probability_of_speed(own: TrialRecord, other: TrialRecord) -> float:
    """Returns how probable it is that a measured trial is faster than another.

    Where they shared rounds, by these: of several such timings the best counts (`hilo_nas.rounds.quality`), then the
    most recent. Elsewhere each by the timing that counts for it.
    """
    assert own.measurement
    assert other.measurement
    if shared := _shared_rounds(own, other):
        best = min(item[0] for item in shared)
        _, _, ours, theirs, apart = max((item for item in shared if item[0] == best), key=lambda item: item[1])
        return _probability_faster(ours, theirs, apart)
    one, two = own.measurement, other.measurement
    difference = math.log(one.images_per_s / two.images_per_s)
    return normal_above_zero(difference, math.hypot(_relative_error(one), _relative_error(two)))


_Rounds = tuple[float, ...]


def _shared_rounds(own: TrialRecord, other: TrialRecord) -> list[tuple[int, str, _Rounds, _Rounds, float]]:
    """The rounds that two networks shared, with their timing's quality, its time, and the error they do not show."""
    found: list[tuple[int, str, _Rounds, _Rounds, float]] = []
    others = _timings_that_count(other)
    for ours in _timings_that_count(own):
        if other.key in ours.beside:
            rounds = ours.call_seconds, ours.beside[other.key]
            found.append((quality(ours), ours.measured_at, *rounds, error_apart(ours)))
        for theirs in others:
            if ours.cohort and ours.cohort == theirs.cohort:
                worse = max(quality(ours), quality(theirs))
                rounds = ours.call_seconds, theirs.call_seconds
                found.append((worse, ours.measured_at, *rounds, error_apart(ours)))
    for theirs in others:
        if own.key in theirs.beside:
            rounds = theirs.beside[own.key], theirs.call_seconds
            found.append((quality(theirs), theirs.measured_at, *rounds, error_apart(theirs)))
    return found


def _timings_that_count(record: TrialRecord) -> list[Measurement]:
    """The timings comparable with the first one: of its condition, device, protocol and form."""
    first = record.measurements[0]
    return [
        timing
        for timing in record.measurements
        if (timing.condition, timing.protocol, timing.form) == (first.condition, first.protocol, first.form)
        and not timing.device.differences(first.device)
    ]


def _surely_beats(own: TrialRecord, other: TrialRecord, noise: float) -> bool:
    """Whether `probability_beats` is at least `SURE`; the rounds are looked at only where the top-1 leaves it open."""
    return _probability_of_top1(own, other, noise) >= SURE and probability_beats(own, other, noise=noise) >= SURE


def _probability_of_top1(own: TrialRecord, other: TrialRecord, noise: float) -> float:
    assert own.score
    assert other.score
    gain = own.score.value - other.score.value
    return normal_above_zero(gain, math.hypot(_top1_error(own, noise), _top1_error(other, noise)))


def _top1_error(record: TrialRecord, noise: float) -> float:
    """Joins the error of the held-out images, which all seeds share, with that of the seeds' mean; see `mean_score`."""
    scores = _counted(record)
    of_images = math.sqrt(statistics.fmean(score.interval_error**2 for score in scores))
    return math.hypot(of_images, noise / math.sqrt(len(scores)))


def _counted(record: TrialRecord) -> list[ProxyScore]:
    """The scores that a record's `score` is the mean of."""
    assert record.score
    return [score for score in record.scores if score.images_seen == record.score.images_seen]


def _relative_error(measurement: Measurement) -> float:
    return math.hypot(_interval_error(measurement), _BETWEEN_TIMINGS)


def _interval_error(measurement: Measurement) -> float:
    """The relative standard error that a timing's own rounds tell."""
    return measurement.half_width / _Z95 / measurement.images_per_s


def _point(record: TrialRecord) -> tuple[float, float]:
    assert record.measurement
    assert record.score
    return record.measurement.images_per_s, record.score.value
