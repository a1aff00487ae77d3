"""Kinds of attention: layer names, the knobs that they use, and their cost by formula. Does not import torch.

Multiply-adds (`macs`) include matrix products and convolutions at batch size 1, as in `hilo_nas.arch.cost`. They
exclude softmax, normalisation, averaging and activations. Every multiplication that a layer executes counts: padding
tokens, scores that a mask discards, and the products that assign tokens to clusters. Biases count as parameters
because `qkv_bias` is True in every network here. Tests compare both counts with the modules.

Symbols in the formulas: C channels, D head dimension, N tokens of the map, T tokens of the map padded to whole windows,
S tokens of a window, G windows, M tokens of a reduced map.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from hilo_nas.errors import ArchError, UsageError
from hilo_nas.plugins import find_installed, installed_names

__all__ = [
    "ATTENTION_KINDS",
    "HASH_BITS",
    "LINFORMER",
    "LLOYD_ITERATIONS",
    "N_CLUSTERS",
    "POOLED_SIDE",
    "AttentionKind",
    "attention_named",
    "attention_names",
    "elfatt_global_heads",
    "find_attention",
    "lofi_heads",
]

POOLED_SIDE = 7
"""Maximum side of the pooled map in pooled attention, in tokens; the value of PVTv2."""
N_CLUSTERS = 25
"""Clusters per head in clustered attention; the paper uses this number to approximate BERT."""
HASH_BITS = 64
"""Bits per query hash in clustered attention."""
LLOYD_ITERATIONS = 10
"""K-means iterations in clustered attention."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionKind:
    """Declaration of one kind of attention that a stage can use. The declaration does not import torch.

    To add a kind, a package defines a declaration and registers it as an entry point in the group
    `hilo_nas.attentions`.
    """

    name: str
    """Name in search spaces and architectures."""
    layer: str | None
    """Layer class as `module:class`, imported when a network is built; None for no attention. The constructor takes
    `dim` and the knobs in `uses`. The module maps a feature map (B, H, W, C) to one of the same shape."""
    uses: tuple[str, ...] = ()
    """Per-stage knobs that the layer uses: a subset of num_heads, alpha and window_size. The layer ignores the rest."""
    params: Callable[..., int]
    """Number of weights and biases of a layer. Called with the channels and, by name, the other constructor arguments;
    ignores arguments that the layer does not use."""
    macs: Callable[..., int]
    """Number of multiply-adds of a layer. Called with the channels, the height and width of the feature map in tokens,
    and the same named arguments as `params`."""


def _windows(height: int, width: int, window_size: int) -> tuple[int, int]:
    """Returns G and S: the number of windows that cover a feature map, and the tokens per window."""
    return math.ceil(height / window_size) * math.ceil(width / window_size), window_size**2


def _linear(inputs: int, outputs: int) -> int:
    """Returns the number of weights and biases of a linear layer."""
    return (inputs + 1) * outputs


def _four_projections(C: int, **_: Any) -> int:
    """Returns the number of parameters of the query, key, value and output projections."""
    return 4 * _linear(C, C)


# HiLo.


def lofi_heads(num_heads: int, alpha: float, window_size: int) -> int:
    """Returns the number of Lo-Fi heads: `int(num_heads * alpha)`, or all heads if `window_size` is 1."""
    return num_heads if window_size == 1 else int(num_heads * alpha)


def _split(C: int, num_heads: int, window_size: int, alpha: float) -> tuple[int, int]:
    """Returns the channels of Hi-Fi and of Lo-Fi."""
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


# Other kinds, in the order of their files in `hilo_nas.models.attentions`.


def _msa_macs(C: int, height: int, width: int, **_: Any) -> int:
    N = height * width
    return 4 * N * C**2 + 2 * N**2 * C


def _reduced_macs(C: int, N: int, M: int) -> int:
    """Returns the MACs of attention from N queries to M keys and values, with all four projections."""
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
        raise UsageError(
            f"the map of a linformer layer must have {tokens} tokens, but got {height} x {width}. "
            f"Use tokens={height * width}."
        )
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
    """Returns the number of global (linear) heads of ELFATT: half of all heads, rounded down. The rest are local."""
    return num_heads // 2


def _elfatt_params(C: int, **_: Any) -> int:
    return _four_projections(C) + 10 * C


def _elfatt_macs(C: int, height: int, width: int, num_heads: int, window_size: int, **_: Any) -> int:
    N, D = height * width, C // num_heads
    G, S = _windows(height, width, window_size)
    global_dim = elfatt_global_heads(num_heads) * D
    global_macs = N * global_dim * (3 * C + 2 * D + 9)
    local_macs = G * S * (C - global_dim) * (3 * C + 2 * S + 9)
    return global_macs + local_macs + N * C**2


def _clustered_macs(C: int, height: int, width: int, num_heads: int, n_clusters: int = N_CLUSTERS, **_: Any) -> int:
    N = height * width
    K = min(n_clusters, N)
    hashing = N * C * HASH_BITS
    distances = LLOYD_ITERATIONS * num_heads * N * K * HASH_BITS
    centres = (LLOYD_ITERATIONS - 1) * num_heads * N * K * HASH_BITS
    attention = N * K * C + 2 * N * K * C  # mean query per cluster, then attention of the means
    return 4 * N * C**2 + hashing + distances + centres + attention


_LAYERS = "hilo_nas.models.attentions"
_BUILTIN_KINDS = (
    AttentionKind(
        name="none",
        layer=None,
        params=lambda C, **_: 0,
        macs=lambda C, height, width, **_: 0,
    ),
    AttentionKind(
        name="hilo",
        layer="hilo_nas.models.hilo:HiLo",
        uses=("num_heads", "alpha", "window_size"),
        params=_hilo_params,
        macs=_hilo_macs,
    ),
    AttentionKind(
        name="msa",
        layer=f"{_LAYERS}.self_attention:MSA",
        uses=("num_heads",),
        params=_four_projections,
        macs=_msa_macs,
    ),
    AttentionKind(
        name="sra",
        layer=f"{_LAYERS}.reduced:SRA",
        uses=("num_heads", "window_size"),
        params=_sra_params,
        macs=_sra_macs,
    ),
    AttentionKind(
        name="pooled",
        layer=f"{_LAYERS}.reduced:PooledAttention",
        uses=("num_heads",),
        params=_pooled_params,
        macs=_pooled_macs,
    ),
    AttentionKind(
        name="window",
        layer=f"{_LAYERS}.windowed:WindowAttention",
        uses=("num_heads", "window_size"),
        params=_four_projections,
        macs=_window_macs,
    ),
    AttentionKind(
        name="shifted",
        layer=f"{_LAYERS}.windowed:ShiftedWindowAttention",
        uses=("num_heads", "window_size"),
        params=_four_projections,
        macs=_window_macs,
    ),
    AttentionKind(
        name="hat",
        layer=f"{_LAYERS}.hierarchical:HMSA",
        uses=("num_heads", "window_size"),
        params=_hat_params,
        macs=_hat_macs,
    ),
    AttentionKind(
        name="carrier",
        layer=f"{_LAYERS}.hierarchical:CarrierAttention",
        uses=("num_heads", "window_size"),
        params=_carrier_params,
        macs=_carrier_macs,
    ),
    AttentionKind(
        name="xca",
        layer=f"{_LAYERS}.linear:XCA",
        uses=("num_heads",),
        params=_xca_params,
        macs=_xca_macs,
    ),
    AttentionKind(
        name="elfatt",
        layer=f"{_LAYERS}.linear:ELFATT",
        uses=("num_heads", "window_size"),
        params=_elfatt_params,
        macs=_elfatt_macs,
    ),
    AttentionKind(
        name="clustered",
        layer=f"{_LAYERS}.clustered:ClusteredAttention",
        uses=("num_heads",),
        params=_four_projections,
        macs=_clustered_macs,
    ),
)
ATTENTION_KINDS = {kind.name: kind for kind in _BUILTIN_KINDS}
"""Kinds of attention of this package, by name."""
LINFORMER = AttentionKind(
    name="linformer",
    layer=f"{_LAYERS}.reduced:Linformer",
    uses=("num_heads",),
    params=_linformer_params,
    macs=_linformer_macs,
)
"""Linformer, for comparisons only. Stages cannot use it because a layer is built for one map size."""
_GROUP = "hilo_nas.attentions"
"""Entry point group for kinds of other packages: `NAME = "module:DECLARATION"`."""


def attention_names() -> tuple[str, ...]:
    """Returns the names of all kinds of attention. Those of other installed packages come last."""
    return tuple(dict.fromkeys((*ATTENTION_KINDS, *installed_names(_GROUP))))


def find_attention(name: str) -> AttentionKind | None:
    """Returns the kind of attention with this name, or None if the name is unknown.

    Raises:
        UsageError: An installed package registers an object of another type under this name.
    """
    return ATTENTION_KINDS.get(name) or find_installed(_GROUP, name, AttentionKind)


def attention_named(name: str) -> AttentionKind:
    """Returns the kind of attention with this name.

    Raises:
        ArchError: The name is unknown. The message lists the known names.
    """
    found = find_attention(name)
    if found is None:
        raise ArchError(f"attention must be one of {', '.join(attention_names())}, but got {name!r}")
    return found
