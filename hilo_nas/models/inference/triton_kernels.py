"""Triton kernels for inference on CUDA, as operators that `torch.compile` and CUDA graphs can hold.

Each gives what the layer named in its docstring computes, with accumulation in float32 and one rounding at the end.
They have no gradients. This file and its operators need no triton before the first launch. A CUDA graph is captured
after a first call with the same shapes, which compiles.

The sizes of blocks follow from counting bytes, instructions and registers in what the compiler makes for Hopper; no
others have been tried on a device yet.

Shape suffixes: B batch, C channels, H W map, K the nine places of a 3x3 window, F features of a joint product.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from hilo_nas.errors import DeviceError, UsageError
from hilo_nas.models.sampling import TAPS

__all__ = ["can_run_window_attention", "deformable_columns", "depthwise_gelu", "is_available", "window_attention"]

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
"""What the kernels take."""

_MAX_WINDOW_TOKENS = 64
"""Above, torch's own attention is taken to be as fast. A guess until it is measured; the kernel runs up to 256."""

_MAX_HEAD_DIM = {torch.float32: 64, torch.float16: 128, torch.bfloat16: 128}
"""Wider heads do not fit into registers: the compiler for Hopper moved them to memory."""


def is_available(device: str | torch.device = "cuda") -> bool:
    """Returns whether the kernels can run on a device: NVIDIA's from compute capability 8.0 on, where triton is there.

    On the CPU they run in triton's interpreter, for tests, where TRITON_INTERPRET is set before triton is imported.
    """
    device = torch.device(device)
    if device.type == "cpu":
        return _is_interpreted() and _has_triton()
    if device.type != "cuda" or torch.version.cuda is None or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0) and _has_triton()


def deformable_columns(x_BHWC: Tensor, offset_BCHW: Tensor) -> Tensor:
    """Returns what a 2x2 deformable convolution of stride 2 sees, ready for the product with its weight.

    Source: `hilo_nas.models.sampling.sampling_points` and `hilo_nas.models.dtm.DeformConv`. Coordinates and weights
    are float32; pixels outside the map count as zeros.

    Args:
        x_BHWC: The map, in a dtype of `DTYPES`.
        offset_BCHW: How far each point lies from its place, shape (B, 8, H // 2, W // 2), of any layout (offsets that
            lie as (B, H // 2, W // 2, 8) are given permuted) and of any floating dtype.

    Returns:
        Shape (B, H // 2, W // 2, 4 * C) in the map's dtype: the four points of the window row by row, each with its
        channels. The product's weight is `weight.permute(0, 2, 3, 1).flatten(1)` of the convolution's.

    Raises:
        UsageError: A dtype or a shape that does not fit.
        DeviceError: No triton, or a device it does not run on.
    """
    _check_dtype("x", x_BHWC)
    B, H, W, _ = x_BHWC.shape
    _check_shape("offset", offset_BCHW, (B, 2 * TAPS, H // 2, W // 2))
    columns: Tensor = _deformable_columns(x_BHWC, offset_BCHW)
    return columns


def depthwise_gelu(x_BHWC: Tensor, weight_KC: Tensor, bias_C: Tensor) -> Tensor:
    """Returns the exact GELU of a 3x3 depthwise convolution with zero padding 1.

    Source: `hilo_nas.models.blocks.ConvFFN`, between its linear layers.

    Args:
        x_BHWC: The map, in a dtype of `DTYPES`.
        weight_KC: Weights, shape (9, C), the window row by row: `weight.flatten(1).t()` of the convolution's.
        bias_C: Biases, shape (C,).

    Returns:
        A map of the shape and dtype given, contiguous.

    Raises:
        UsageError: A dtype or a shape that does not fit.
        DeviceError: No triton, or a device it does not run on.
    """
    _check_dtype("x", x_BHWC)
    channels = x_BHWC.shape[-1]
    _check_shape("weight", weight_KC, (9, channels))
    _check_shape("bias", bias_C, (channels,))
    y_BHWC: Tensor = _depthwise_gelu(x_BHWC, weight_KC, bias_C)
    return y_BHWC


def can_run_window_attention(dtype: torch.dtype, *, window: int, head_dim: int) -> bool:
    """Returns whether `window_attention` is meant for a layer: windows of 4 to 64 tokens, heads of 1 to 128 channels.

    In float32, heads have up to 64 channels. That larger windows are left to torch's attention is a guess, not measured
    yet; the kernel computes up to 14 x 14.
    """
    return 4 <= window * window <= _MAX_WINDOW_TOKENS and 1 <= head_dim <= _MAX_HEAD_DIM.get(dtype, 0)


def window_attention(qkv_BHWF: Tensor, *, window: int, heads: int, head_dim: int, offset: int = 0) -> Tensor:
    """Returns attention inside non-overlapping windows, without turning or copying an axis before or after.

    Source: `hilo_nas.models.hilo.HiLo`, its Hi-Fi branch between the linear layers. Softmax is float32.

    Args:
        qkv_BHWF: A joint product, in a dtype of `DTYPES`; H and W are multiples of `window`. Its features from
            `offset` on are the queries of all heads, then the keys, then the values, `heads * head_dim` of each.
        window: Side of a window, 2 to 14; see `can_run_window_attention` for those that it is meant for.
        heads: Attention heads.
        head_dim: Channels of a head, up to 128; up to 64 in float32.
        offset: Features before the first query.

    Returns:
        Shape (B, H, W, heads * head_dim) in the dtype given.

    Raises:
        UsageError: A dtype, a shape or a size that does not fit.
        DeviceError: No triton, or a device it does not run on.
    """
    _check_dtype("qkv", qkv_BHWF)
    _, H, W, F = qkv_BHWF.shape
    widest = _MAX_HEAD_DIM[qkv_BHWF.dtype]
    if not 2 <= window <= 14 or not 1 <= head_dim <= widest:
        raise UsageError(
            f"window must be 2 to 14, and head_dim 1 to {widest} in {qkv_BHWF.dtype}, but got {window} and {head_dim}"
        )
    if H % window or W % window:
        raise UsageError(f"height and width must be multiples of the window ({window}), but got {H} x {W}")
    if heads < 1 or offset < 0 or offset + 3 * heads * head_dim > F:
        raise UsageError(
            f"queries, keys and values of {heads} heads of {head_dim} channels from feature {offset} on must lie "
            f"inside the joint product, but it has {F} features"
        )
    y_BHWC: Tensor = _window_attention(qkv_BHWF, window, heads, head_dim, offset)
    return y_BHWC


# The operators. Their schemas are written out: torch below 2.5 does not infer them from annotations that are strings.


@torch.library.custom_op("hilo_nas::deformable_columns", mutates_args=(), schema="(Tensor x, Tensor offset) -> Tensor")
def _deformable_columns(x_BHWC: Tensor, offset_BCHW: Tensor) -> Tensor:
    _check_device(x_BHWC)
    from hilo_nas.models.inference.kernels import deformable

    B, H, W, C = x_BHWC.shape
    columns_BHWC = x_BHWC.new_empty(B, H // 2, W // 2, TAPS * C)
    with _on_device_of(x_BHWC):
        deformable.launch(x_BHWC.contiguous(), offset_BCHW, columns_BHWC)
    return columns_BHWC


@_deformable_columns.register_fake
def _(x_BHWC: Tensor, offset_BCHW: Tensor) -> Tensor:
    B, H, W, C = x_BHWC.shape
    return x_BHWC.new_empty(B, H // 2, W // 2, TAPS * C)


@torch.library.custom_op(
    "hilo_nas::depthwise_gelu", mutates_args=(), schema="(Tensor x, Tensor weight, Tensor bias) -> Tensor"
)
def _depthwise_gelu(x_BHWC: Tensor, weight_KC: Tensor, bias_C: Tensor) -> Tensor:
    _check_device(x_BHWC)
    from hilo_nas.models.inference.kernels import depthwise

    y_BHWC = x_BHWC.new_empty(x_BHWC.shape)
    with _on_device_of(x_BHWC):
        depthwise.launch(x_BHWC.contiguous(), weight_KC.contiguous(), bias_C.contiguous(), y_BHWC)
    return y_BHWC


@_depthwise_gelu.register_fake
def _(x_BHWC: Tensor, weight_KC: Tensor, bias_C: Tensor) -> Tensor:
    return x_BHWC.new_empty(x_BHWC.shape)


@torch.library.custom_op(
    "hilo_nas::window_attention",
    mutates_args=(),
    schema="(Tensor qkv, int window, int heads, int head_dim, int offset) -> Tensor",
)
def _window_attention(qkv_BHWF: Tensor, window: int, heads: int, head_dim: int, offset: int) -> Tensor:
    _check_device(qkv_BHWF)
    from hilo_nas.models.inference.kernels import window_attention as windows

    y_BHWC = qkv_BHWF.new_empty(*qkv_BHWF.shape[:3], heads * head_dim)
    with _on_device_of(qkv_BHWF):
        windows.launch(qkv_BHWF.contiguous(), y_BHWC, window=window, heads=heads, head_dim=head_dim, offset=offset)
    return y_BHWC


@_window_attention.register_fake
def _(qkv_BHWF: Tensor, window: int, heads: int, head_dim: int, offset: int) -> Tensor:
    return qkv_BHWF.new_empty(*qkv_BHWF.shape[:3], heads * head_dim)


# Triton launches on the current device; without one, as in the interpreter, this does nothing. (torch gives no types.)
_on_device_of: Callable[[Tensor], AbstractContextManager[object]] = torch.cuda.device_of


def _has_triton() -> bool:
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def _is_interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def _check_device(tensor: Tensor) -> None:
    if not _has_triton():
        raise DeviceError("these kernels need triton, which is not installed; torch for CUDA on Linux brings it")
    if tensor.device.type != "cuda" and not _is_interpreted():
        raise DeviceError(f"these kernels need a CUDA device, but got a tensor on {tensor.device}")


def _check_dtype(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in DTYPES:
        raise UsageError(f"{name} must be float32, float16 or bfloat16, but got {tensor.dtype}")


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise UsageError(f"{name} must have the shape {shape}, but got {tuple(tensor.shape)}")
