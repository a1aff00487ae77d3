"""Inference form of networks: re-parameterised branches, and batch norms folded into convolutions."""

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
"""Largest allowed difference of outputs, relative to the largest output. Folding reorders float32 sums."""


def fuse(model: nn.Module, image: torch.Tensor) -> tuple[nn.Module, str]:
    """Returns an equivalent network with fewer operations, and a short description of the changes.

    Re-parameterises the branches that timm supports, such as those of RepVGG. Then folds batch norms into the
    convolutions before them if the network can be traced. Both steps can leave the network unchanged.

    Args:
        model: Network in evaluation mode, in float32 on the CPU. It is not modified.
        image: Input of the network.

    Raises:
        ConversionError: The outputs of the two networks differ.
    """
    with torch.inference_mode(False), torch.no_grad():
        image = image.clone()
        wanted = model(image)
        fused: nn.Module = reparameterize_model(copy.deepcopy(model))
        done = "reparameterised" if _count(fused) < _count(model) else "fused"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # tracing warnings are harmless because the outputs are compared below
                folded = fold_batch_norms(fused)
        except Exception:  # the network cannot be traced, for any reason
            folded = fused
        if _count(folded, _BatchNorm) < _count(fused, _BatchNorm):
            fused, done = folded, f"{done} folded".removeprefix("fused ")
        found = fused(image)
    difference = float((found - wanted).abs().max() / wanted.abs().max())
    if not difference <= _TOLERANCE:
        raise ConversionError(
            f"fusing must not change the outputs of a network, but those of {type(model).__name__} differ by "
            f"{difference:.1e} of the largest value. Set timing.fused=false to time the training form."
        )
    return fused, done


def _count(model: nn.Module, kind: type[nn.Module] = nn.Module) -> int:
    return sum(isinstance(module, kind) for module in model.modules())
