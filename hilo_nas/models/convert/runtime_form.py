"""Form of a LITv2 that is captured for a runtime: the same outputs from the operators that are fastest in the runtime.

The form keeps one memory layout, channels last, through all blocks. Norms and products get tokens (B, N, C), because
OpenVINO has a fused layer norm for three axes only. Convolutions get NCHW views of the same memory, which OpenVINO
reads without a transpose.

Each part is built from the corresponding module of the training form (in `hilo_nas.models.blocks`, `dtm` and `hilo`)
and shares its weights. Maps between parts have the shape (B, H, W, C).

Shape suffixes: B batch, H W feature map, N tokens of the map, M tokens of the pooled map, C channels, P points: four
per output pixel, K corners: four per point.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from hilo_nas.models.blocks import Block, ConvFFN, PatchEmbed, Stage, pad_image
from hilo_nas.models.dtm import DTM
from hilo_nas.models.hilo import HiLo, attend_far, attend_windows, pad_map
from hilo_nas.models.litv2 import LITv2
from hilo_nas.models.sampling import TAPS

__all__ = ["FORMS", "FORM_NAME", "FormChoice", "LITv2Form", "build_form"]

FORM_NAME = "form=tokens"
"""Part of `Converted.form`. Change it with every change that can affect speed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FormChoice:
    """Operators of a network for one runtime."""

    max_conv_dims: Mapping[str, int]
    """Maximum number of channels for which the linear layers of a ConvFFN are 1x1 convolutions, by precision."""
    has_bag: bool
    """True if token merging is an embedding bag and a product; False for a deformable convolution."""


FORMS = {
    "onnxruntime": FormChoice(max_conv_dims={"fp32": 384, "bf16": 384, "fp16": 384, "int8": 384}, has_bag=False),
    "openvino": FormChoice(max_conv_dims={"fp32": 384, "bf16": 0, "fp16": 0, "int8": 2048}, has_bag=True),
}
"""Choice for each runtime.

A ConvFFN between products needs a change of layout around its depthwise convolution in ONNX Runtime; between 1x1
convolutions it needs none. OpenVINO runs 1x1 convolutions in float32 faster than products of few channels. Speed of the
convolutions compared with products (ConvFFN with its norm, 224 px, batch 8):

=========== ==== ==== ==== ====
channels      96  192  384  768
=========== ==== ==== ==== ====
onnxruntime 1.49 1.34 1.25 0.99
openvino    1.23 1.10 1.02 0.83
=========== ==== ==== ==== ====

In bfloat16, products make LITv2-S 12 % faster in OpenVINO, and the embedding bag 14 %, because the deformable
convolution is computed in float32. ONNX lacks an embedding bag. In INT8, convolutions of all widths make LITv2-S 1.7
times as fast as products in OpenVINO, because each product is quantized and reordered separately.

Measured on one core of an Intel Xeon (Emerald Rapids) with onnxruntime 1.32 and openvino 2026.4; other processors and
versions can differ.
"""


def build_form(model: nn.Module, runtime: str, precision: str = "fp32", *, dynamic_batch: bool = False) -> nn.Module:
    """Returns the form of a network for a runtime; the network itself if it is not a LITv2.

    Args:
        model: Network in evaluation mode, from `copy_of`.
        runtime: One of `RUNTIMES`.
        precision: Precision in which the runtime computes: fp32, bf16, fp16 or int8.
        dynamic_batch: True for a form whose graph accepts any batch size. OpenVINO 2026.4 runs an embedding bag only
            for a fixed one, so token merging is a deformable convolution.
    """
    if type(model) is not LITv2:  # a subclass can compute something else
        return model
    with torch.inference_mode(False), torch.no_grad():  # torch cannot capture weights created in inference mode
        choice = FORMS[runtime]
        return LITv2Form(
            model, max_conv_dim=choice.max_conv_dims[precision], has_bag=choice.has_bag and not dynamic_batch
        ).eval()


class LITv2Form(nn.Module):
    """LITv2 in the form for a runtime. Its layers have the names of the training form.

    Args:
        source: Training form.
        max_conv_dim: Maximum number of channels for which the linear layers of a ConvFFN are 1x1 convolutions.
        has_bag: See `FormChoice`.
    """

    def __init__(self, source: LITv2, *, max_conv_dim: int, has_bag: bool) -> None:
        super().__init__()
        assert isinstance(source.patch_embed, PatchEmbed)
        self.patch_embed = _PatchForm(source.patch_embed)
        stages = (_StageForm(stage, max_conv_dim, has_bag) for stage in source.layers if isinstance(stage, Stage))
        self.layers = nn.Sequential(*stages)
        self.norm, self.head = source.norm, source.head

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns the output of the head."""
        x_BHWC = self.layers(self.patch_embed(x_BCHW))
        y_BNC = self.norm(_to_tokens(x_BHWC))
        y: Tensor = self.head(_view_nchw(_to_map(y_BNC, *x_BHWC.shape[1:3])))
        return y


def _to_tokens(x_BHWC: Tensor) -> Tensor:
    return x_BHWC.flatten(1, 2)


def _to_map(x_BNC: Tensor, height: int, width: int) -> Tensor:
    B, _, C = x_BNC.shape
    return x_BNC.reshape(B, height, width, C)


def _view_nchw(x_BHWC: Tensor) -> Tensor:
    return x_BHWC.permute(0, 3, 1, 2)


def _view_nhwc(x_BCHW: Tensor) -> Tensor:
    return x_BCHW.permute(0, 2, 3, 1)


class _PatchForm(nn.Module):
    """Patch embedding with a norm of tokens."""

    def __init__(self, source: PatchEmbed) -> None:
        super().__init__()
        self.patch_size, self.min_size = source.patch_size, source.min_size
        self.proj, self.norm = source.proj, source.norm

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BHWC = _view_nhwc(self.proj(pad_image(x_BCHW, self.patch_size, self.min_size)))
        return _to_map(self.norm(_to_tokens(y_BHWC)), *y_BHWC.shape[1:3])


class _MergingForm(nn.Module):
    """Token merging with the batch norm folded into its product or deformable convolution."""

    def __init__(self, source: DTM, has_bag: bool) -> None:
        super().__init__()
        conv, norm = source.dconv, source.norm_layer
        self.conv_offset, self.has_bag = conv.conv_offset, has_bag
        assert norm.running_mean is not None
        assert norm.running_var is not None
        # Fold in float64, so that each weight is rounded only once.
        scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
        shift = norm.bias.double() - norm.running_mean.double() * scale
        if conv.bias is not None:
            shift = shift + conv.bias.double() * scale
        weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
        if has_bag:
            weight = weight.permute(0, 2, 3, 1).flatten(1)
        self.weight = nn.Parameter(weight.detach().to(conv.weight.dtype).contiguous())
        self.bias = nn.Parameter(shift.detach().to(conv.weight.dtype))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        x_BCHW = _view_nchw(x_BHWC)
        offset_BCHW = self.conv_offset(x_BCHW)
        if self.has_bag:
            columns_BHWC = sample_columns(x_BHWC, offset_BCHW)
            y_BNC = F.gelu(F.linear(_to_tokens(columns_BHWC), self.weight, self.bias))
            return _to_map(y_BNC, *columns_BHWC.shape[1:3])
        y_BCHW = deform_conv2d(x_BCHW, offset_BCHW, self.weight, self.bias, stride=(2, 2))
        return _view_nhwc(F.gelu(y_BCHW))


def sample_columns(x_BHWC: Tensor, offset_BCHW: Tensor) -> Tensor:
    """Returns `deformable_columns`, computed with positions that stay accurate in bfloat16.

    A runtime that computes in bfloat16 rounds all floating-point values, and 8 bits of mantissa cannot hold the
    position of a pixel on a large map. Therefore the integer part of each offset is added to the position of its
    point as an integer. Values that stay in floating point are the offsets, which are rounded anyway, and fractions of
    a pixel.
    """
    B, H, W, C = x_BHWC.shape
    rows, cols = H // 2, W // 2
    tap = torch.arange(2, dtype=torch.int32)
    row = 2 * torch.arange(rows, dtype=torch.int32).view(-1, 1, 1) + tap.repeat_interleave(2)
    col = 2 * torch.arange(cols, dtype=torch.int32).view(-1, 1) + tap.repeat(2)
    offset = offset_BCHW.reshape(B, TAPS, 2, rows, cols).permute(2, 0, 3, 4, 1)
    top, bottom, *row_weights = _corners(offset[0], row, H)
    left, right, *col_weights = _corners(offset[1], col, W)
    image = torch.arange(B, dtype=torch.int32).view(-1, 1, 1, 1) * (H * W)
    top, bottom = image + top * W, image + bottom * W
    index_PK = torch.stack((top + left, top + right, bottom + left, bottom + right), dim=-1).view(-1, 4)
    weight_PK = torch.stack([y * x for y in row_weights for x in col_weights], dim=-1).view(-1, 4)
    columns_PC = F.embedding_bag(index_PK, x_BHWC.reshape(-1, C), mode="sum", per_sample_weights=weight_PK)
    return columns_PC.reshape(B, rows, cols, TAPS * C)


def _corners(offset: Tensor, base: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the pixels before and after each point on an axis, then their weights.

    Args:
        offset: Offsets of the points.
        base: Regular positions of the points, integers.
        size: Pixels on the axis. Pixels outside have weight 0 and a valid index.
    """
    offset = offset.clamp(-2 * size, 2 * size)  # such points are off the map, and their positions must be integers
    floor = offset.floor()
    share = offset - floor
    low = base + floor.int()
    low_weight = (1 - share) * ((low >= 0) & (low < size))
    high_weight = share * ((low >= -1) & (low < size - 1))
    return low.clamp(0, size - 1), (low + 1).clamp(0, size - 1), low_weight, high_weight


class _HiLoForm(nn.Module):
    """HiLo attention with products of tokens, and pooling as a mean over the tokens of each window."""

    def __init__(self, source: HiLo) -> None:
        super().__init__()
        self.window_size, self.hifi_heads, self.lofi_heads = source.window_size, source.hifi_heads, source.lofi_heads
        if source.hifi_heads:
            self.h_qkv, self.h_proj = source.h_qkv, source.h_proj
        if source.lofi_heads:
            self.l_q, self.l_kv, self.l_proj = source.l_q, source.l_kv, source.l_proj

    def forward(self, x_BHWC: Tensor) -> Tensor:
        _, H, W, _ = x_BHWC.shape
        x_BHWC = pad_map(x_BHWC, self.window_size)
        size = x_BHWC.shape[1:3]
        x_BNC, parts = _to_tokens(x_BHWC), []
        if self.hifi_heads:
            y_BHWC = attend_windows(_to_map(self.h_qkv(x_BNC), *size), self.window_size, self.hifi_heads)
            parts.append(self.h_proj(_to_tokens(y_BHWC)))
        if self.lofi_heads:
            kv_BMC = self.l_kv(_pool_tokens(x_BHWC, self.window_size))
            y_BHWC = attend_far(_to_map(self.l_q(x_BNC), *size), kv_BMC, self.lofi_heads)
            parts.append(self.l_proj(_to_tokens(y_BHWC)))
        y_BNC = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return _to_map(y_BNC, *size)[:, :H, :W]


def _pool_tokens(x_BHWC: Tensor, window_size: int) -> Tensor:
    """Returns the means of the windows as tokens, shape (B, M, C). Needs a map of whole windows."""
    if window_size == 1:
        return _to_tokens(x_BHWC)
    B, H, W, C = x_BHWC.shape
    rows, cols = H // window_size, W // window_size
    means = x_BHWC.reshape(B * rows, window_size, cols, window_size, C).mean(dim=(1, 3))
    return means.reshape(B, rows * cols, C)


class _FFNForm(nn.Module):
    """ConvFFN with its linear layers as products of tokens or as 1x1 convolutions."""

    def __init__(self, source: ConvFFN, is_conv: bool) -> None:
        super().__init__()
        self.is_conv = is_conv
        self.fc1: nn.Module = _as_conv(source.fc1) if is_conv else source.fc1
        self.dwconv = source.dwconv
        self.fc2: nn.Module = _as_conv(source.fc2) if is_conv else source.fc2

    def forward(self, x_BNC: Tensor, height: int, width: int) -> Tensor:
        """Returns tokens of the same shape as the input."""
        if self.is_conv:
            x_BCHW = self.fc1(_view_nchw(_to_map(x_BNC, height, width)))
            return _to_tokens(_view_nhwc(self.fc2(F.gelu(self.dwconv(x_BCHW)))))
        x_BCHW = _view_nchw(_to_map(self.fc1(x_BNC), height, width))
        y_BNC: Tensor = self.fc2(_to_tokens(_view_nhwc(F.gelu(self.dwconv(x_BCHW)))))
        return y_BNC


def _as_conv(linear: nn.Linear) -> nn.Conv2d:
    conv = nn.Conv2d(linear.in_features, linear.out_features, kernel_size=1, dtype=linear.weight.dtype)
    conv.weight = nn.Parameter(linear.weight[:, :, None, None].detach())
    conv.bias = linear.bias
    return conv


class _BlockForm(nn.Module):
    """Block with norms and residual connections of tokens."""

    def __init__(self, source: Block, max_conv_dim: int) -> None:
        super().__init__()
        self.has_attn = source.has_attn
        if source.has_attn:
            self.norm1 = source.norm1
            self.attn: nn.Module = _HiLoForm(source.attn) if isinstance(source.attn, HiLo) else source.attn
        self.norm2 = source.norm2
        self.mlp = _FFNForm(source.mlp, is_conv=source.mlp.fc1.in_features <= max_conv_dim)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        size = x_BHWC.shape[1:3]
        x_BNC = _to_tokens(x_BHWC)
        if self.has_attn:
            x_BNC = x_BNC + _to_tokens(self.attn(_to_map(self.norm1(x_BNC), *size)))
        x_BNC = x_BNC + self.mlp(self.norm2(x_BNC), *size)
        return _to_map(x_BNC, *size)


class _StageForm(nn.Module):
    """Token merging, except in the first stage, then blocks."""

    def __init__(self, source: Stage, max_conv_dim: int, has_bag: bool) -> None:
        super().__init__()
        merging = source.downsample
        self.downsample = _MergingForm(merging, has_bag) if isinstance(merging, DTM) else nn.Identity()
        self.blocks = nn.Sequential(
            *(_BlockForm(block, max_conv_dim) for block in source.blocks if isinstance(block, Block))
        )

    def forward(self, x_BHWC: Tensor) -> Tensor:
        y_BHWC: Tensor = self.blocks(self.downsample(x_BHWC))
        return y_BHWC
