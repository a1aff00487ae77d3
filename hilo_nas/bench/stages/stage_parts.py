"""Parts of a network on maps of their own, and what a device does at best: subjects that a timing process builds.

Shape suffixes: B batch, C channels, H W map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hilo_nas.arch.config import ArchConfig
from hilo_nas.arch.cost import PARTS, map_sizes
from hilo_nas.models import LITv2, build_model, fill_zero_weights, prepare_for_inference
from hilo_nas.models.inference import choose_operators
from hilo_nas.models.precisions import DTYPES

__all__ = ["build_copy", "build_part", "build_product"]


class _OnItsOwn(nn.Module):
    """Calls a part on a tensor of its own, whatever it is given; where and how both lie is settled.

    Args:
        part: What is called.
        own: What it is called on.
        form: Which implementation runs.
    """

    def __init__(self, part: nn.Module, own: Tensor, form: str) -> None:
        super().__init__()
        self.part, self.own, self.form = part, own, form

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _OnItsOwn:
        """Leaves all as it lies: `to` would turn maps and weights from NHWC, in which the network has them."""
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Returns what comes of the part."""
        y: Tensor = self.part(self.own)
        return y


class _Head(nn.Module):
    """What follows the last stage."""

    def __init__(self, network: LITv2) -> None:
        super().__init__()
        self.norm, self.head = network.norm, network.head

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y: Tensor = self.head(self.norm(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        return y


class _Copy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


def build_part(
    *,
    part: str,
    arch: Mapping[str, Any],
    batch_size: int,
    img_size: int,
    device: str,
    precision: str,
    num_classes: int,
    in_chans: int,
) -> nn.Module:
    """Returns a part of a network in its inference form, which runs on a map as it meets in the network.

    Args:
        part: One of `hilo_nas.arch.cost.PARTS`.
        arch: The network, as plain data.
        batch_size: Images of the map.
        img_size: Side of the images in pixels.
        device: Where the part is to run.
        precision: As of a condition, but for autocast.
        num_classes: Outputs of the network.
        in_chans: Channels of the images.
    """
    config = ArchConfig.from_dict(arch)
    network = build_model(config, num_classes=num_classes, in_chans=in_chans)
    fill_zero_weights(network)
    network = prepare_for_inference(network, device=device, precision=precision)
    index = PARTS.index(part)
    if index == 0:
        images_BCHW = _random((batch_size, in_chans, img_size, img_size), device, precision)
        return _OnItsOwn(network.patch_embed, images_BCHW, network.form)
    before = max(index - 2, 0)  # the stage whose map comes in; the first takes one of its own size
    map_BHWC = _random((batch_size, *map_sizes(config, img_size)[before], config.embed_dims[before]), device, precision)
    # Stages hand on NHWC maps as NCHW views.
    module = _Head(network) if part == PARTS[-1] else network.layers[index - 1]
    return _OnItsOwn(module, map_BHWC.permute(0, 3, 1, 2), network.form)


def build_product(*, side: int, device: str, precision: str, num_classes: int, in_chans: int) -> nn.Module:
    """Returns a product of two square matrices, by the operator that inference forms have on the device."""
    operators = choose_operators(torch.device(device), precision)
    weight = _random((side, side), device, precision)
    product = operators.linear(weight, None)
    return _OnItsOwn(product, _random((side, side), device, precision), f"product {type(product).__name__}")


def build_copy(*, n_bytes: int, device: str, num_classes: int, in_chans: int) -> nn.Module:
    """Returns a copy of so many bytes of memory."""
    return _OnItsOwn(_Copy(), _random((n_bytes // 4,), device, "fp32"), "copy")


def _random(shape: tuple[int, ...], device: str, precision: str) -> Tensor:
    value = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return value.to(device=device, dtype=DTYPES[precision])
