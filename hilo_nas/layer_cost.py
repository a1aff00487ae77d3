"""Parameters and multiply-adds of single attention layers, by formula and without torch.

Multiply-adds (`macs`) are those of products and convolutions at batch 1, as in `hilo_nas.cost`; softmax, normalisation,
averaging and activations are left out. What a layer really multiplies counts: tokens that pad a map to whole windows,
scores that a mask throws away, and the products in which clusters are found. Biases count as parameters (`qkv_bias` is
True in every network here). Tests check both against the modules.

Letters of the formulas: C channels, D head dimension, N tokens of the map, T tokens of the map padded to whole windows,
S tokens of a window, G windows, M tokens of a reduced map.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from hilo_nas.arch import ATTENTION_KINDS, lofi_heads
from hilo_nas.errors import ArchError, UsageError

__all__ = [
    "HASH_BITS",
    "LLOYD_ITERATIONS",
    "N_CLUSTERS",
    "POOLED_SIDE",
    "elfatt_global_heads",
    "layer_macs",
    "layer_params",
]

POOLED_SIDE = 7
"""Greatest side of the map that pooled attention averages its keys and values from, in tokens (PVTv2's)."""
N_CLUSTERS = 25
"""Clusters of queries in a head of clustered attention, with as many as its paper approximates BERT."""
HASH_BITS = 64
"""Bits of a query's hash in clustered attention."""
LLOYD_ITERATIONS = 10
"""Rounds of K-means in clustered attention."""


def layer_params(kind: str, dim: int, **knobs: Any) -> int:
    """Returns the number of weights and biases of one attention layer.

    Args:
        kind: A name of `hilo_nas.arch.ATTENTION_KINDS`, or `linformer`.
        dim: Channels of the map.
        **knobs: What the layer takes, by its constructor's names: num_heads, window_size, alpha, tokens, rank,
            n_clusters. Those that the kind does not feel are ignored, so that one set serves all kinds.

    Raises:
        ArchError: An unknown kind.
    """
    return _formula(_PARAMS, kind)(dim, **knobs)


def layer_macs(kind: str, dim: int, height: int, width: int, **knobs: Any) -> int:
    """Returns the multiply-adds of one attention layer on a map of `height` x `width` tokens.

    Args:
        kind: A name of `hilo_nas.arch.ATTENTION_KINDS`, or `linformer`.
        dim: Channels of the map.
        height: Height of the map, in tokens.
        width: Width of the map, in tokens.
        **knobs: As for `layer_params`.

    Raises:
        ArchError: An unknown kind.
        UsageError: A Linformer on a map that has not `tokens` tokens.
    """
    return _formula(_MACS, kind)(dim, height, width, **knobs)


def _formula(table: dict[str, Callable[..., int]], kind: str) -> Callable[..., int]:
    if kind not in table:
        raise ArchError(f"attention must be one of {', '.join(table)}, but got {kind!r}")
    return table[kind]


def _windows(height: int, width: int, window_size: int) -> tuple[int, int]:
    """Returns G and S: how many windows cover a map, and the tokens of one."""
    return math.ceil(height / window_size) * math.ceil(width / window_size), window_size**2


def _linear(inputs: int, outputs: int) -> int:
    """Weights and biases of a projection."""
    return (inputs + 1) * outputs


def _four_projections(C: int, **_: Any) -> int:
    """Queries, keys, values and output."""
    return 4 * _linear(C, C)


# HiLo.


def _split(C: int, num_heads: int, window_size: int, alpha: float) -> tuple[int, int]:
    """Channels of Hi-Fi and of Lo-Fi."""
    lofi_dim = lofi_heads(num_heads, alpha, window_size) * (C // num_heads)
    return C - lofi_dim, lofi_dim


def _hilo_params(C: int, num_heads: int, window_size: int, alpha: float, **_: Any) -> int:
    parts = _split(C, num_heads, window_size, alpha)
    return sum(_linear(C, 3 * part) + _linear(part, part) for part in parts)


def _hilo_macs(C: int, height: int, width: int, num_heads: int, window_size: int, alpha: float, **_: Any) -> int:
    hifi_dim, lofi_dim = _split(C, num_heads, window_size, alpha)
    G, S = _windows(height, width, window_size)
    hifi = G * S * hifi_dim * (3 * C + 2 * S + hifi_dim)
    lofi = G * S * lofi_dim * (C + 2 * G + lofi_dim) + G * C * 2 * lofi_dim
    return hifi + lofi


# The others, in the order of their files in `hilo_nas.models.attentions`.


def _msa_macs(C: int, height: int, width: int, **_: Any) -> int:
    N = height * width
    return 4 * N * C**2 + 2 * N**2 * C


def _reduced_macs(C: int, N: int, M: int) -> int:
    """Queries of N tokens, keys and values of M, attention between them and the output."""
    return 2 * N * C**2 + 2 * M * C**2 + 2 * N * M * C


def _sra_params(C: int, window_size: int, **_: Any) -> int:
    reduction = _linear(window_size**2 * C, C) + 2 * C
    return _four_projections(C) + (reduction if window_size > 1 else 0)


def _sra_macs(C: int, height: int, width: int, window_size: int, **_: Any) -> int:
    G, S = _windows(height, width, window_size)
    reduction = G * S * C**2
    return _reduced_macs(C, height * width, G) + (reduction if window_size > 1 else 0)


def _pooled_params(C: int, **_: Any) -> int:
    return _four_projections(C) + _linear(C, C) + 2 * C


def _pooled_macs(C: int, height: int, width: int, **_: Any) -> int:
    M = min(height, POOLED_SIDE) * min(width, POOLED_SIDE)
    return _reduced_macs(C, height * width, M) + M * C**2


def _linformer_params(C: int, tokens: int, rank: int, **_: Any) -> int:
    return _four_projections(C) + 2 * rank * tokens


def _linformer_macs(C: int, height: int, width: int, tokens: int, rank: int, **_: Any) -> int:
    if tokens != height * width:
        raise UsageError(f"a linformer for {tokens} tokens takes maps of as many, but got {height} x {width}")
    return _reduced_macs(C, tokens, rank) + 2 * rank * tokens * C


def _window_macs(C: int, height: int, width: int, window_size: int, **_: Any) -> int:
    G, S = _windows(height, width, window_size)
    return 4 * G * S * C**2 + 2 * G * S**2 * C


def _hat_params(C: int, window_size: int, **_: Any) -> int:
    return _four_projections(C) + (_linear(C, 3 * C) if window_size > 1 else 0)


def _hat_macs(C: int, height: int, width: int, window_size: int, **_: Any) -> int:
    G, S = _windows(height, width, window_size)
    T = G * S
    local = 3 * T * C**2 + 2 * T * S * C
    return _reduced_macs(C, T, G) + (local if window_size > 1 else 0)


def _carrier_params(C: int, **_: Any) -> int:
    return 2 * _four_projections(C) + 2 * C


def _carrier_macs(C: int, height: int, width: int, window_size: int, **_: Any) -> int:
    G, S = _windows(height, width, window_size)
    carriers = 4 * G * C**2 + 2 * G**2 * C
    windows = 4 * G * (S + 1) * C**2 + 2 * G * (S + 1) ** 2 * C
    return carriers + windows


def _xca_params(C: int, num_heads: int, **_: Any) -> int:
    return _four_projections(C) + num_heads


def _xca_macs(C: int, height: int, width: int, num_heads: int, **_: Any) -> int:
    N, D = height * width, C // num_heads
    return 4 * N * C**2 + 2 * N * C * D


def elfatt_global_heads(num_heads: int) -> int:
    """Heads of ELFATT that attend linearly over the whole map: half of them, rounded down; the others are local."""
    return num_heads // 2


def _elfatt_params(C: int, **_: Any) -> int:
    return _four_projections(C) + 10 * C


def _elfatt_macs(C: int, height: int, width: int, num_heads: int, window_size: int, **_: Any) -> int:
    N, D = height * width, C // num_heads
    G, S = _windows(height, width, window_size)
    global_dim = elfatt_global_heads(num_heads) * D
    of_global = N * global_dim * (3 * C + 2 * D + 9)
    of_local = G * S * (C - global_dim) * (3 * C + 2 * S + 9)
    return of_global + of_local + N * C**2


def _clustered_macs(C: int, height: int, width: int, num_heads: int, n_clusters: int = N_CLUSTERS, **_: Any) -> int:
    N = height * width
    K = min(n_clusters, N)
    hashing = N * C * HASH_BITS
    distances = LLOYD_ITERATIONS * num_heads * N * K * HASH_BITS
    centres = (LLOYD_ITERATIONS - 1) * num_heads * N * K * HASH_BITS
    attention = N * K * C + 2 * N * K * C  # the means of the queries, then what they attend to
    return 4 * N * C**2 + hashing + distances + centres + attention


_PARAMS: dict[str, Callable[..., int]] = {
    "none": lambda C, **_: 0,
    "hilo": _hilo_params,
    "msa": _four_projections,
    "sra": _sra_params,
    "pooled": _pooled_params,
    "linformer": _linformer_params,
    "window": _four_projections,
    "shifted": _four_projections,
    "hat": _hat_params,
    "carrier": _carrier_params,
    "xca": _xca_params,
    "elfatt": _elfatt_params,
    "clustered": _four_projections,
}
_MACS: dict[str, Callable[..., int]] = {
    "none": lambda C, height, width, **_: 0,
    "hilo": _hilo_macs,
    "msa": _msa_macs,
    "sra": _sra_macs,
    "pooled": _pooled_macs,
    "linformer": _linformer_macs,
    "window": _window_macs,
    "shifted": _window_macs,
    "hat": _hat_macs,
    "carrier": _carrier_macs,
    "xca": _xca_macs,
    "elfatt": _elfatt_macs,
    "clustered": _clustered_macs,
}
assert _PARAMS.keys() == _MACS.keys() == {*ATTENTION_KINDS, "linformer"}
