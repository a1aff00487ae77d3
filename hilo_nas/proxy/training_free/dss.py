"""DSS: contribution of attention and MLP weights to the output of an untrained transformer.

Paper: "Training-free Transformer Architecture Search" (arXiv 2203.12217), section 3. All weights are made positive, the
image consists of ones, and the loss is the sum of the outputs. The score adds two terms:

* Synaptic diversity of each attention matrix W: the nuclear norm of W times the nuclear norm of its gradient.
* Synaptic saliency of each MLP matrix W: the sum of |W * gradient|.

Layers of LITv2: the linear layers of `Block.attn`, and fc1 and fc2 of every ConvFFN, also in stages without attention.
Each matrix is used as stored, so the joint matrix of queries, keys and values is one matrix, as in the authors' code.
The paper's networks have no token merging and no convolution inside an MLP. Therefore deformable token merging and the
depthwise convolution have no terms, but gradients pass through them, as through the patch embedding and the head.

Layers of timm networks: attention layers are inside a module with a name that starts with `attn`, and MLP layers inside
one that starts with `mlp`. A network without MLPs (such as a ResNet) uses the saliency of all linear and convolution
layers outside of attention instead. This sum is suitable to compare such networks with each other, but hardly with
transformers.

Changes: batch norm is the identity, so the score depends on the weights only. All computations are in double precision.
The score is the logarithm of the paper's sum, because the sum grows by orders of magnitude with the depth of a network
without norms. The ranking is the same, but the mean over several scores is a geometric mean of the sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hilo_nas.errors import HiloNasError, UsageError

__all__ = ["score_dss"]

_WAY_OUT = "The cause is fresh weights of zero or an overflow. Use another proxy for this network."
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def score_dss(model: nn.Module, img_size: int) -> float:
    """Returns the logarithm of the DSS sum, which can be negative. Higher is better.

    The function changes the network: afterwards it is in eval mode, and its weights are positive and in double
    precision (single precision on mps).

    Args:
        model: The network with fresh weights.
        img_size: Side of the image of ones, in pixels. The image has three channels.

    Raises:
        UsageError: The network has no linear or convolution layers.
        HiloNasError: The sum is zero or overflows.
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
                module.reset_parameters()  # the identity in eval mode, except for epsilon


def _sort_layers(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Returns the weights of the diversity term and those of the saliency term, if they have a gradient."""
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
    """Returns True for a linear layer or an ungrouped 1 x 1 convolution, which multiply each position by one matrix."""
    if isinstance(module, _CONVOLUTIONS):
        return module.groups == 1 and all(side == 1 for side in module.kernel_size)
    return True


def _diversity(weight: Tensor) -> float:
    assert weight.grad is not None
    # Computed on the CPU because some devices do not support singular values.
    gradient, matrix = (values.detach().cpu().double().flatten(1) for values in (weight.grad, weight))
    norms = (torch.linalg.matrix_norm(values, "nuc") for values in (gradient, matrix))
    return math.prod(map(float, norms))


def _saliency(weight: Tensor) -> float:
    assert weight.grad is not None
    return float((weight.grad * weight.detach()).abs().sum())
