"""Conversion of LITv2 weights between the official parameter names and those of this package.

Official names: github ziplab/LITv2, `classification/models/` and `detection/mmdet/models/backbones/litv2.py`. The
official code merges tokens at the end of a stage. This package does it at the start of the next stage, as timm does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["checkpoint_filter_fn", "official_state_dict", "randomize_constant_weights"]

_logger = logging.getLogger(__name__)

_NAMES = (
    *((f"layers.{stage}.downsample.", f"layers.{stage + 1}.downsample.") for stage in range(3)),
    ("mlp.dwconv.dwconv.", "mlp.dwconv."),
    ("head.", "head.fc."),
)
"""Parts of parameter names that differ: (official, this package). A name contains at most one of them."""

_DEVIATION = 0.02
"""Standard deviation of values that are added to zeros and ones."""

_OFFICIAL_MARK = "mlp.dwconv.dwconv."
"""Part of a name in every official LITv2 checkpoint (classifier and backbone), but never in this package."""

_DENSE_OUTPUT_NORMS = ("norm0.", "norm1.", "norm2.")


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Returns weights with the names of this package, ready for `model.load_state_dict(..., strict=True)`.

    Converts official checkpoints of the classifier and of the dense-prediction backbone. The weights can be at the top
    level or under the key `model` or `state_dict`, with or without the prefixes `module.` and `backbone.`. Weights that
    already have the names of this package are returned unchanged.

    In a dense-prediction backbone, the output norm of the last stage (`norm3`) becomes the final norm; the other output
    norms are dropped because LITv2 has no such layers here. The model keeps its current head or final norm if the
    checkpoint has none, or if the shape of the head differs.

    Args:
        state_dict: Checkpoint from `torch.load`.
        model: LITv2 that will load the weights.
    """
    for wrapper in ("model", "state_dict"):
        if isinstance(state_dict.get(wrapper), Mapping):
            state_dict = state_dict[wrapper]
    weights = _strip(_strip(state_dict, "module."), "backbone.")
    if not any(_OFFICIAL_MARK in name for name in weights):
        return weights
    ours = {}
    for name, value in weights.items():
        if name.startswith("norm3."):
            name = name.replace("norm3.", "norm.")
        if not name.startswith(_DENSE_OUTPUT_NORMS):
            ours[_renamed(name, _NAMES)] = value
    return _fill_head_and_norm(ours, model)


def randomize_constant_weights(model: nn.Module) -> None:
    """Replaces initial weights that are all zero or all one by random ones, as a trained network has.

    Use it before a timing. Compilers and runtimes leave out zeros and ones in biases and norms. With zero sampling
    offsets, memory accesses are more regular than in a trained network.

    Matrices of zeros get random values of standard deviation 1 / sqrt(fan in). Vectors of zeros, and ones of any shape,
    get random values of standard deviation 0.02 added. Other weights stay, such as a layer scale of 1e-6, and so do
    integers.
    """
    for parameter in model.parameters():
        if not parameter.is_floating_point() or not parameter.numel():
            continue
        if parameter.dim() > 1 and not parameter.any():
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        elif not parameter.any() or (parameter == 1).all():
            with torch.no_grad():
                parameter.add_(_DEVIATION * torch.randn_like(parameter))


def official_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Returns the model's weights with the official names of the classifier. Inverse of `checkpoint_filter_fn`."""
    back = tuple((ours, official) for official, ours in _NAMES)
    return {_renamed(name, back): value for name, value in model.state_dict().items()}


def _strip(weights: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    """Returns the weights whose names have a prefix, without the prefix; all weights if no name has it.

    This also drops other parts of a detector, such as its neck.
    """
    below = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    return below or dict(weights)


def _renamed(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for old, new in table:
        if old in name:
            return name.replace(old, new)
    return name


def _fill_head_and_norm(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Returns the weights with the model's own head and final norm if these are missing or the head does not fit."""
    own = {name: value for name, value in model.state_dict().items() if name.startswith(("norm.", "head."))}
    fitting = {}
    for name, value in weights.items():
        if name.startswith("head.") and (name not in own or own[name].shape != value.shape):
            shape = tuple(own[name].shape) if name in own else "none"
            _logger.warning(
                "skipping %s: it has shape %s in the checkpoint, but %s in the model", name, tuple(value.shape), shape
            )
        else:
            fitting[name] = value
    return own | fitting
