"""Networks from plain data, so that nothing but data crosses a process border: a LITv2, timm's, a single layer."""

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

_WAYS = f'Use {{"arch": {{...}}}}, {{"timm": NAME}}, "timm:NAME" or one of {", ".join(PRESETS)}.'


def build_subject(
    spec: str | Mapping[str, Any], num_classes: int, in_chans: int, img_size: int | None = None
) -> nn.Module:
    """Builds the network that a plain value names, with fresh weights.

    Args:
        spec: `{"arch": ArchConfig.to_dict()}`; `{"timm": NAME}`, with `"arguments": {...}` for the network's own, or
            `"timm:NAME"`; a preset's name; a single layer, `{"layer": "module:Class", "arguments": {"dim": 384,
            ...}}`, which has no head; or whatever a function builds, `{"function": "module:function", "arguments":
            {...}}`, which is told `num_classes` and `in_chans`, too. Its own `"img_size"` is that of timings and of
            counts (see `img_size_of`), and none of the network.
        num_classes: Classes of the head.
        in_chans: Channels of the image.
        img_size: Side of the images in pixels; those of timm's networks that are made for one size are built for it.

    Raises:
        UsageError: The value names no network, or timm does not know the name.
        ArchError: The architecture breaks a law.
    """
    kind, value, arguments = _parsed(spec)
    if kind == "arch":
        return build_model(ArchConfig.from_dict(value), num_classes=num_classes, in_chans=in_chans)
    if kind in ("layer", "function"):
        module, _, name = value.partition(":")
        ends = {"num_classes": num_classes, "in_chans": in_chans} if kind == "function" else {}
        built: nn.Module = getattr(importlib.import_module(module), name)(**ends, **arguments)
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
    """Checks that timm knows networks of these names; builds none.

    Args:
        names: The names, without `timm:`.
        emit: Unused; every worker function takes it.

    Raises:
        UsageError: It does not; tells each such name with those nearest to it.
    """
    faults = []
    for name in names:
        if not timm.is_model(name):
            near = difflib.get_close_matches(name, timm.list_models(), n=3) or ["a name that timm.list_models() gives"]
            faults.append(f"timm {timm.__version__} has no model {name!r}. Use {' or '.join(near)}.")
    if faults:
        raise UsageError("\n".join(faults))


def form_of(model: nn.Module) -> str:
    """Returns which implementation of a network runs: what it says of itself (`LITv2.form`), else whose code it is."""
    if isinstance(form := getattr(model, "form", None), str):
        return form
    kind = type(model)
    if kind.__module__.startswith("timm."):
        return f"timm/{timm.__version__} eager"
    if kind.__module__.startswith("hilo_nas."):
        return f"layer/1 {kind.__name__}"
    return f"{kind.__module__}.{kind.__name__} eager"


def img_size_of(spec: str | Mapping[str, Any], img_size: int) -> int:
    """Returns the side of the images that a subject is timed and counted at: its own, else `img_size`."""
    return img_size if isinstance(spec, str) else int(spec.get("img_size", img_size))


def input_shape_of(spec: str | Mapping[str, Any], batch_size: int, img_size: int) -> tuple[int, int, int, int]:
    """Returns the shape of a batch for a subject: images (B, 3, H, W), or for a layer a map (B, H, W, C)."""
    kind, _, arguments = _parsed(spec)
    if kind == "layer":
        return batch_size, img_size, img_size, int(arguments["dim"])
    return batch_size, 3, img_size, img_size


def _parsed(spec: str | Mapping[str, Any]) -> tuple[str, Any, Mapping[str, Any]]:
    """Returns the kind, what it is, and its arguments."""
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
    raise UsageError(f"a subject must name a network, but got {spec!r}. {_WAYS}")
