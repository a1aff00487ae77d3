"""The parts of a LITv2: patch embedding, ConvFFN, block, stage, and what timm asks of a network of stages.

Paper: "Fast Vision Transformers with HiLo Attention" (arXiv 2205.13213). Behaviour: the dense-prediction backbone of
github ziplab/LITv2 (Apache-2.0).
Own changes: blocks work on NHWC maps, stages take and give NCHW maps; a stage begins with its token merging; one block
for stages with and without attention; the attention layer is looked up in `hilo_nas.arch.attentions`.

Shape suffixes: B batch, C channels, H W map.
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
"""What LayerNorm adds to the variance, everywhere in the network."""

_Method = TypeVar("_Method", bound=Callable[..., Any])
jit_ignore: Callable[[_Method], _Method] = torch.jit.ignore
"""Keeps a method out of TorchScript, as timm does; torch's own decorator has no types."""


class PatchEmbed(nn.Module):
    """Cuts an image into patches and projects each.

    Args:
        patch_size: Side of a patch, in pixels.
        in_chans: Channels of the image.
        embed_dim: Channels of the map.
        min_size: The smallest side of an image that the whole network can halve down to a token.
    """

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int, min_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.min_size = min_size
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns a map of shape (B, embed_dim, H / patch, W / patch), rounded up: the image is padded with zeros.

        Raises:
            UsageError: The image is smaller than the network's stride.
        """
        x_BCHW = pad_image(x_BCHW, self.patch_size, self.min_size)
        y_BHWC: Tensor = self.norm(self.proj(x_BCHW).permute(0, 2, 3, 1))
        return y_BHWC.permute(0, 3, 1, 2)


def pad_image(x_BCHW: Tensor, patch_size: int, min_size: int) -> Tensor:
    """Returns an image of whole patches: padded at the bottom and right with zeros where it has to be.

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
    """A two-layer perceptron on every token, with a 3x3 depthwise convolution between the layers.

    The convolution's zero padding is the network's only source of position.
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
        """Returns a map of the shape given, (B, H, W, C)."""
        x_BHWC = self.fc1(x_BHWC)
        if self.training and x_BHWC.is_cpu and x_BHWC.shape[1] <= 2:
            # The same, padded by hand: for maps of one or two rows, forward and backward took a quarter to a half of
            # the time, in bfloat16 a twentieth, and a step at 32 px up to a tenth less. Seen on AMD EPYC (Zen 4) with
            # torch 2.15; it may change.
            padded_BCHW = F.pad(x_BHWC, (0, 0, 1, 1, 1, 1)).permute(0, 3, 1, 2)
            x_BCHW = F.conv2d(padded_BCHW, self.dwconv.weight, self.dwconv.bias, groups=self.dwconv.groups)
        else:
            x_BCHW = self.dwconv(x_BHWC.permute(0, 3, 1, 2))
        y_BHWC: Tensor = self.fc2(F.gelu(x_BCHW).permute(0, 2, 3, 1))
        return y_BHWC


class Block(nn.Module):
    """A transformer block: attention where the stage has any, then the ConvFFN, each with a pre-norm and a skip.

    Args:
        dim: Channels of the map.
        attn: The attention layer, (B, H, W, C) to the same; None for a block without attention.
        mlp_ratio: Hidden width of the ConvFFN over `dim`.
        drop_path: Probability that a sample skips a branch in training.
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
        """Returns a map of the shape given, (B, H, W, C)."""
        if self.has_attn:
            x_BHWC = x_BHWC + self.drop_path(self.attn(self.norm1(x_BHWC)))
        y_BHWC: Tensor = x_BHWC + self.drop_path(self.mlp(self.norm2(x_BHWC)))
        return y_BHWC


class Stage(nn.Module):
    """One stage of a LITv2: token merging (not in the first), then the blocks.

    Args:
        arch: The whole architecture.
        index: Which of its stages this is, from 0.
        drop_path: Stochastic depth of each block.
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
        # Contiguous: else the norms of every block copy the map. Seen 4 % faster for LITv2-S on a CPU with torch 2.15;
        # it may change.
        x_BHWC = x_BCHW.permute(0, 2, 3, 1).contiguous()
        y_BHWC: Tensor = checkpoint_seq(self.blocks, x_BHWC) if self.grad_checkpointing else self.blocks(x_BHWC)
        return y_BHWC.permute(0, 3, 1, 2)


class StagedNetwork(nn.Module):
    """A network of stages named `layers`, as timm's training scripts treat it."""

    @jit_ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trades time for memory in training: blocks are computed again for the backward pass."""
        for module in self.modules():
            if isinstance(module, Stage):
                module.grad_checkpointing = enable

    @jit_ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Returns the patterns by which timm groups parameters: by stage where `coarse`, else by block."""
        by_block = [(r"^layers\.(\d+)\.downsample", (0,)), (r"^layers\.(\d+)\.\w+\.(\d+)", None), (r"^norm", (99999,))]
        return {"stem": r"^patch_embed", "blocks": r"^layers\.(\d+)" if coarse else by_block}

    @jit_ignore
    def no_weight_decay(self) -> set[str]:
        """Returns the names of parameters that timm must not decay, besides those of one axis: none."""
        return set()


def _build_attention(arch: ArchConfig, index: int) -> nn.Module | None:
    """Builds the attention layer of one stage of its kind; None for a stage without attention."""
    kind = attention_named(arch.attention[index])
    if kind.layer is None:
        return None
    module, _, name = kind.layer.partition(":")
    layer = getattr(importlib.import_module(module), name)
    attention: nn.Module = layer(dim=arch.embed_dims[index], **{knob: getattr(arch, knob)[index] for knob in kind.uses})
    return attention
