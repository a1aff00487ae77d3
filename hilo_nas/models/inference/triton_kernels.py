"""Triton kernels for inference on CUDA, as torch operators that work with `torch.compile` and CUDA graphs.

Each kernel matches the layer in its docstring, accumulates in float32 and rounds once at the end. The operators have no
gradients. Triton is not imported before the first launch. Call the network once with the same shapes before you capture
a CUDA graph, because the first call compiles the kernels.

Block sizes are derived from the bytes, instructions and registers in compiled code for Hopper. Other sizes have not
been measured yet.

Shape suffixes: B batch, C channels, H W feature map, K the nine positions of a 3x3 window, F features of a joint
projection.
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
"""Dtypes that the kernels support."""

_MAX_WINDOW_TOKENS = 64
"""Maximum window for the kernel. Larger windows use torch's attention, which is assumed to be as fast; not measured
yet. The kernel supports up to 256 tokens."""

_MAX_HEAD_DIM = {torch.float32: 64, torch.float16: 128, torch.bfloat16: 128}
"""Maximum head dimension. Wider heads do not fit into registers; the compiler for Hopper spills them to memory."""


def is_available(device: str | torch.device = "cuda") -> bool:
    """Returns True if the kernels can run on a device: an NVIDIA GPU with compute capability 8.0 or higher, and Triton.

    For tests, the kernels also run on the CPU in Triton's interpreter, if the environment variable TRITON_INTERPRET is
    set before Triton is imported.
    """
    device = torch.device(device)
    if device.type == "cpu":
        return _is_interpreted() and _has_triton()
    if device.type != "cuda" or torch.version.cuda is None or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0) and _has_triton()


def deformable_columns(x_BHWC: Tensor, offset_BCHW: Tensor) -> Tensor:
    """Returns the sampled inputs of a 2x2 deformable convolution of stride 2, ready for the product with its weight.

    Matches `hilo_nas.models.dtm.deformable_columns`. Coordinates and weights are float32. Pixels outside the map are
    zero.

    Args:
        x_BHWC: Map with a dtype in `DTYPES`.
        offset_BCHW: Offsets in the format of `hilo_nas.models.sampling.sampling_points`, shape (B, 8, H // 2, W // 2).
            Any floating dtype and any strides, so a permuted view of (B, H // 2, W // 2, 8) works.

    Returns:
        Samples of shape (B, H // 2, W // 2, 4 * C) in the dtype of the map: the four points of the window, row by row.
        Multiply them by `weight.permute(0, 2, 3, 1).flatten(1)`, with the weight of the convolution.

    Raises:
        UsageError: A dtype or a shape is invalid.
        DeviceError: Triton is not installed or does not run on the device.
    """
    _check_dtype("x", x_BHWC)
    B, H, W, _ = x_BHWC.shape
    _check_shape("offset", offset_BCHW, (B, 2 * TAPS, H // 2, W // 2))
    columns: Tensor = _deformable_columns(x_BHWC, offset_BCHW)
    return columns


def depthwise_gelu(x_BHWC: Tensor, weight_KC: Tensor, bias_C: Tensor) -> Tensor:
    """Returns a 3x3 depthwise convolution with zero padding 1, followed by exact GELU.

    Matches the layers between the linear layers of `hilo_nas.models.blocks.ConvFFN`.

    Args:
        x_BHWC: Map with a dtype in `DTYPES`.
        weight_KC: Weights of shape (9, C), the window row by row: `weight.flatten(1).t()` of the convolution.
        bias_C: Biases of shape (C,).

    Returns:
        A contiguous map with the shape and dtype of the input.

    Raises:
        UsageError: A dtype or a shape is invalid.
        DeviceError: Triton is not installed or does not run on the device.
    """
    _check_dtype("x", x_BHWC)
    channels = x_BHWC.shape[-1]
    _check_shape("weight", weight_KC, (9, channels))
    _check_shape("bias", bias_C, (channels,))
    y_BHWC: Tensor = _depthwise_gelu(x_BHWC, weight_KC, bias_C)
    return y_BHWC


def can_run_window_attention(dtype: torch.dtype, *, window: int, head_dim: int) -> bool:
    """Returns True if a layer can use `window_attention`: windows of 4 to 64 tokens, heads of 1 to 128 channels.

    In float32, heads can have up to 64 channels. The kernel supports windows up to 14 x 14, but the limit is 64 tokens
    because torch's attention is assumed to be as fast for larger windows; this is not measured yet.
    """
    return 4 <= window * window <= _MAX_WINDOW_TOKENS and 1 <= head_dim <= _MAX_HEAD_DIM.get(dtype, 0)


def window_attention(qkv_BHWF: Tensor, *, window: int, heads: int, head_dim: int, offset: int = 0) -> Tensor:
    """Returns attention inside non-overlapping windows. Needs no permutation or copy before or after.

    Matches the Hi-Fi branch of `hilo_nas.models.hilo.HiLo` between its linear layers. Softmax is float32.

    Args:
        qkv_BHWF: Joint projection with a dtype in `DTYPES`. H and W must be multiples of `window`. Starting at feature
            `offset`, it contains the queries of all heads, then the keys, then the values: `heads * head_dim` each.
        window: Side of a window in tokens, 2 to 14. Use `can_run_window_attention` to check if it is recommended.
        heads: Number of attention heads.
        head_dim: Channels per head, up to 128; up to 64 in float32.
        offset: Number of features before the first query.

    Returns:
        Attention of shape (B, H, W, heads * head_dim) in the dtype of the input.

    Raises:
        UsageError: A dtype, a shape or a size is invalid.
        DeviceError: Triton is not installed or does not run on the device.
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
            f"heads must be at least 1, offset at least 0, and offset + 3 * heads * head_dim at most {F} (features of "
            f"qkv), but got heads {heads}, offset {offset} and head_dim {head_dim}"
        )
    y_BHWC: Tensor = _window_attention(qkv_BHWF, window, heads, head_dim, offset)
    return y_BHWC


# The operators. Their schemas are explicit, because torch before 2.5 cannot infer them from string annotations.


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


# Sets the current device, on which Triton launches. Does nothing in the interpreter. torch has no type hints for it.
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
        raise DeviceError(
            "these kernels need triton, which is not installed. Install torch for CUDA on Linux, which includes it."
        )
    if tensor.device.type != "cuda" and not _is_interpreted():
        raise DeviceError(f"these kernels need a CUDA device, but got a tensor on {tensor.device}")


def _check_dtype(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in DTYPES:
        raise UsageError(f"{name} must be float32, float16 or bfloat16, but got {tensor.dtype}")


def _check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        raise UsageError(f"{name} must have the shape {shape}, but got {tuple(tensor.shape)}")
