"""Features of networks for models of speed and value: knobs on their natural scales, and costs by formula.

Features follow from the canonical architecture, so equal networks have equal features, and networks outside the search
space have features too. Array names carry a shape suffix: N networks, D coordinates, C costs.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hilo_nas.arch.attentions import attention_named, lofi_heads
from hilo_nas.arch.config import N_STAGES, ArchConfig
from hilo_nas.arch.cost import count_cost
from hilo_nas.surrogate.gaussian_process import Floats

__all__ = ["FeatureScale", "Features", "NetworkFeatures", "describe_network"]

_EQUAL = 1e-6
"""Maximum difference between two scaled coordinates that count as one."""


@dataclasses.dataclass(frozen=True)
class NetworkFeatures:
    """Features of one network, before scaling."""

    knobs: tuple[float, ...]
    """Logarithms of patch size, widths, depths, MLP ratios, head widths and windows, and shares of Lo-Fi heads."""
    kinds: tuple[str, ...]
    """Kind of attention per stage."""
    log_costs: tuple[float, float]
    """Natural logarithms of parameters and multiply-adds."""


@functools.lru_cache(maxsize=50_000)
def describe_network(arch: ArchConfig, img_size: int, num_classes: int) -> NetworkFeatures:
    """Returns the features of a network. Results are cached.

    Args:
        arch: The architecture.
        img_size: Side of the timed images in pixels.
        num_classes: Number of outputs of the classifier.

    Raises:
        UsageError: The image is smaller than the network's total stride.
    """
    arch = arch.canonical()
    cost = count_cost(arch, img_size, num_classes=num_classes)
    knobs = [math.log2(arch.patch_size)]
    for stage in range(N_STAGES):
        uses = attention_named(arch.attention[stage]).uses
        width, heads = arch.embed_dims[stage], arch.num_heads[stage]
        window = arch.window_size[stage] if "window_size" in uses else 1
        lofi = lofi_heads(heads, arch.alpha[stage], window) / heads if "alpha" in uses else 0.0
        head_dim = math.log2(width / heads) if "num_heads" in uses else 0.0
        knobs += [math.log2(width), math.log2(arch.depths[stage]), math.log2(arch.mlp_ratios[stage])]
        knobs += [head_dim, math.log2(window), lofi]
    return NetworkFeatures(
        knobs=tuple(knobs), kinds=arch.attention, log_costs=(math.log(cost.parameters), math.log(cost.macs))
    )


@dataclasses.dataclass(frozen=True)
class Features:
    """Scaled features of N networks."""

    coordinates: Floats
    """Knobs, shape [N, D], from 0 to 1 within the scale's networks."""
    costs: Floats
    """Standardised logarithms of parameters and multiply-adds, shape [N, C]."""
    ids: NDArray[np.int64]
    """Numbers, shape [N], of which equal ones mean equal features."""

    def __len__(self) -> int:
        return len(self.coordinates)

    def take(self, rows: slice) -> Features:
        """Returns the features of some of the networks."""
        return Features(self.coordinates[rows], self.costs[rows], self.ids[rows])


class FeatureScale:
    """Scale of the features of a search space.

    Coordinates that are equal in all networks are left out. Of several coordinates that agree in all networks, such as
    widths that double from stage to stage, one remains.

    Args:
        networks: Networks of the space, such as some hundred random ones.
    """

    def __init__(self, networks: Sequence[NetworkFeatures]) -> None:
        self._kinds = [sorted({network.kinds[i] for network in networks}) for i in range(N_STAGES)]
        raw_ND = self._rows(networks)
        self._low, high_D = raw_ND.min(axis=0), raw_ND.max(axis=0)
        self._range = np.where(high_D > self._low, high_D - self._low, 1.0)
        scaled_ND = (raw_ND - self._low) / self._range
        self._columns: list[int] = []
        for column in np.flatnonzero(high_D > self._low):
            if all(np.abs(scaled_ND[:, column] - scaled_ND[:, own]).max() > _EQUAL for own in self._columns):
                self._columns.append(int(column))
        costs_NC = np.array([network.log_costs for network in networks])
        self._mean, sd_C = costs_NC.mean(axis=0), costs_NC.std(axis=0)
        self._sd = np.where(sd_C > 0, sd_C, 1.0)

    def transform(self, networks: Sequence[NetworkFeatures]) -> Features:
        """Returns the scaled features of networks. Outside the range of the scale, coordinates are not in 0 to 1."""
        if not networks:
            return Features(
                np.empty((0, len(self._columns))), np.empty((0, len(self._mean))), np.empty(0, dtype=np.int64)
            )
        scaled_ND = (self._rows(networks) - self._low) / self._range
        costs_NC = np.array([network.log_costs for network in networks])
        ids_N = np.array([hash(network) for network in networks], dtype=np.int64)
        return Features(scaled_ND[:, self._columns], (costs_NC - self._mean) / self._sd, ids_N)

    def _rows(self, networks: Sequence[NetworkFeatures]) -> Floats:
        """Returns knobs and one column per kind of attention and stage, unscaled."""
        return np.array(
            [
                [
                    *network.knobs,
                    *(
                        float(network.kinds[i] == kind)
                        for i, kinds in enumerate(self._kinds)
                        for kind in kinds[1:]  # the first kind is where all columns of the others are 0
                    ),
                ]
                for network in networks
            ]
        )
