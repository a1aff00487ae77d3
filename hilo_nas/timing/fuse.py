"""A network in the form that people deploy: branches re-parameterised, batch norms folded into convolutions."""

from __future__ import annotations

import copy
import warnings

import torch
from timm.utils.model import reparameterize_model
from torch import nn
from torch.fx.experimental.optimization import fuse as fold_batch_norms
from torch.nn.modules.batchnorm import _BatchNorm

from hilo_nas.errors import ConversionError

__all__ = ["fuse"]

_TOLERANCE = 1e-3
"""Largest difference of outputs, as a share of the largest output: folding changes the order of float32 sums."""


def fuse(model: nn.Module, image: torch.Tensor) -> tuple[nn.Module, str]:
    """Returns an equal network with fewer operations, and in words what was done.

    Re-parameterises what timm knows how to (RepVGG's branches and their kin), and folds batch norms that follow a
    convolution, where the network can be traced. Either may find nothing to do.

    Args:
        model: A network in evaluation mode, in float32 on the CPU; left as it is.
        image: An input for it.

    Raises:
        ConversionError: The outputs of the two differ.
    """
    with torch.inference_mode(False), torch.no_grad():
        image = image.clone()
        wanted = model(image)
        fused: nn.Module = reparameterize_model(copy.deepcopy(model))
        done = "reparameterised" if _count(fused) < _count(model) else "fused"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # tracing warns of what it cannot see; the outputs are compared below
                folded = fold_batch_norms(fused)
        except Exception:  # whatever a network does that cannot be traced: it stays as it is
            folded = fused
        if _count(folded, _BatchNorm) < _count(fused, _BatchNorm):
            fused, done = folded, f"{done} folded".removeprefix("fused ")
        found = fused(image)
    difference = float((found - wanted).abs().max() / wanted.abs().max())
    if not difference <= _TOLERANCE:
        raise ConversionError(
            f"a fused network must give the same output, but {type(model).__name__}'s differs by {difference:.1e} of "
            "the largest. Set timing.fused=false to time the training form."
        )
    return fused, done


def _count(model: nn.Module, kind: type[nn.Module] = nn.Module) -> int:
    return sum(isinstance(module, kind) for module in model.modules())
