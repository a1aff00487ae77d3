"""Parts of a LITv2 on fixed inputs, so that a timing worker can time each of them alone.

Shape suffixes: B batch, C channels, H W feature map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hilo_nas.arch.config import ArchConfig
from hilo_nas.arch.cost import PARTS, map_sizes
from hilo_nas.models.inference import prepare_for_inference
from hilo_nas.models.litv2 import LITv2, build_model
from hilo_nas.models.precisions import DTYPES
from hilo_nas.models.weights import randomize_constant_weights

__all__ = ["FixedInput", "build_part", "random_tensor"]


class FixedInput(nn.Module):
    """Module that ignores its argument and calls a part on a stored tensor.

    Args:
        part: Module that is called. It must be on its final device already.
        x: Input of the part, also on its final device.
        form: Name of the implementation, which the measurement stores.
    """

    def __init__(self, part: nn.Module, x: Tensor, form: str) -> None:
        super().__init__()
        self.part, self.x, self.form = part, x, form

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FixedInput:
        """Does nothing, because `to` would change the NHWC layout that maps and weights have in the network."""
        return self

    def forward(self, image: Tensor) -> Tensor:
        """Returns the output of the part for the stored tensor."""
        y: Tensor = self.part(self.x)
        return y


class _Head(nn.Module):
    """Norm and classifier after the last stage."""

    def __init__(self, network: LITv2) -> None:
        super().__init__()
        self.norm, self.head = network.norm, network.head

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y: Tensor = self.head(self.norm(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        return y


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
    """Returns a part of a network in its inference form, with random input of the shape that it has in the network.

    Args:
        part: One of `hilo_nas.arch.cost.PARTS`.
        arch: Architecture as plain data.
        batch_size: Images per batch.
        img_size: Side of the images in pixels.
        device: Device that the part runs on.
        precision: Precision of a condition, except autocast.
        num_classes: Number of classes.
        in_chans: Number of channels of the images.
    """
    config = ArchConfig.from_dict(arch)
    network = build_model(config, num_classes=num_classes, in_chans=in_chans)
    randomize_constant_weights(network)
    network = prepare_for_inference(network, device=device, precision=precision)
    index = PARTS.index(part)
    if index == 0:
        images_BCHW = random_tensor((batch_size, in_chans, img_size, img_size), device, precision)
        return FixedInput(network.patch_embed, images_BCHW, network.form)
    before = max(index - 2, 0)  # the stage whose output comes in; the first stage keeps the size of its input
    map_BHWC = random_tensor(
        (batch_size, *map_sizes(config, img_size)[before], config.embed_dims[before]), device, precision
    )
    # Stages pass NHWC maps as NCHW views.
    module = _Head(network) if part == PARTS[-1] else network.layers[index - 1]
    return FixedInput(module, map_BHWC.permute(0, 3, 1, 2), network.form)


def random_tensor(shape: tuple[int, ...], device: str, precision: str) -> Tensor:
    """Returns normally distributed numbers, the same ones for the same shape and precision."""
    value = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return value.to(device=device, dtype=DTYPES[precision])
