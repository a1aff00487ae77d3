"""Official LITv2 weights in and out: one table of names, read both ways.

Source of the names: github ziplab/LITv2, `classification/models/` and `detection/mmdet/models/backbones/litv2.py`. The
official code merges tokens at the end of a stage, this package at the start of the next, as timm does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

__all__ = ["checkpoint_filter_fn", "fill_zero_weights", "official_state_dict"]

_logger = logging.getLogger(__name__)

_NAMES = (
    *((f"layers.{stage}.downsample.", f"layers.{stage + 1}.downsample.") for stage in range(3)),
    ("mlp.dwconv.dwconv.", "mlp.dwconv."),
    ("head.", "head.fc."),
)
"""Parts of parameter names that differ: (official, ours). A name holds at most one of them."""

_OFFICIAL_MARK = "mlp.dwconv.dwconv."
"""Every official LITv2, classifier or backbone, has this in its names; ours never does."""

_DENSE_OUTPUT_NORMS = ("norm0.", "norm1.", "norm2.")


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Returns weights under this package's names, fit for `model.load_state_dict(..., strict=True)`.

    Takes official checkpoints, raw or under `model` or `state_dict`, with or without the prefixes `module.` and
    `backbone.`, of the classifier or of the dense-prediction backbone. Weights that already have this package's names
    pass unchanged. Of a dense backbone, the norm of the last stage's output (`norm3`) becomes the final norm, the other
    output norms have no place here and are left out. Where the checkpoint has no head, no final norm, or a head of
    another width, the model's own stays.

    Args:
        state_dict: What `torch.load` gave.
        model: The LITv2 that is to be loaded.
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
    return _with_own_end(ours, model)


def fill_zero_weights(model: nn.Module) -> None:
    """Gives random values to weights that start at zero, as training would: their scale is 1 / sqrt(fan in).

    Sampling offsets at zero would make memory accesses more regular than in use.
    """
    for parameter in model.parameters():
        if parameter.dim() > 1 and not parameter.any():
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)


def official_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Returns the model's weights under the official classification names; the inverse of `checkpoint_filter_fn`."""
    back = tuple((ours, official) for official, ours in _NAMES)
    return {_renamed(name, back): value for name, value in model.state_dict().items()}


def _strip(weights: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    """Returns the weights below a prefix, without it, or all where none has it; a detector's neck falls away so."""
    below = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    return below or dict(weights)


def _renamed(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for old, new in table:
        if old in name:
            return name.replace(old, new)
    return name


def _with_own_end(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Returns the weights with the model's own head and final norm where theirs are missing or of another shape."""
    own = {name: value for name, value in model.state_dict().items() if name.startswith(("norm.", "head."))}
    fitting = {}
    for name, value in weights.items():
        if name.startswith("head.") and (name not in own or own[name].shape != value.shape):
            shape = tuple(own[name].shape) if name in own else "none"
            _logger.warning("%s of the checkpoint is %s, the model's is %s: left out", name, tuple(value.shape), shape)
        else:
            fitting[name] = value
    return own | fitting
