"""Networks of a space at random: what a bench times, what a study without a proxy times, what limits are foreseen from.

Every knob's choice is drawn evenly and by itself (`SearchSpace.sample`), and settings beyond the limits that formulas
decide are passed over. So settings within the limits are equally likely, and a network that many settings spell (by
knobs that do nothing in it) comes sooner than one that few spell.
"""

from __future__ import annotations

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
_DRAWS_AT_LEAST = 20_000
"""Settings of a larger space that are looked at before a list stays short: those within narrow limits are rare."""


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
    """Yields networks within limits and what they cost, each network once, in the order of the draws.

    The same seed gives the same networks in the same order, however many of them are taken. Ends after so many draws;
    where a space holds no network within the limits, nothing is yielded, and what that means is the caller's to say.

    Args:
        space: The space.
        limits: Those on params and MACs count, others are passed over.
        img_size: Side of the images in pixels, at which MACs are counted.
        num_classes: Outputs of the networks' classifiers.
        draws: Settings to draw at most.
        seed: Of the draws.
        skip_too_large: Whether to pass over networks whose stride is larger than the images.

    Raises:
        UsageError: A network's stride is larger than the images, and such are not passed over.
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
    """Returns networks of a space within its limits, each once, with settings that spell them, in a random order.

    The first networks of a longer list are those of a shorter one. A small space (up to 20,000 settings) is enumerated:
    then each network is as likely as any other, however many settings spell it.

    Args:
        space: The space.
        img_size: Side of the images in pixels, at which MACs are counted.
        num_classes: Outputs of the networks' classifiers.
        count: How many to return at most; None for all.
        seed: Of the order.

    Raises:
        UsageError: All are asked for of a space that is too large.
    """
    if space.n_configs > _ENUMERATE_UP_TO:
        if count is None:
            raise UsageError(
                f"only a space of up to {_ENUMERATE_UP_TO:,} settings can be gone through wholly, but {space.name} has "
                f"{space.n_configs:,}. Give a number of networks, or a space with fewer choices."
            )
        draws = max(100 * count, _DRAWS_AT_LEAST)
        drawn = draw_networks(space, space.limits, img_size=img_size, num_classes=num_classes, draws=draws, seed=seed)
        return [(arch, space.encode(arch)) for arch, _ in itertools.islice(drawn, count)]
    found: dict[str, tuple[ArchConfig, dict[str, int]]] = {}
    for values in itertools.product(*(range(n) for n in space.dimensions.values())):
        params = dict(zip(space.dimensions, values, strict=True))
        arch = space.decode(params)
        if is_within(space.limits, count_cost(arch, img_size, num_classes=num_classes)):
            found.setdefault(arch.key(), (arch, params))
    networks = list(found.values())
    Random(seed).shuffle(networks)
    return networks[:count]


def is_within(limits: Mapping[str, float], cost: NetworkCost) -> bool:
    """Returns whether a network keeps the limits on params and MACs; others are passed over."""
    return all(value <= 0 for value in free_violations(limits, parameters=cost.parameters, macs=cost.macs).values())
