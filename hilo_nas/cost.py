"""Parameters and multiply-adds of an architecture, by formula and without torch.

Multiply-adds (`macs`) are those of products and convolutions, the offset convolutions included, at batch 1; softmax,
normalisation, activations and the deformable convolution's interpolation are left out. At 224 pixels this gives 3.724,
7.463 and 13.172 G for LITv2-S, -M and -B. Tests check both against the module itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from hilo_nas.arch import ATTENTION_KINDS, N_STAGES, ArchConfig, lofi_heads
from hilo_nas.errors import UsageError

__all__ = ["count_macs", "count_params", "hilo_macs", "hilo_params", "map_sizes"]

_OFFSET_CHANNELS = 8
"""Two coordinates for each of the four taps of a 2 x 2 deformable convolution."""


def map_sizes(arch: ArchConfig, height: int, width: int | None = None) -> tuple[tuple[int, int], ...]:
    """Returns each stage's map as (height, width) in tokens; sides are padded to the patch, then halved rounding down.

    Args:
        arch: The architecture.
        height: Image height in pixels.
        width: Image width in pixels; the height if left out.

    Raises:
        UsageError: The image is smaller than the network's total stride.
    """
    width = height if width is None else width
    if min(height, width) < arch.stride:
        raise UsageError(
            f"an image must be at least {arch.stride} pixels on each side for a network of stride {arch.stride} "
            f"(patch_size {arch.patch_size}), but got {height} x {width}. Use larger images or a smaller patch_size."
        )
    side = [math.ceil(pixels / arch.patch_size) for pixels in (height, width)]
    return tuple((side[0] >> stage, side[1] >> stage) for stage in range(N_STAGES))


def _split(dim: int, num_heads: int, window_size: int, alpha: float) -> tuple[int, int]:
    """Channels of Hi-Fi and of Lo-Fi."""
    lofi_dim = lofi_heads(num_heads, alpha, window_size) * (dim // num_heads)
    return dim - lofi_dim, lofi_dim


def hilo_params(dim: int, num_heads: int, window_size: int, alpha: float) -> int:
    """Returns the number of weights and biases of one HiLo layer."""
    hifi_dim, lofi_dim = _split(dim, num_heads, window_size, alpha)
    hifi = (dim + 1) * 3 * hifi_dim + (hifi_dim + 1) * hifi_dim
    lofi = (dim + 1) * 3 * lofi_dim + (lofi_dim + 1) * lofi_dim
    return hifi + lofi


def hilo_macs(dim: int, num_heads: int, window_size: int, alpha: float, height: int, width: int) -> int:
    """Returns the multiply-adds of one HiLo layer on a map of `height` x `width` tokens, padding to windows counted."""
    hifi_dim, lofi_dim = _split(dim, num_heads, window_size, alpha)
    rows, columns = math.ceil(height / window_size), math.ceil(width / window_size)
    tokens, pooled = rows * columns * window_size**2, rows * columns
    hifi = tokens * hifi_dim * (3 * dim + 2 * window_size**2 + hifi_dim)
    lofi = tokens * lofi_dim * (dim + 2 * pooled + lofi_dim) + pooled * dim * 2 * lofi_dim
    return hifi + lofi


_LAYER_PARAMS: dict[str, Callable[[ArchConfig, int], int]] = {
    "none": lambda arch, i: 0,
    "hilo": lambda arch, i: hilo_params(arch.embed_dims[i], arch.num_heads[i], arch.window_size[i], arch.alpha[i]),
}
_LAYER_MACS: dict[str, Callable[[ArchConfig, int, int, int], int]] = {
    "none": lambda arch, i, height, width: 0,
    "hilo": lambda arch, i, height, width: hilo_macs(
        arch.embed_dims[i], arch.num_heads[i], arch.window_size[i], arch.alpha[i], height, width
    ),
}
assert _LAYER_PARAMS.keys() == _LAYER_MACS.keys() == ATTENTION_KINDS.keys()


def _hidden_dims(arch: ArchConfig) -> Iterator[int]:
    return (int(dim * ratio) for dim, ratio in zip(arch.embed_dims, arch.mlp_ratios, strict=True))


def count_params(arch: ArchConfig, *, num_classes: int = 1000, in_chans: int = 3) -> int:
    """Returns the number of trainable parameters, classifier included."""
    dims = arch.embed_dims
    total = (in_chans * arch.patch_size**2 + 1) * dims[0] + 2 * dims[0]
    for i, hidden in enumerate(_hidden_dims(arch)):
        dim = dims[i]
        ffn = (dim + 1) * hidden + (9 + 1) * hidden + (hidden + 1) * dim
        attention = _LAYER_PARAMS[arch.attention[i]](arch, i)
        norms = 2 * dim * (1 if arch.attention[i] == "none" else 2)
        total += arch.depths[i] * (ffn + attention + norms)
        if i + 1 < N_STAGES:  # deformable token merging: convolution, its offsets, batch norm
            total += (4 * dim + 1) * dims[i + 1] + (4 * dim + 1) * _OFFSET_CHANNELS + 2 * dims[i + 1]
    return total + 2 * dims[-1] + (dims[-1] + 1) * num_classes


def count_macs(
    arch: ArchConfig, img_size: int, width: int | None = None, *, num_classes: int = 1000, in_chans: int = 3
) -> int:
    """Returns the multiply-adds for one image of `img_size` x `width` pixels (square if `width` is left out).

    Raises:
        UsageError: The image is smaller than the network's total stride.
    """
    sizes = map_sizes(arch, img_size, width)
    dims = arch.embed_dims
    total = sizes[0][0] * sizes[0][1] * in_chans * arch.patch_size**2 * dims[0]
    for i, hidden in enumerate(_hidden_dims(arch)):
        tokens = sizes[i][0] * sizes[i][1]
        ffn = tokens * hidden * (2 * dims[i] + 9)
        total += arch.depths[i] * (ffn + _LAYER_MACS[arch.attention[i]](arch, i, *sizes[i]))
        if i + 1 < N_STAGES:
            merged = sizes[i + 1][0] * sizes[i + 1][1]
            total += merged * 4 * dims[i] * (dims[i + 1] + _OFFSET_CHANNELS)
    return total + dims[-1] * num_classes
