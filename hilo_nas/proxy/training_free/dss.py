"""DSS: how much of a fresh transformer's attention and perceptron weights takes part in its output.

Paper: "Training-free Transformer Architecture Search" (arXiv 2203.12217), section 3. All weights are made positive, the
image is ones, and the loss is the sum of the outputs. An attention matrix W counts with its synaptic diversity, the
nuclear norm of W times that of its gradient; a perceptron's with its synaptic saliency, the sum of |W * gradient|.

What counts in LITv2: the linear layers of `Block.attn`, each matrix as it is stored (queries, keys and values side by
side are one, as in the authors' code), and fc1 and fc2 of every ConvFFN, in stages without attention, too. The paper's
networks have no token merging and no convolution between the layers of a perceptron: DTM and the depthwise convolution
add nothing of their own here, but gradients go through them, as through the patch embedding and the head.

What counts in timm's networks: attention is what lies below a module called `attn...`, perceptrons lie below one called
`mlp...`. A network without perceptrons (a ResNet) has the saliency of all its linear and convolution layers outside
attention instead; that is another sum, good for comparing such networks with each other, hardly with transformers.

Own changes: batch norm is the identity, so that weights alone speak; everything is in double precision; the score is
the logarithm of the paper's sum, which grows by orders of magnitude with the depth of a network without norms. Ranks
are the same, but the mean of several scores is a geometric one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hilo_nas.errors import HiloNasError, UsageError

__all__ = ["score_dss"]

_WAY_OUT = "Fresh weights of zero, or an overflow, leave it nothing to see: use another proxy for this network."
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def score_dss(model: nn.Module, img_size: int) -> float:
    """Returns the logarithm of the indicator, of any sign; higher is better.

    The network is used up: afterwards it is in eval mode, and its weights are positive and in double precision (in
    single where the device has no double).

    Args:
        model: The network, with fresh weights.
        img_size: Side of the image of ones, in pixels; it has three channels.

    Raises:
        UsageError: Nothing in the network counts.
        HiloNasError: The indicator is zero or overflows.
    """
    device = next(model.parameters()).device
    dtype = torch.float32 if device.type == "mps" else torch.float64
    model = model.to(dtype).eval()
    _make_positive(model)
    model.zero_grad(set_to_none=True)
    model(torch.ones(1, 3, img_size, img_size, dtype=dtype, device=device)).sum().backward()
    attention, perceptrons = _sort_layers(model)
    if not attention and not perceptrons:
        raise UsageError(f"dss needs linear or convolution layers, but {type(model).__name__} has none")
    total = math.fsum([*map(_diversity, attention), *map(_saliency, perceptrons)])
    if not 0 < total < math.inf:
        raise HiloNasError(f"dss must be positive and finite, but is {total} for {type(model).__name__}. {_WAY_OUT}")
    return math.log(total)


def _make_positive(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.reset_parameters()  # nothing seen, scales of one: the identity in eval mode, but for its epsilon


def _sort_layers(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Returns the weights with a gradient that count by diversity, and those that count by saliency."""
    attention, perceptrons, others = [], [], []
    for path, module in _layers(model):
        weight = module.weight
        assert isinstance(weight, Tensor)
        if weight.grad is None:
            continue
        if any(part.startswith("attn") for part in path):
            if _is_linear(module):
                attention.append(weight)
        else:
            others.append(weight)
            if _is_linear(module) and any(part.startswith("mlp") for part in path):
                perceptrons.append(weight)
    return attention, perceptrons or others


def _layers(model: nn.Module) -> Iterator[tuple[list[str], nn.Module]]:
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, *_CONVOLUTIONS)):
            yield name.split("."), module


def _is_linear(module: nn.Module) -> bool:
    """Tells whether every position is multiplied by one matrix: a linear layer, or a convolution of one pixel."""
    if isinstance(module, _CONVOLUTIONS):
        return module.groups == 1 and all(side == 1 for side in module.kernel_size)
    return True


def _diversity(weight: Tensor) -> float:
    assert weight.grad is not None
    # On the CPU: singular values are not to be had on every device.
    gradient, matrix = (values.detach().cpu().double().flatten(1) for values in (weight.grad, weight))
    norms = (torch.linalg.matrix_norm(values, "nuc") for values in (gradient, matrix))
    return math.prod(map(float, norms))


def _saliency(weight: Tensor) -> float:
    assert weight.grad is not None
    return float((weight.grad * weight.detach()).abs().sum())
