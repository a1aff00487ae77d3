"""Inference of a trained network that is quantized to INT8 in a runtime, for its score."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from hilo_nas.models.convert import Converted

__all__ = ["BATCH_SIZE", "build_int8_inference"]

BATCH_SIZE = 64
"""Images per call of the runtime."""


def build_int8_inference(
    model: nn.Module, images: Tensor, runtime: str
) -> tuple[Callable[[Tensor], Tensor], Converted]:
    """Returns a function that maps at most `BATCH_SIZE` normalized images to logits, and the quantized network.

    The runtime computes on the CPU. The logits are on the device of the images.

    Args:
        model: The trained network; not changed.
        images: Normalized training images for the calibration, shape (N, C, S, S).
        runtime: openvino or onnxruntime.

    Raises:
        UsageError: The runtime or its tool for quantization is not installed.
        ConversionError: The network cannot be converted or quantized.
    """
    from hilo_nas.models.convert import convert  # only studies in INT8 need it

    images = images.cpu()
    example = images.repeat(-(-BATCH_SIZE // len(images)), 1, 1, 1)[:BATCH_SIZE]
    converted = convert(model, example, runtime, precision="int8", calibration=images)

    def infer(images: Tensor) -> Tensor:
        converted.image[: len(images)].copy_(images)
        converted.call()
        return converted.read_output()[: len(images)].to(images.device)

    return infer, converted
