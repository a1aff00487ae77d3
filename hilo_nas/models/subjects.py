"""Networks built from plain data, which can be sent to worker processes: LITv2, timm models, layers, functions."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import timm
from torch import nn

from hilo_nas.arch.config import PRESETS, ArchConfig
from hilo_nas.errors import UsageError
from hilo_nas.events import Emit
from hilo_nas.models.litv2 import build_model

__all__ = ["build_subject", "check_timm_names", "form_of", "img_size_of", "input_shape_of"]

_VALID_SUBJECTS = f'Use {{"arch": {{...}}}}, {{"timm": NAME}}, "timm:NAME" or one of {", ".join(PRESETS)}.'


def build_subject(
    spec: str | Mapping[str, Any], num_classes: int, in_chans: int, img_size: int | None = None
) -> nn.Module:
    """Returns the network that a plain value describes, with random initial weights.

    Args:
        spec: One of

            * `{"arch": ArchConfig.to_dict()}` or the name of a preset: a LITv2.
            * `{"timm": NAME, "arguments": {...}}` or `"timm:NAME"`: a timm model; arguments are optional.
            * `{"layer": "module:Class", "arguments": {"dim": 384, ...}}`: a single layer without a head.
            * `{"function": "module:function", "arguments": {...}}`: the result of a function, which also gets
              `num_classes` and `in_chans`.

            An optional `"img_size"` sets the image size for timing and counting (see `img_size_of`). It is not passed
            to the network.
        num_classes: Number of classes.
        in_chans: Channels of the image.
        img_size: Side of the images in pixels. Only passed to timm models that are built for a fixed size.

    Raises:
        UsageError: The value does not describe a network, or timm does not know the name.
        ArchError: The architecture is invalid.
    """
    kind, value, arguments = _parsed(spec)
    if kind == "arch":
        return build_model(ArchConfig.from_dict(value), num_classes=num_classes, in_chans=in_chans)
    if kind in ("layer", "function"):
        module, _, name = value.partition(":")
        extra = {"num_classes": num_classes, "in_chans": in_chans} if kind == "function" else {}
        built: nn.Module = getattr(importlib.import_module(module), name)(**extra, **arguments)
        return built
    check_timm_names([value])
    config = timm.get_pretrained_cfg(value)
    if config is not None and config.fixed_input_size and img_size not in (None, config.input_size[-1]):
        arguments = {"img_size": img_size, **arguments}
    model: nn.Module = timm.create_model(
        value, pretrained=False, num_classes=num_classes, in_chans=in_chans, **arguments
    )
    return model


def check_timm_names(names: Sequence[str], *, emit: Emit | None = None) -> None:
    """Checks that timm has models with these names. Does not build them.

    Args:
        names: Model names, without the prefix `timm:`.
        emit: Unused. Every worker function has this argument.

    Raises:
        UsageError: A name is unknown. The message lists all unknown names and similar valid names.
    """
    faults = []
    for name in names:
        if not timm.is_model(name):
            near = difflib.get_close_matches(name, timm.list_models(), n=3) or ["a name from timm.list_models()"]
            faults.append(f"timm {timm.__version__} has no model {name!r}. Use {' or '.join(near)}.")
    if faults:
        raise UsageError("\n".join(faults))


def form_of(model: nn.Module) -> str:
    """Returns the name and version of a network's implementation: its attribute `form`, or the name of its class."""
    if isinstance(form := getattr(model, "form", None), str):
        return form
    kind = type(model)
    if kind.__module__.startswith("timm."):
        return f"timm/{timm.__version__} eager"
    if kind.__module__.startswith("hilo_nas."):
        return f"layer/1 {kind.__name__}"
    return f"{kind.__module__}.{kind.__name__} eager"


def img_size_of(spec: str | Mapping[str, Any], img_size: int) -> int:
    """Returns the image side for timing and counting a subject: its own "img_size" if it has one, else `img_size`."""
    return img_size if isinstance(spec, str) else int(spec.get("img_size", img_size))


def input_shape_of(spec: str | Mapping[str, Any], batch_size: int, img_size: int) -> tuple[int, int, int, int]:
    """Returns the shape of an input batch.

    A network gets images (B, 3, H, W), and a single layer gets a feature map (B, H, W, C).
    """
    kind, _, arguments = _parsed(spec)
    if kind == "layer":
        return batch_size, img_size, img_size, int(arguments["dim"])
    return batch_size, 3, img_size, img_size


def _parsed(spec: str | Mapping[str, Any]) -> tuple[str, Any, Mapping[str, Any]]:
    """Returns the kind of a subject, its value (fields or name) and its arguments: `("timm", "resnet18", {})`."""
    if isinstance(spec, str):
        if spec in PRESETS:
            return "arch", PRESETS[spec].to_dict(), {}
        if spec.startswith("timm:"):
            return "timm", spec.removeprefix("timm:"), {}
    else:
        arguments = spec.get("arguments", {})
        names = set(spec) - {"img_size"}
        if names == {"arch"} and isinstance(spec["arch"], Mapping):
            return "arch", spec["arch"], {}
        for kind in ("layer", "function", "timm"):
            if names <= {kind, "arguments"} and isinstance(spec.get(kind), str) and isinstance(arguments, Mapping):
                return kind, spec[kind], arguments
    raise UsageError(f"a subject must describe a network, but got {spec!r}. {_VALID_SUBJECTS}")
