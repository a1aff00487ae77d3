"""Checks of the images and of torch's mode, before a prepared network runs."""

from __future__ import annotations

import torch
from torch import Tensor

from hilo_nas.errors import InferenceFormError
from hilo_nas.models.inference.operators import Operators
from hilo_nas.models.inference.packed import is_traced, refuse_graph

__all__ = ["ImageCheck"]


class ImageCheck:
    """Check of the input images of a prepared network.

    Args:
        in_chans: Channels of an image.
        operators: Operators of the network.
    """

    def __init__(self, in_chans: int, operators: Operators) -> None:
        self.in_chans, self.operators = in_chans, operators

    def __call__(self, x_BCHW: Tensor) -> Tensor:
        """Returns the images in the dtype of the operators.

        Raises:
            InferenceFormError: The shape, dtype or device of the images does not fit, autocast is on but the network is
                not prepared for it, or torch captures a graph but the operators do not support it.
        """
        operators = self.operators
        if not operators.can_capture and is_traced():
            refuse_graph("torch.jit.trace and exporters built on it")
        if not operators.can_capture and torch.compiler.is_compiling():
            refuse_graph("torch.compile and torch.export")
        if x_BCHW.dim() != 4 or x_BCHW.shape[1] != self.in_chans or x_BCHW.shape[0] == 0:
            raise InferenceFormError(
                f"images must have the shape (B, {self.in_chans}, H, W) with B at least 1, but got "
                f"{tuple(x_BCHW.shape)}. Use image.unsqueeze(0) for a single image, or permute for another axis order."
            )
        if x_BCHW.device != operators.device:
            raise InferenceFormError(
                f"images must be on {operators.device}, the device of the prepared network, but got {x_BCHW.device}. "
                f"Use network.to({str(x_BCHW.device)!r}) or images.to({str(operators.device)!r})."
            )
        if not operators.for_autocast and torch.is_autocast_enabled(operators.device.type):
            raise InferenceFormError(
                f"a network prepared in {operators.dtype} must not run under autocast, but autocast is on. Disable it, "
                'or prepare the network with precision="amp-bf16" or "amp-fp16".'
            )
        if x_BCHW.dtype == operators.dtype:
            return x_BCHW
        if not x_BCHW.is_floating_point():
            raise InferenceFormError(
                f"images must be normalised floating-point values, but got {x_BCHW.dtype}. Use images.float() / 255 "
                "and then the normalisation from training."
            )
        return x_BCHW.to(operators.dtype)
