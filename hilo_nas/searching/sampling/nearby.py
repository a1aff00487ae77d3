"""Feasible and new networks near a proposal."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from random import Random

from hilo_nas.errors import SpaceExhaustedError
from hilo_nas.space import SearchSpace

__all__ = ["find_near", "find_nearest_in"]

_MAX_VISITED = 20_000
"""Parameter sets visited around a proposal before `find_near` tries the rest of the space at random."""
_MAX_ENUMERATED = 200_000


def find_near(
    space: SearchSpace,
    params: Mapping[str, int],
    *,
    excess: Callable[[Mapping[str, int]], float],
    is_known: Callable[[Mapping[str, int]], bool],
    random: Random,
) -> dict[str, int]:
    """Returns the parameters themselves if they are feasible and new, otherwise a nearby set that is.

    The search first reduces the excess, then the number of steps. Ties are broken at random.

    Args:
        space: Search space.
        params: The proposal.
        excess: Returns how far parameters exceed the limits; feasible if at most 0.
        is_known: Returns True if the network of the parameters was already tried.
        random: Generator that breaks ties.

    Raises:
        SpaceExhaustedError: No such parameters were found. The search is exhaustive for up to 200,000 parameter sets.
    """
    start = dict(params)
    queue = [(max(excess(start), 0.0), 0, random.random(), start)]
    seen = {tuple(start.values())}
    for _ in range(_MAX_VISITED):
        if not queue:
            break
        beyond, steps, _, setting = heapq.heappop(queue)
        if beyond <= 0 and not is_known(setting):
            return setting
        for neighbour in space.neighbours(setting):
            values = tuple(neighbour.values())
            if values not in seen:
                seen.add(values)
                heapq.heappush(queue, (max(excess(neighbour), 0.0), steps + 1, random.random(), neighbour))
    if queue:  # the visit limit was reached
        rest = _enumerate(space, random) if space.n_configs <= _MAX_ENUMERATED else _draw(space, random)
        for setting in rest:
            if excess(setting) <= 0 and not is_known(setting):
                return setting
    raise SpaceExhaustedError


def _enumerate(space: SearchSpace, random: Random) -> Sequence[dict[str, int]]:
    ranges = [range(n) for n in space.dimensions.values()]
    settings = [dict(zip(space.dimensions, values, strict=True)) for values in itertools.product(*ranges)]
    random.shuffle(settings)
    return settings


def _draw(space: SearchSpace, random: Random) -> Sequence[dict[str, int]]:
    return [space.sample(random) for _ in range(_MAX_VISITED)]


def find_nearest_in(
    pool: Sequence[Mapping[str, int]],
    dimensions: Mapping[str, int],
    params: Mapping[str, int],
    *,
    excess: Callable[[Mapping[str, int]], float],
    is_known: Callable[[Mapping[str, int]], bool],
) -> dict[str, int]:
    """Returns the feasible and new member of a pool that is nearest to the proposal.

    The distance is the L1 distance with each knob's range scaled to 1.

    Raises:
        SpaceExhaustedError: The pool has no such member.
    """

    def distance(setting: Mapping[str, int]) -> float:
        return sum(abs(setting[name] - params[name]) / max(n - 1, 1) for name, n in dimensions.items())

    for setting in sorted(pool, key=distance):
        if excess(setting) <= 0 and not is_known(setting):
            return dict(setting)
    raise SpaceExhaustedError
