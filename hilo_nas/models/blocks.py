"""Building blocks of a LITv2: patch embedding, ConvFFN, block, stage, and a base class with timm's model methods.

Paper: "Fast Vision Transformers with HiLo Attention" (arXiv 2205.13213).
Behaviour: matches the dense-prediction backbone of github ziplab/LITv2 (Apache-2.0).
Differences: Blocks use NHWC maps; stages take and return NCHW maps. A stage starts with its token merging. One block
class serves stages with and without attention. `hilo_nas.arch.attentions` selects the attention layer.

Shape suffixes: B batch, C channels, H W feature map.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from timm.models import checkpoint_seq
from torch import Tensor, nn

from hilo_nas.arch.attentions import attention_named
from hilo_nas.arch.config import ArchConfig
from hilo_nas.errors import UsageError
from hilo_nas.models.dtm import DTM

__all__ = ["NORM_EPS", "Block", "ConvFFN", "PatchEmbed", "Stage", "StagedNetwork", "jit_ignore", "pad_image"]

NORM_EPS = 1e-5
"""Epsilon of all LayerNorms in the network."""

_Method = TypeVar("_Method", bound=Callable[..., Any])
jit_ignore: Callable[[_Method], _Method] = torch.jit.ignore
"""Typed version of `torch.jit.ignore`, which excludes a method from TorchScript."""


class PatchEmbed(nn.Module):
    """Patch embedding: a linear projection of each image patch, then LayerNorm.

    Args:
        patch_size: Side of a patch in pixels.
        in_chans: Channels of the image.
        embed_dim: Channels of the feature map.
        min_size: Minimum side of an image in pixels; the total stride of the network.
    """

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int, min_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.min_size = min_size
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns the embedded patches, shape (B, embed_dim, ceil(H / patch_size), ceil(W / patch_size)).

        Pads the image with zeros to whole patches.

        Raises:
            UsageError: The image is smaller than `min_size`.
        """
        x_BCHW = pad_image(x_BCHW, self.patch_size, self.min_size)
        y_BHWC: Tensor = self.norm(self.proj(x_BCHW).permute(0, 2, 3, 1))
        return y_BHWC.permute(0, 3, 1, 2)


def pad_image(x_BCHW: Tensor, patch_size: int, min_size: int) -> Tensor:
    """Returns the image padded with zeros at the bottom and right to whole patches.

    Raises:
        UsageError: The image has a side below `min_size` pixels.
    """
    H, W = x_BCHW.shape[-2:]
    if min(H, W) < min_size:
        raise UsageError(
            f"an image must have at least {min_size} x {min_size} pixels with patch_size {patch_size}, but got "
            f"{H} x {W}. Use larger images or a smaller patch_size."
        )
    pad_h, pad_w = -H % patch_size, -W % patch_size
    return F.pad(x_BCHW, (0, pad_w, 0, pad_h)) if pad_h or pad_w else x_BCHW


class ConvFFN(nn.Module):
    """Two-layer MLP on every token, with a 3x3 depthwise convolution between the layers.

    The zero padding of the convolution is the only positional information in the network.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.dwconv = nn.Conv2d(hidden_dim, hidden_dim, kernel_size=3, padding=1, groups=hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)
        nn.init.normal_(self.dwconv.weight, std=(2 / 9) ** 0.5)  # sqrt(2 / fan_out); each channel fans out to 3x3
        assert self.dwconv.bias is not None
        nn.init.zeros_(self.dwconv.bias)

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Returns a feature map of the same shape as the input, (B, H, W, C)."""
        x_BHWC = self.fc1(x_BHWC)
        if self.training and x_BHWC.is_cpu and x_BHWC.shape[1] <= 2:
            # Explicit padding gives the same result faster for maps of one or two rows. Forward and backward take 25 to
            # 50 % of the time (5 % in bfloat16); a training step at 32 px takes up to 10 % less. Measured on AMD EPYC
            # (Zen 4) with torch 2.15; other versions can differ.
            padded_BCHW = F.pad(x_BHWC, (0, 0, 1, 1, 1, 1)).permute(0, 3, 1, 2)
            x_BCHW = F.conv2d(padded_BCHW, self.dwconv.weight, self.dwconv.bias, groups=self.dwconv.groups)
        else:
            x_BCHW = self.dwconv(x_BHWC.permute(0, 3, 1, 2))
        y_BHWC: Tensor = self.fc2(F.gelu(x_BCHW).permute(0, 2, 3, 1))
        return y_BHWC


class Block(nn.Module):
    """Transformer block: optional attention, then ConvFFN, each with pre-norm and a residual connection.

    Args:
        dim: Channels of the feature map.
        attn: Attention layer that maps (B, H, W, C) to the same shape; None for a block without attention.
        mlp_ratio: Hidden width of the ConvFFN divided by `dim`.
        drop_path: Probability that a sample skips a residual branch in training.
    """

    def __init__(self, dim: int, attn: nn.Module | None, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.has_attn = attn is not None
        if attn is not None:
            self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
            self.attn = attn
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = ConvFFN(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Returns a feature map of the same shape as the input, (B, H, W, C)."""
        if self.has_attn:
            x_BHWC = x_BHWC + self.drop_path(self.attn(self.norm1(x_BHWC)))
        y_BHWC: Tensor = x_BHWC + self.drop_path(self.mlp(self.norm2(x_BHWC)))
        return y_BHWC


class Stage(nn.Module):
    """Stage of a LITv2: token merging (except in the first stage), then blocks.

    Args:
        arch: Architecture of the whole network.
        index: Index of the stage, from 0.
        drop_path: Stochastic depth rate of each block of the stage.
    """

    def __init__(self, arch: ArchConfig, index: int, drop_path: Sequence[float]) -> None:
        super().__init__()
        dim = arch.embed_dims[index]
        self.downsample = DTM(arch.embed_dims[index - 1], dim) if index else nn.Identity()
        ratio = arch.mlp_ratios[index]
        self.blocks = nn.Sequential(*(Block(dim, _build_attention(arch, index), ratio, rate) for rate in drop_path))
        self.grad_checkpointing = False

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns the stage's features, shape (B, embed_dims[index], H // 2, W // 2); the first stage keeps H and W."""
        x_BCHW = self.downsample(x_BCHW)
        # Without `contiguous`, the norms of every block copy the map. LITv2-S is 4 % faster with it, measured on a CPU
        # with torch 2.15; other versions can differ.
        x_BHWC = x_BCHW.permute(0, 2, 3, 1).contiguous()
        y_BHWC: Tensor = checkpoint_seq(self.blocks, x_BHWC) if self.grad_checkpointing else self.blocks(x_BHWC)
        return y_BHWC.permute(0, 3, 1, 2)


class StagedNetwork(nn.Module):
    """Base class with the methods that timm's training scripts call, for networks with stages in `layers`."""

    @jit_ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Enables or disables gradient checkpointing of the blocks."""
        for module in self.modules():
            if isinstance(module, Stage):
                module.grad_checkpointing = enable

    @jit_ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Returns the patterns by which timm groups parameters: per stage if `coarse`, otherwise per block."""
        by_block = [(r"^layers\.(\d+)\.downsample", (0,)), (r"^layers\.(\d+)\.\w+\.(\d+)", None), (r"^norm", (99999,))]
        return {"stem": r"^patch_embed", "blocks": r"^layers\.(\d+)" if coarse else by_block}

    @jit_ignore
    def no_weight_decay(self) -> set[str]:
        """Returns an empty set: timm already excludes all one-dimensional parameters from weight decay."""
        return set()


def _build_attention(arch: ArchConfig, index: int) -> nn.Module | None:
    """Returns the attention layer of a stage, or None for a stage without attention."""
    kind = attention_named(arch.attention[index])
    if kind.layer is None:
        return None
    module, _, name = kind.layer.partition(":")
    layer = getattr(importlib.import_module(module), name)
    attention: nn.Module = layer(dim=arch.embed_dims[index], **{knob: getattr(arch, knob)[index] for knob in kind.uses})
    return attention
