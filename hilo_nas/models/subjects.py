"""Networks from plain data, so that nothing but data crosses a process border: a LITv2, or a neighbour from timm."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

from hilo_nas.arch import PRESETS, ArchConfig
from hilo_nas.errors import UsageError
from hilo_nas.models.litv2 import LITv2, build_model

__all__ = ["build_subject", "form_of"]

_WAYS = f'Use {{"arch": {{...}}}}, {{"timm": NAME}}, "timm:NAME" or one of {", ".join(PRESETS)}.'


def build_subject(spec: str | Mapping[str, Any], num_classes: int, in_chans: int) -> nn.Module:
    """Builds the network that a plain value names, with fresh weights.

    Args:
        spec: `{"arch": ArchConfig.to_dict()}`, `{"timm": NAME}` or, for the same, `"timm:NAME"`; or a preset's name.
        num_classes: Classes of the head.
        in_chans: Channels of the image.

    Raises:
        UsageError: The value names no network, or timm does not know the name.
        ArchError: The architecture breaks a law.
    """
    kind, value = _parsed(spec)
    if kind == "arch":
        return build_model(ArchConfig.from_dict(value), num_classes=num_classes, in_chans=in_chans)
    if not timm.is_model(value):
        near = difflib.get_close_matches(value, timm.list_models(), n=3) or ["a name that timm.list_models() gives"]
        raise UsageError(f"timm {timm.__version__} has no model {value!r}. Use {' or '.join(near)}.")
    model: nn.Module = timm.create_model(value, pretrained=False, num_classes=num_classes, in_chans=in_chans)
    return model


def form_of(model: nn.Module, device: str | torch.device, precision: str) -> str:
    """Returns which implementation of a network runs; see `LITv2.form`."""
    if isinstance(model, LITv2):
        return model.form(device, precision)
    return f"timm/{timm.__version__} eager"


def _parsed(spec: str | Mapping[str, Any]) -> tuple[str, Any]:
    if isinstance(spec, str):
        if spec in PRESETS:
            return "arch", PRESETS[spec].to_dict()
        if spec.startswith("timm:"):
            return "timm", spec.removeprefix("timm:")
    elif set(spec) == {"arch"} and isinstance(spec["arch"], Mapping):
        return "arch", spec["arch"]
    elif set(spec) == {"timm"} and isinstance(spec["timm"], str):
        return "timm", spec["timm"]
    raise UsageError(f"a subject must name a network, but got {spec!r}. {_WAYS}")
