"""Parts of a LITv2 in their inference form: the same results from fewer and larger operations.

Each part is built from the corresponding module of the training form (in `hilo_nas.models.blocks`, `dtm` and `hilo`)
and a set of `Operators`. Maps are NHWC inside the stages.

Shape suffixes: B batch, H W feature map, C channels, F features of a joint projection.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hilo_nas.models.blocks import Block, PatchEmbed, Stage, pad_image
from hilo_nas.models.dtm import DTM
from hilo_nas.models.hilo import HiLo, attend_far, pad_map, pool_windows
from hilo_nas.models.inference.images import ImageCheck
from hilo_nas.models.inference.operators import Operators
from hilo_nas.models.inference.packed import PackedModule

__all__ = ["FusedBlock", "FusedHiLo", "FusedMerging", "FusedPatchEmbed", "FusedStage"]


class FusedPatchEmbed(PackedModule):
    """Inference form of `PatchEmbed`: one matrix product over patches, then LayerNorm."""

    def __init__(self, source: PatchEmbed, operators: Operators) -> None:
        super().__init__()
        self.patch_size, self.min_size = source.patch_size, source.min_size
        self.check = ImageCheck(source.proj.in_channels, operators)
        self.product = operators.build_linear(source.proj.weight.flatten(1), source.proj.bias)
        self.norm = operators.from_layer(source.norm)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns the embedded patches, shape (B, embed_dim, ceil(H / patch_size), ceil(W / patch_size))."""
        x_BCHW = pad_image(self.check(x_BCHW), self.patch_size, self.min_size)
        B, C, H, W = x_BCHW.shape
        p = self.patch_size
        patches = x_BCHW.reshape(B, C, H // p, p, W // p, p).permute(0, 2, 4, 1, 3, 5)
        y_BHWC: Tensor = self.norm(self.product(patches.reshape(B, H // p, W // p, C * p * p)))
        return y_BHWC.permute(0, 3, 1, 2)


class FusedMerging(PackedModule):
    """Inference form of `DTM`: a gather and one product, with the batch norm folded into it and GELU fused."""

    def __init__(self, source: DTM, operators: Operators) -> None:
        super().__init__()
        conv, norm = source.dconv, source.norm_layer
        self.conv_offset = operators.from_layer(conv.conv_offset).to(memory_format=torch.channels_last)
        self.columns = operators.columns
        assert norm.running_mean is not None
        assert norm.running_var is not None
        # Fold in float64, so that each weight is rounded only once.
        scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
        shift = norm.bias.double() - norm.running_mean.double() * scale
        if conv.bias is not None:
            shift = shift + conv.bias.double() * scale
        weight = conv.weight.double().permute(0, 2, 3, 1).flatten(1) * scale.unsqueeze(1)
        self.product = operators.build_linear(weight, shift, gelu=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns the merged map, shape (B, out_dim, H // 2, W // 2)."""
        y_BHWC: Tensor = self.product(self.columns(x_BCHW.permute(0, 2, 3, 1), self.conv_offset(x_BCHW)))
        return y_BHWC.permute(0, 3, 1, 2)


class FusedHiLo(PackedModule):
    """Inference form of `HiLo`: one product computes all projections of the map."""

    def __init__(self, source: HiLo, operators: Operators) -> None:
        super().__init__()
        self.window_size, self.head_dim = source.window_size, source.head_dim
        self.hifi_heads, self.lofi_heads = source.hifi_heads, source.lofi_heads
        self.is_pooling = source.window_size > 1
        self.attend_windows = operators.attend_windows
        joint: list[nn.Linear] = []
        if self.hifi_heads:
            joint.append(source.h_qkv)
            self.h_proj = operators.from_linear(source.h_proj)
        if self.lofi_heads:
            joint.append(source.l_q)
            self.l_proj = operators.from_linear(source.l_proj)
            if self.is_pooling:
                self.l_kv = operators.from_linear(source.l_kv)
            else:
                joint.append(source.l_kv)
        weights: list[Tensor] = [layer.weight for layer in joint]
        biases: list[Tensor] = [layer.bias for layer in joint if layer.bias is not None]
        self.joint = operators.build_linear(torch.cat(weights), torch.cat(biases) if biases else None)

    def forward(self, x_BHWC: Tensor, residual_BHWC: Tensor) -> Tensor:
        """Returns the attended map plus the residual, shape (B, H, W, C)."""
        _, H, W, _ = x_BHWC.shape
        x_BHWC = pad_map(x_BHWC, self.window_size)
        joint_BHWF = self.joint(x_BHWC)
        hifi_dim = 3 * self.hifi_heads * self.head_dim
        parts = []
        if self.hifi_heads:
            y = self.attend_windows(joint_BHWF, self.window_size, self.hifi_heads, self.head_dim)
            parts.append(self.h_proj(y))
        if self.lofi_heads:
            lofi_dim = self.lofi_heads * self.head_dim
            q, kv = joint_BHWF[..., hifi_dim : hifi_dim + lofi_dim], joint_BHWF[..., hifi_dim + lofi_dim :]
            if self.is_pooling:
                kv = self.l_kv(pool_windows(x_BHWC, self.window_size))
            y = attend_far(q, kv, self.lofi_heads)
            if not self.hifi_heads and y.shape == residual_BHWC.shape:
                z: Tensor = self.l_proj(y, residual_BHWC)
                return z
            parts.append(self.l_proj(y))
        y_BHWC = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return y_BHWC[:, :H, :W] + residual_BHWC


class _PlainAttention(PackedModule):
    """Inference form of other attention layers: the unchanged layer plus the residual."""

    def __init__(self, source: nn.Module, operators: Operators) -> None:
        super().__init__()
        self.source = operators.from_layer(source)

    def forward(self, x_BHWC: Tensor, residual_BHWC: Tensor) -> Tensor:
        """Returns the attended map plus the residual, shape (B, H, W, C)."""
        y_BHWC: Tensor = self.source(x_BHWC) + residual_BHWC
        return y_BHWC


class FusedBlock(PackedModule):
    """Inference form of `Block`: GELU and residual additions are fused into the preceding operators."""

    def __init__(self, source: Block, operators: Operators) -> None:
        super().__init__()
        self.has_attn = source.has_attn
        if source.has_attn:
            attn = source.attn
            self.norm1 = operators.from_layer(source.norm1)
            self.attn: nn.Module = (
                FusedHiLo(attn, operators) if isinstance(attn, HiLo) else _PlainAttention(attn, operators)
            )
        mlp = source.mlp
        self.norm2 = operators.from_layer(source.norm2)
        self.fc1 = operators.from_linear(mlp.fc1)
        self.dwconv = operators.from_depthwise(mlp.dwconv)
        self.fc2 = operators.from_linear(mlp.fc2)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Returns a feature map of the same shape as the input, (B, H, W, C)."""
        if self.has_attn:
            x_BHWC = self.attn(self.norm1(x_BHWC), x_BHWC)
        y_BHWC: Tensor = self.fc2(self.dwconv(self.fc1(self.norm2(x_BHWC))), x_BHWC)
        return y_BHWC


class FusedStage(PackedModule):
    """Inference form of `Stage`: token merging and blocks in their inference forms."""

    def __init__(self, source: Stage, operators: Operators) -> None:
        super().__init__()
        downsample = source.downsample
        self.downsample: nn.Module = (
            FusedMerging(downsample, operators) if isinstance(downsample, DTM) else operators.from_layer(downsample)
        )
        blocks = [FusedBlock(block, operators) for block in source.blocks if isinstance(block, Block)]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns the stage's features in the shape that `Stage` returns."""
        x_BHWC = self.downsample(x_BCHW).permute(0, 2, 3, 1).contiguous()
        y_BHWC: Tensor = self.blocks(x_BHWC)
        return y_BHWC.permute(0, 3, 1, 2)
