"""Networks of a space at random: what a bench times, what a table of speeds holds, what limits are foreseen from.

Every knob's choice is drawn evenly and by itself (`SearchSpace.sample`), and settings beyond the limits that formulas
decide are passed over. So settings within the limits are equally likely, and a network that many settings spell (by
knobs that do nothing in it) comes sooner than one that few spell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

from hilo_nas.arch import ArchConfig
from hilo_nas.cost import NetworkCost, count_cost
from hilo_nas.space.limits import free_violations
from hilo_nas.space.space import SearchSpace

__all__ = ["draw_networks", "is_within"]


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


def is_within(limits: Mapping[str, float], cost: NetworkCost) -> bool:
    """Returns whether a network keeps the limits on params and MACs; others are passed over."""
    return all(value <= 0 for value in free_violations(limits, parameters=cost.parameters, macs=cost.macs).values())
