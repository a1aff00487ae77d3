"""Kernels between networks. Array names carry a shape suffix: N and M networks, D coordinates, C costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from hilo_nas.surrogate.features import Features
from hilo_nas.surrogate.gaussian_process import Floats

__all__ = ["KERNELS", "NetworkKernel"]

NetworkKernel = Callable[[Features, Features], Floats]
"""Function that returns the [N, M] kernel between two sets of networks. Its diagonal is about 1."""


def _matern(distance: Floats) -> Floats:
    """Returns the Matern kernel with smoothness 5/2 at scaled distances."""
    scaled = math.sqrt(5.0) * distance
    return np.asarray((1 + scaled + scaled * scaled / 3) * np.exp(-scaled))


def linear(a: Features, b: Features) -> Floats:
    """Returns the kernel of a linear function of the logarithms of parameters and multiply-adds."""
    return np.asarray(a.costs @ b.costs.T / a.costs.shape[1])


def additive(a: Features, b: Features) -> Floats:
    """Returns the kernel of a sum of smooth functions, one for each coordinate.

    Knobs have few levels. Therefore the sum is a product of two matrices with one column per level: the kernel between
    each network and the level, and 1 where the other network has the level. It is ten times as fast as the sum of D
    kernels between all networks.
    """
    kernels_NL, has_level_ML = [], []
    for column_N, column_M in zip(a.coordinates.T, b.coordinates.T, strict=True):
        levels_L = np.unique(column_M)
        kernels_NL.append(_matern(np.abs(column_N[:, None] - levels_L)))
        has_level_ML.append(np.equal.outer(column_M, levels_L).astype(float))
    if not kernels_NL:
        return np.zeros((len(a), len(b)))
    return np.asarray(np.hstack(kernels_NL) @ np.hstack(has_level_ML).T / len(kernels_NL))


def _smooth(length: float) -> NetworkKernel:
    """Returns the kernel of a smooth function of all coordinates, with a length relative to the space's diagonal."""

    def kernel(a: Features, b: Features) -> Floats:
        dimensions = max(a.coordinates.shape[1], 1)
        squares = (
            np.square(a.coordinates).sum(axis=1)[:, None]
            + np.square(b.coordinates).sum(axis=1)[None, :]
            - 2 * a.coordinates @ b.coordinates.T
        )
        return _matern(np.sqrt(np.maximum(squares, 0.0) / dimensions) / length)

    return kernel


def own(a: Features, b: Features) -> Floats:
    """Returns the kernel of a deviation that each network has by itself: 1 between equal networks, else 0."""
    return np.equal.outer(a.ids, b.ids).astype(float)


KERNELS: Mapping[str, NetworkKernel] = {
    "linear": linear,
    "additive": additive,
    "smooth": _smooth(1.0),
    "rough": _smooth(0.3),
    "own": own,
}
"""Kernels of the models of speed and value, by name."""
