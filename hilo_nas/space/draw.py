"""Random networks of a search space, for benchmarks, studies without a proxy, and estimates of limits.

Each knob is drawn independently and uniformly (`SearchSpace.sample`). Combinations of knob values outside the limits on
parameters and multiply-adds are skipped, so all combinations within these limits are equally likely. Several
combinations may describe the same network, because a knob can be without effect in it. A network with more combinations
tends to be drawn earlier.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping
from random import Random

from hilo_nas.arch.config import ArchConfig
from hilo_nas.arch.cost import NetworkCost, count_cost
from hilo_nas.errors import UsageError
from hilo_nas.space.limits import free_violations
from hilo_nas.space.space import SearchSpace

__all__ = ["draw_networks", "is_within", "list_networks"]

_ENUMERATE_UP_TO = 20_000
"""Maximum number of combinations of knob values in a space that is enumerated."""
_MIN_DRAWS = 20_000
"""Minimum number of draws for a list of networks. Networks within tight limits are rare."""


def draw_networks(
    space: SearchSpace,
    limits: Mapping[str, float],
    *,
    img_size: int,
    num_classes: int,
    draws: int,
    seed: int = 0,
    skip_too_large: bool = False,
) -> Iterator[tuple[ArchConfig, NetworkCost]]:
    """Yields random networks within limits, with their costs. Each network comes once, in the order of the draws.

    The same seed gives the same sequence of networks. The generator ends after `draws` combinations of knob values. It
    yields nothing if none of them is within the limits.

    Args:
        space: The space.
        limits: Limits by name. Only those on parameters and multiply-adds count.
        img_size: Side of the images in pixels. It determines the multiply-adds.
        num_classes: Number of outputs of the classifiers.
        draws: Maximum number of combinations of knob values to draw.
        seed: Seed of the draws.
        skip_too_large: True to skip networks with a stride that is larger than the images.

    Raises:
        UsageError: The stride of a network is larger than the images and `skip_too_large` is False.
    """
    random, seen = Random(seed), set()
    for _ in range(draws):
        arch = space.decode(space.sample(random))
        if skip_too_large and arch.stride > img_size:
            continue
        cost = count_cost(arch, img_size, num_classes=num_classes)
        if is_within(limits, cost) and arch.key() not in seen:
            seen.add(arch.key())
            yield arch, cost


def list_networks(
    space: SearchSpace, *, img_size: int, num_classes: int, count: int | None = None, seed: int = 0
) -> list[tuple[ArchConfig, dict[str, int]]]:
    """Returns networks of a space within its limits in random order, each once, with parameters that describe it.

    A longer list starts with the networks of a shorter one. A space with up to 20,000 combinations of knob values is
    enumerated. In this case, all networks are equally likely, regardless of how many combinations describe them.

    Args:
        space: The space.
        img_size: Side of the images in pixels. It determines the multiply-adds.
        num_classes: Number of outputs of the classifiers.
        count: Maximum number of networks, or None for all.
        seed: Seed of the order.

    Raises:
        UsageError: `count` is None and the space has more than 20,000 combinations of knob values.
    """
    if space.n_configs > _ENUMERATE_UP_TO:
        if count is None:
            raise UsageError(
                f"a space must have at most {_ENUMERATE_UP_TO:,} combinations of knob values to list all networks, but "
                f"{space.name} has {space.n_configs:,}. Give a number of networks, or a space with fewer choices."
            )
        draws = max(100 * count, _MIN_DRAWS)
        drawn = draw_networks(space, space.limits, img_size=img_size, num_classes=num_classes, draws=draws, seed=seed)
        return [(arch, space.encode(arch)) for arch, _ in itertools.islice(drawn, count)]
    found = _enumerate(_Hashed(space.hash(), space), img_size, num_classes)
    networks = [(arch, dict(params)) for arch, params in found]
    Random(seed).shuffle(networks)
    return networks[:count]


@dataclasses.dataclass(frozen=True)
class _Hashed:
    """A space, equal to others with the same hash."""

    hash: str
    space: SearchSpace = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=2)
def _enumerate(hashed: _Hashed, img_size: int, num_classes: int) -> tuple[tuple[ArchConfig, dict[str, int]], ...]:
    """Returns all networks of a space within its limits. It takes up to seconds, so the last results are kept."""
    space = hashed.space
    found: dict[str, tuple[ArchConfig, dict[str, int]]] = {}
    for values in itertools.product(*(range(n) for n in space.dimensions.values())):
        params = dict(zip(space.dimensions, values, strict=True))
        arch = space.decode(params)
        if is_within(space.limits, count_cost(arch, img_size, num_classes=num_classes)):
            found.setdefault(arch.key(), (arch, params))
    return tuple(found.values())


def is_within(limits: Mapping[str, float], cost: NetworkCost) -> bool:
    """Returns True if a network is within the limits on parameters and multiply-adds. Other limits are ignored."""
    return all(value <= 0 for value in free_violations(limits, parameters=cost.parameters, macs=cost.macs).values())
