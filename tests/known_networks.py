"""Networks of `litv2_digits` with planted speeds and values, as the models of a search learn from them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
from builders import digits

from hilo_nas.arch.config import ArchConfig
from hilo_nas.space import draw_networks
from hilo_nas.surrogate.features import Features, FeatureScale, NetworkFeatures, describe_network
from hilo_nas.surrogate.observations import KnownNetwork, KnownScore


def draw_archs(count: int, seed: int = 0) -> list[ArchConfig]:
    """Different random networks of the space."""
    drawn = draw_networks(digits(), {}, img_size=32, num_classes=10, draws=4 * count + 100, seed=seed)
    return [arch for arch, _ in drawn][:count]


def describe(archs: Sequence[ArchConfig]) -> list[NetworkFeatures]:
    """The features of networks at 32 pixels and 10 classes."""
    return [describe_network(arch, 32, 10) for arch in archs]


@functools.cache
def scale_of_space() -> FeatureScale:
    """The scale of 300 random networks."""
    return FeatureScale(describe(draw_archs(300, seed=99)))


def scaled(archs: Sequence[ArchConfig]) -> Features:
    """Features on the scale of the space."""
    return scale_of_space().transform(describe(archs))


def value_of(arch: ArchConfig) -> float:
    """A score between 0.2 and 0.9 that rises with width and depth, and is best at a share of Lo-Fi heads of 1/2."""
    wealth = math.log2(arch.embed_dims[0] / 8) / 2 + arch.depths[2] / 4 + 0.3 * math.log2(arch.mlp_ratios[0])
    return 0.2 + 0.7 / (1 + math.exp(1.2 - wealth)) - 0.2 * (arch.alpha[2] - 0.5) ** 2


def log_speed_of(arch: ArchConfig) -> float:
    """Log images/s that falls with width and depth."""
    return 9.0 - math.log(arch.embed_dims[0]) - 0.15 * sum(arch.depths) - 0.1 * arch.mlp_ratios[0]


def know(arch: ArchConfig, value: float | None = None, **fields: Any) -> KnownNetwork:
    """A network with its planted speed and, if given, a score at the full budget."""
    scores = () if value is None else (KnownScore(value=value, standard_error=0.01),)
    values = {"log_speed": log_speed_of(arch), "log_speed_error": 0.01, "scores": scores}
    return KnownNetwork(key=arch.key(), features=describe([arch])[0], **{**values, **fields})


def know_trained(archs: Sequence[ArchConfig], *, noise: float = 0.01, seed: int = 0) -> list[KnownNetwork]:
    """Timed and trained networks, whose scores have some noise."""
    random = Random(seed)
    return [know(arch, value_of(arch) + random.gauss(0, noise)) for arch in archs]


def values_of(archs: Sequence[ArchConfig], *, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """The planted values of networks, with noise."""
    return np.array([value_of(arch) for arch in archs]) + np.random.default_rng(seed).normal(0, noise, len(archs))
