"""Conversion of a LITv2 to its inference form for a device and a precision."""

from __future__ import annotations

import copy

import torch

from hilo_nas.errors import UsageError
from hilo_nas.models.inference.network import PreparedLITv2
from hilo_nas.models.litv2 import LITv2
from hilo_nas.models.precisions import DTYPES

__all__ = ["prepare_for_inference"]


def prepare_for_inference(
    model: LITv2, *, device: str | torch.device = "cpu", precision: str = "fp32", for_compile: bool = False
) -> PreparedLITv2:
    """Returns a copy of a network in its inference form: the same outputs from fewer and larger operations.

    All devices use these optimizations:

    * The patch embedding is one matrix product over patches.
    * Token merging is a gather and one product, with the batch norm folded into it.
    * One product computes all projections of the map in a HiLo layer.

    On a CPU, oneDNN operators with packed weights and fused activations run the products, if the version of torch has
    them. On a CUDA device, Triton kernels run the gather, the depthwise convolutions and attention in small windows, if
    Triton is installed and a first test matches torch. Otherwise plain torch runs these steps. The attribute `form` of
    the result names the selected operators.

    Features, `forward_intermediates` and any image size work as in the training form. The result keeps a copy of the
    weights in host memory. `PreparedLITv2` describes its other methods.

    Args:
        model: LITv2 with float32 weights; not changed. For a prepared network, its training form is used.
        device: Device that runs the copy.
        precision: fp32, bf16, fp16, amp-bf16 or amp-fp16. bf16 and fp16 convert weights and images. amp-bf16 and
            amp-fp16 keep float32 weights, for calls under autocast.
        for_compile: True if the copy goes through `torch.compile`, which has its own CPU operators.

    Raises:
        UsageError: `model` is not a LITv2, or the precision is unknown.
        DeviceError: This machine does not have the device.
    """
    if DTYPES.get(precision.removeprefix("amp-")) is None or precision == "amp-fp32":
        raise UsageError(f"precision must be fp32, bf16, fp16, amp-bf16 or amp-fp16, but got {precision!r}")
    if isinstance(model, PreparedLITv2):
        trained: LITv2 = model.training_form()
    elif isinstance(model, LITv2):
        # Weights created in inference mode could not be changed later.
        with torch.inference_mode(False), torch.no_grad():
            trained = copy.deepcopy(model).cpu()
    else:
        raise UsageError(
            f"the network must be a LITv2, but got {type(model).__name__}. Use networks of other families without "
            "preparation. For features of a LITv2, build it without features_only and call forward_intermediates."
        )
    return PreparedLITv2(trained, device=torch.device(device), precision=precision, for_compile=for_compile)
