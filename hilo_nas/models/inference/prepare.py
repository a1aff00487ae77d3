"""A trained LITv2 in its inference form for a device and a precision: equal outputs from fewer operations."""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import nn

from hilo_nas.errors import UsageError
from hilo_nas.models.blocks import PatchEmbed, Stage
from hilo_nas.models.inference import onednn, triton_kernels
from hilo_nas.models.inference.cuda import TRITON, is_right
from hilo_nas.models.inference.operators import PLAIN, Operators
from hilo_nas.models.inference.parts import FusedPatchEmbed, FusedStage
from hilo_nas.models.litv2 import LITv2
from hilo_nas.models.precisions import DTYPES

__all__ = ["choose_operators", "prepare_for_inference"]

_SHARED_WORDS = ("patches=product", "merging=gather", "batchnorms=folded", "projections=joint")
"""What every form has."""


def prepare_for_inference(
    model: LITv2, *, device: str | torch.device = "cpu", precision: str = "fp32", for_compile: bool = False
) -> LITv2:
    """Returns a copy of a network in its inference form: the same outputs from fewer and larger operations.

    Batch norms are folded into the merging's product, the merging is a gather and a product, a HiLo layer's projections
    of the map are one product, patches are cut before their product. On a CPU, oneDNN's operators with packed weights
    run the products with what follows them, where this torch has them; on a CUDA device, Triton's kernels run the
    gather, the depthwise convolutions and small windows, where Triton is installed and gives what torch gives in a
    first try; elsewhere plain torch does.
    `form` of the result says which. Features, `forward_intermediates` and any image size work as before; it cannot be
    trained, and packed weights stand in no state dict: keep the model given for that.

    Args:
        model: A LITv2 with its weights in float32; left as it is.
        device: Where the copy is to run.
        precision: fp32; bf16 or fp16 to convert weights, whose input must be of that kind; amp-bf16 or amp-fp16 for
            float32 weights that run under the caller's autocast.
        for_compile: Whether the copy goes through `torch.compile`, which brings its own operators for a CPU.

    Raises:
        UsageError: `model` is no LITv2, is prepared already, or the precision is unknown.
    """
    dtype = DTYPES.get(precision.removeprefix("amp-"))
    if dtype is None or precision == "amp-fp32":
        raise UsageError(f"precision must be fp32, bf16, fp16, amp-bf16 or amp-fp16, but got {precision!r}")
    if not isinstance(model, LITv2):
        raise UsageError(f"the network must be a LITv2, but got {type(model).__name__}. Leave others as they are.")
    if model.choices:
        raise UsageError("the network must not have been prepared before. Prepare the one that it was made from.")
    if precision.startswith("amp-"):
        dtype = torch.float32
    device = torch.device(device)
    operators = dataclasses.replace(choose_operators(device, precision, for_compile=for_compile), dtype=dtype)
    with torch.no_grad():
        prepared = copy.deepcopy(model).eval().requires_grad_(False)
        prepared.to(device)
        # Weights are folded in the precision given, and rounded only then.
        stages = [stage for stage in prepared.layers if isinstance(stage, Stage)]
        assert isinstance(prepared.patch_embed, PatchEmbed)
        prepared.patch_embed = FusedPatchEmbed(prepared.patch_embed, operators)
        prepared.layers = nn.Sequential(*(FusedStage(stage, operators) for stage in stages))
        prepared.to(dtype)
    prepared.choices = (*_SHARED_WORDS, *operators.words)
    return prepared


def choose_operators(device: torch.device, precision: str, *, for_compile: bool = False) -> Operators:
    """Returns the operators that an inference form has on a device; see `prepare_for_inference` for the arguments."""
    dtype = DTYPES[precision.removeprefix("amp-")]
    if device.type == "cpu" and precision in DTYPES and not for_compile and onednn.is_available(dtype):
        return onednn.ONEDNN
    if device.type == "cuda" and triton_kernels.is_available(device) and is_right(device, dtype):
        return TRITON
    return PLAIN
