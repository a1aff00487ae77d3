"""A trained LITv2 in its inference form for a device and a precision: equal outputs from fewer operations."""

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

    Batch norms are folded into the merging's product, the merging is a gather and a product, a HiLo layer's projections
    of the map are one product, patches are cut before their product. On a CPU, oneDNN's operators with packed weights
    run the products with what follows them, where this torch has them; on a CUDA device, Triton's kernels run the
    gather, the depthwise convolutions and small windows, where Triton is installed and gives what torch gives in a
    first try; elsewhere plain torch does.
    `form` of the result says which. Features, `forward_intermediates` and any image size work as before. See
    `PreparedLITv2` for what else the result can do; it keeps a copy of the weights in host memory.

    Args:
        model: A LITv2 with its weights in float32, left as it is; of a prepared network, its training form is taken.
        device: Where the copy is to run.
        precision: fp32; bf16 or fp16 to convert weights and images; amp-bf16 or amp-fp16 for float32 weights that run
            under the caller's autocast.
        for_compile: Whether the copy goes through `torch.compile`, which brings its own operators for a CPU.

    Raises:
        UsageError: `model` is no LITv2, or the precision is unknown.
        DeviceError: This machine does not have the device.
    """
    if DTYPES.get(precision.removeprefix("amp-")) is None or precision == "amp-fp32":
        raise UsageError(f"precision must be fp32, bf16, fp16, amp-bf16 or amp-fp16, but got {precision!r}")
    if isinstance(model, PreparedLITv2):
        trained: LITv2 = model.training_form()
    elif isinstance(model, LITv2):
        # Tensors made in inference mode could not take other weights later.
        with torch.inference_mode(False), torch.no_grad():
            trained = copy.deepcopy(model).cpu()
    else:
        raise UsageError(
            f"the network must be a LITv2, but got {type(model).__name__}. Leave networks of other families as they "
            "are; for features of a LITv2, build it without features_only and call forward_intermediates of the result."
        )
    return PreparedLITv2(trained, device=torch.device(device), precision=precision, for_compile=for_compile)
