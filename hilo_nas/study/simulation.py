"""Many networks compared with a front at once: who may be beaten by it, and P(front) by simulation.

The arithmetic of `hilo_nas.study.front`, with numpy.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from hilo_nas.study.comparison import BETWEEN_TIMINGS, SURE, Point

__all__ = ["find_rivals", "simulate_fronts"]

_DRAWS_AT_ONCE = 100
"""Draws that lie in memory together: 1 MB per 600 networks."""
_HOPELESS = 8.0
"""Standard errors by which a network is beaten in both objectives when it takes no part in the simulation: it would
have to be on the front once in 10^14 draws."""
_BORDER = NormalDist().inv_cdf(SURE) - 1e-6
"""Standard errors below which a gain is not `SURE`; what lies near it is computed exactly."""
_CLEAR = 2.0
"""Standard errors of a lead in speed and of a gain in value that together are `SURE`: 97.7 % each, 95.5 % both."""
_Values = NDArray[np.float64]


def find_rivals(members: Sequence[Point], others: Sequence[Point], *, noise: float) -> list[tuple[bool, list[Point]]]:
    """Returns for each of the others whether some member clearly beats it, and the members that may surely beat it.

    The latter are those near the border, and those whose lead in speed is told by shared rounds.

    Args:
        members: Of the front.
        others: Networks that are not on it.
        noise: Standard deviation of a value from one training seed to another.
    """
    gains, errors = _gains(members, others, noise)
    leads, lead_errors = _leads(members, others)
    may_share = _may_share_rounds(members, others)
    is_better, is_faster = gains >= _BORDER * errors, leads >= _BORDER * lead_errors
    is_sure = (gains >= _CLEAR * errors) & (leads >= _CLEAR * lead_errors) & ~may_share
    is_doubtful = is_better & (is_faster | may_share) & ~is_sure
    doubtful = [list(itertools.compress(members, able)) for able in is_doubtful.T.tolist()]
    beaten: list[bool] = np.logical_or.reduce(is_sure, axis=0).tolist()
    return list(zip(beaten, doubtful, strict=True))


def simulate_fronts(
    candidates: Sequence[Point], members: Sequence[Point], *, noise: float, draws: int, seed: int
) -> Mapping[int, float]:
    """Returns by number in what share of draws a network is on the front; see `Front.probabilities`.

    Args:
        candidates: Every network that may be on the front, in any order.
        members: Those that are by their values.
        noise: Standard deviation of a value from one training seed to another.
        draws: How many.
        seed: Of the draws.
    """
    random = np.random.default_rng(seed)
    scored = sorted(candidates, key=lambda point: point.number)
    wins = dict.fromkeys((point.number for point in scored), 0.0)
    drawn = [point for point, is_drawn in zip(scored, _have_a_chance(scored, members, noise), strict=True) if is_drawn]
    sizes = Counter(point.timing.cohort for point in scored)
    together = sorted(cohort for cohort, size in sizes.items() if cohort and size > 1)
    speeds = np.log([point.images_per_s for point in drawn])
    speed_errors = [point.interval_error if point.timing.cohort in together else point.speed_error for point in drawn]
    cohorts = np.array([together.index(p.timing.cohort) if p.timing.cohort in together else -1 for p in drawn], int)
    values, errors = [point.value for point in drawn], [point.value_error(noise) for point in drawn]
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


def _have_a_chance(scored: Sequence[Point], members: Sequence[Point], noise: float) -> NDArray[np.bool_]:
    """Whether some draw may put each network on the front: no member beats it in both by `_HOPELESS` errors.

    Leaving out the others changes no draw: whom they would beat, the member that beats them beats too.
    """
    gains, errors = _gains(members, scored, noise)
    leads, lead_errors = _leads(members, scored)
    is_beaten = (gains > _HOPELESS * errors) & (leads > _HOPELESS * lead_errors)
    return np.logical_not(is_beaten.any(axis=0))


def _gains(members: Sequence[Point], others: Sequence[Point], noise: float) -> tuple[_Values, _Values]:
    """The gain in value of each member (rows) over each other (columns), and its standard error."""
    gains = _column([own.value for own in members]) - np.array([own.value for own in others])
    errors = np.hypot(_column([own.value_error(noise) for own in members]), [own.value_error(noise) for own in others])
    return gains, errors


def _leads(members: Sequence[Point], others: Sequence[Point]) -> tuple[_Values, _Values]:
    """The lead in log images/s of each member (rows) over each other (columns), and its error without shared rounds."""
    leads = np.log(_column([own.images_per_s for own in members])) - np.log([own.images_per_s for own in others])
    return leads, np.hypot(_column([own.speed_error for own in members]), [own.speed_error for own in others])


def _may_share_rounds(members: Sequence[Point], others: Sequence[Point]) -> NDArray[np.bool_]:
    """Whether each member (rows) and each other (columns) have a timing in the same rounds."""
    found = np.zeros((len(members), len(others)), dtype=np.bool_)
    timed_in: dict[str, list[int]] = {}  # cohorts, and a network's own rounds by its key
    timed_beside: dict[str, list[int]] = {}
    for i, other in enumerate(others):
        for name in {*other.cohorts, other.record.key}:
            timed_in.setdefault(name, []).append(i)
        for key in other.beside:
            timed_beside.setdefault(key, []).append(i)
    for row, member in zip(found, members, strict=True):
        row[timed_beside.get(member.record.key, [])] = True
        for name in member.cohorts | member.beside:
            row[timed_in.get(name, [])] = True
    return found


def _column(values: Sequence[float]) -> _Values:
    return np.array(values, dtype=np.float64)[:, np.newaxis]


def _count_fronts(speeds: _Values, values: _Values) -> _Values:
    """Returns for each network in how many draws no other is both faster and better scored.

    Args:
        speeds: A row per draw, a column per network.
        values: Likewise.
    """
    order = np.argsort(-speeds, axis=1)  # the fastest first
    ordered = np.take_along_axis(speeds, order, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():  # of equal ones the better first, at four times the cost
        order = np.lexsort((-values, -speeds), axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    before = np.maximum.accumulate(ordered, axis=1)
    wins = np.ones(values.shape, dtype=np.bool_)
    wins[:, 1:] = ordered[:, 1:] > before[:, :-1]
    return np.bincount(order[wins], minlength=values.shape[1]).astype(np.float64)
