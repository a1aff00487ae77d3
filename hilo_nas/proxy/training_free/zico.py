"""ZiCo: how steady the gradients of a fresh network are from one minibatch to the next, against their size.

Paper: "ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients" (arXiv 2301.11300), definition 1. For
each layer, the sum over its weights of the gradients' mean size over their standard deviation; the score is the sum of
the layers' logarithms.
Own changes: four minibatches, not two. Of two, the deviation is half their difference, and a layer's sum hangs on the
few weights for which that nearly vanishes by chance (its expectation is infinite; from three minibatches on it is not).
Over seeds, a LITv2 of 16 to 128 channels on the digits had a standard deviation of 2.7 with two, 0.9 with four.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hilo_nas.errors import UsageError

__all__ = ["BATCHES", "score_zico"]

BATCHES = 4
"""Minibatches of a score."""

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def score_zico(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Returns the sum of the layers' logarithms, of any sign; higher is better.

    As in the paper, the weights of linear and convolution layers count, no biases and no norms. A weight whose gradient
    does not vary is left out, and so is a layer without others (no gradient arrives behind a scale of zero, which
    timm's ResNets have at first where a branch ends). The loss is plain cross-entropy. The network is in train mode:
    its running statistics change, its weights do not. The gradients of all batches are in memory at once.

    Args:
        model: The network, with fresh weights.
        batches: Images as the network takes them, and labels, on its device; two or more.

    Raises:
        UsageError: No layer has a gradient that varies, or there are too few batches.
    """
    if len(batches) < 2:
        raise UsageError(f"zico needs 2 minibatches or more, but got {len(batches)}")
    model.train()
    layers = [module for module in model.modules() if isinstance(module, _LAYERS)]
    weights = [layer.weight for layer in layers if layer.weight.requires_grad]
    gradients: list[list[Tensor]] = [[] for _ in weights]
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels)
        for seen, gradient in zip(gradients, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
            if gradient is not None:
                seen.append(gradient.flatten())
    sums = [_steadiness(seen) for seen in gradients if len(seen) == len(batches)]
    logarithms = [math.log(value) for value in sums if value > 0]
    if not logarithms:
        raise UsageError(f"zico needs a linear or convolution layer that learns, but {type(model).__name__} has none")
    return math.fsum(logarithms)


def _steadiness(gradients: Sequence[Tensor]) -> float:
    """Returns a layer's sum of mean size over deviation; 0 where no gradient varies."""
    # In double precision, on the CPU, for some devices have none.
    stacked = torch.stack(list(gradients)).cpu().double()
    deviation = stacked.std(dim=0, correction=0)
    varies = deviation > 0
    return float((stacked.abs().mean(dim=0)[varies] / deviation[varies]).sum())
