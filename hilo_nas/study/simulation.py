"""Vectorized comparison of many networks with a front, and P(front) by simulation.

The numpy part of `hilo_nas.study.front`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from hilo_nas.study.comparison import BETWEEN_TIMINGS, SURE, Point

__all__ = ["find_rivals", "simulate_best", "simulate_fronts"]

_DRAWS_AT_ONCE = 100
"""Number of draws per batch. A batch takes 1 MB of memory per 600 networks."""
_EXCLUSION_ERRORS = 8.0
"""Number of standard errors in both objectives above which a beaten network is excluded from the simulation. Such a
network is on the front in about one of 10^14 draws."""
_SURE_ERRORS = NormalDist().inv_cdf(SURE) - 1e-6
"""Number of standard errors below which a gain in one objective cannot reach `SURE`. Gains above are computed
exactly unless they exceed `_CLEAR_ERRORS`."""
_CLEAR_ERRORS = 2.0
"""Number of standard errors in both speed and value that together reach `SURE`: 97.7 % each, 95.5 % for both."""
_Values = NDArray[np.float64]


def find_rivals(members: Sequence[Point], others: Sequence[Point], *, noise: float) -> list[tuple[bool, list[Point]]]:
    """Returns one pair for each network in `others`. `Front.ties` is computed from the pairs.

    The first item is True if a member certainly beats the network. The second item lists the members for which an exact
    check is needed.

    A member needs an exact check (`Point.surely_beats`) if the result is close to `SURE`, or if it may share rounds
    with the other network.

    Args:
        members: Members of the front.
        others: Networks that are not on the front.
        noise: Standard deviation of a value between training seeds.
    """
    gains, errors = _gains(members, others, noise)
    leads, lead_errors = _leads(members, others)
    may_share = _may_share_rounds(members, others)
    is_better, is_faster = gains >= _SURE_ERRORS * errors, leads >= _SURE_ERRORS * lead_errors
    is_sure = (gains >= _CLEAR_ERRORS * errors) & (leads >= _CLEAR_ERRORS * lead_errors) & ~may_share
    is_uncertain = is_better & (is_faster | may_share) & ~is_sure
    uncertain = [list(itertools.compress(members, selected)) for selected in is_uncertain.T.tolist()]
    beaten: list[bool] = np.logical_or.reduce(is_sure, axis=0).tolist()
    return list(zip(beaten, uncertain, strict=True))


def simulate_fronts(
    candidates: Sequence[Point], members: Sequence[Point], *, noise: float, draws: int, seed: int
) -> Mapping[int, float]:
    """Returns the share of draws in which each network is on the front, by trial number, for `Front.probabilities`.

    Args:
        candidates: All networks that can be on the front, in any order.
        members: Members of the point front.
        noise: Standard deviation of a value between training seeds.
        draws: Number of draws.
        seed: Seed of the draws.
    """
    random = np.random.default_rng(seed)
    scored = sorted(candidates, key=lambda point: point.number)
    wins = dict.fromkeys((point.number for point in scored), 0.0)
    is_drawn = _can_be_on_front(scored, members, noise)
    drawn = list(itertools.compress(scored, is_drawn.tolist()))
    sizes = Counter(point.timing.cohort for point in scored)
    together = sorted(cohort for cohort, size in sizes.items() if cohort and size > 1)
    speeds = np.log([point.images_per_s for point in drawn])
    speed_errors = [point.interval_error if point.timing.cohort in together else point.speed_error for point in drawn]
    cohorts = np.array([together.index(p.timing.cohort) if p.timing.cohort in together else -1 for p in drawn], int)
    values, errors = [point.likely_value for point in drawn], [point.value_error(noise) for point in drawn]
    count = np.zeros(len(drawn))
    for start in range(0, draws, _DRAWS_AT_ONCE):
        shape = min(_DRAWS_AT_ONCE, draws - start), len(drawn)
        # The last column stays zero, for networks that share no rounds (index -1).
        shared = np.zeros((shape[0], len(together) + 1))
        shared[:, :-1] = random.normal(0.0, BETWEEN_TIMINGS, (shape[0], len(together)))
        count += _count_fronts(
            random.normal(speeds, speed_errors, shape) + shared[:, cohorts], random.normal(values, errors, shape)
        )
    return wins | dict(zip((point.number for point in drawn), (count / draws).tolist(), strict=True))


def simulate_best(
    candidates: Sequence[Point],
    chances: Mapping[int, float],
    *,
    noise: float,
    by_speed: bool = False,
    draws: int = 1000,
    seed: int = 0,
) -> Mapping[int, float]:
    """Returns the share of draws in which each network is the best that meets some limits, by trial number.

    Each draw samples which networks meet the limits, and their values or speeds, all independently. The shares sum to
    less than 1 if no network meets the limits in some draws. The highest share comes first, and networks that are never
    the best are left out.

    Args:
        candidates: All networks that can be chosen, in any order.
        chances: Probability of each network that it meets the limits, by trial number.
        noise: Standard deviation of a value between training seeds.
        by_speed: True if the fastest is the best, False if the one with the highest value is.
        draws: Number of draws.
        seed: Seed of the draws.
    """
    random = np.random.default_rng(seed)
    points = sorted(candidates, key=lambda point: point.number)
    if not points:
        return {}
    if by_speed:
        means, errors = np.log([own.images_per_s for own in points]), [own.speed_error for own in points]
    else:
        means = np.array([own.likely_value for own in points])
        errors = [own.value_error(noise) for own in points]
    shape = draws, len(points)
    meets = random.random(shape) < [chances[own.number] for own in points]
    drawn = np.where(meets, random.normal(means, errors, shape), -np.inf)
    best = drawn.argmax(axis=1)[meets.any(axis=1)]
    shares = {points[i].number: count / draws for i, count in Counter(best.tolist()).items()}
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))


def _can_be_on_front(scored: Sequence[Point], members: Sequence[Point], noise: float) -> NDArray[np.bool_]:
    """Returns False for each network that a member beats by more than `_EXCLUSION_ERRORS` in both objectives.

    Excluding such a network does not change the result for others. Each network that it would beat is also beaten by
    that member.
    """
    gains, errors = _gains(members, scored, noise)
    leads, lead_errors = _leads(members, scored)
    is_beaten = (gains > _EXCLUSION_ERRORS * errors) & (leads > _EXCLUSION_ERRORS * lead_errors)
    return np.logical_not(is_beaten.any(axis=0))


def _gains(members: Sequence[Point], others: Sequence[Point], noise: float) -> tuple[_Values, _Values]:
    """Returns the value of each member (rows) minus that of each other network (columns), and the standard error."""
    gains = _column([own.likely_value for own in members]) - np.array([own.likely_value for own in others])
    errors = np.hypot(_column([own.value_error(noise) for own in members]), [own.value_error(noise) for own in others])
    return gains, errors


def _leads(members: Sequence[Point], others: Sequence[Point]) -> tuple[_Values, _Values]:
    """Returns the lead in log images/s of each member (rows) over each other network (columns), and its standard error.

    The error assumes that the networks share no rounds.
    """
    leads = np.log(_column([own.images_per_s for own in members])) - np.log([own.images_per_s for own in others])
    return leads, np.hypot(_column([own.speed_error for own in members]), [own.speed_error for own in others])


def _may_share_rounds(members: Sequence[Point], others: Sequence[Point]) -> NDArray[np.bool_]:
    """Returns True where a member (rows) and another network (columns) may have a timing in the same rounds."""
    found = np.zeros((len(members), len(others)), dtype=np.bool_)
    timed_in: dict[str, list[int]] = {}  # by cohort, and by the network's key
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
    """Returns for each network the number of draws in which no other has both a higher speed and a better value.

    Args:
        speeds: Log images/s, of shape (draws, networks).
        values: Values, of shape (draws, networks).
    """
    order = np.argsort(-speeds, axis=1)  # the fastest first
    ordered = np.take_along_axis(speeds, order, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():  # sorts equal speeds by value, which takes four times as long
        order = np.lexsort((-values, -speeds), axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    before = np.maximum.accumulate(ordered, axis=1)
    wins = np.ones(values.shape, dtype=np.bool_)
    wins[:, 1:] = ordered[:, 1:] > before[:, :-1]
    return np.bincount(order[wins], minlength=values.shape[1]).astype(np.float64)
