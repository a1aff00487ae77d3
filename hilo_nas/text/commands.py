"""Commands of `hilo-nas` as text for hints and error messages, quoted for a shell."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["FLAGS", "command", "setting_text", "setting_words"]

FLAGS: Mapping[str, str] = {
    "study.name": "--study",
    "search.trials": "--trials",
    "search.until_trials": "--until-trials",
    "search.seed": "--seed",
    "timing.device": "--device",
    "timing.batch_size": "--batch-size",
    "timing.img_size": "--img-size",
    "timing.precision": "--precision",
    "timing.runtime": "--runtime",
    "limits.min_images_per_s": "--min-images-per-s",
    "limits.max_latency_ms": "--max-latency-ms",
    "limits.max_memory_mib": "--max-memory-mib",
    "data.source": "--data",
    "proxy.name": "--proxy",
    "proxy.images": "--proxy-images",
    "proxy.img_size": "--proxy-img-size",
}
"""Flags of the search settings that have one. All other settings use `--set` or YAML."""


def command(*words: str | Path | int) -> str:
    """Returns a `hilo-nas` command with its arguments, quoted for a shell."""
    return shlex.join(["hilo-nas", *map(str, words)])


def setting_words(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns command line arguments for settings by name. A list of texts repeats its flag for each item."""
    words: list[str] = []
    for name, value in settings.items():
        for text in _texts(value):
            words += [FLAGS[name], text] if name in FLAGS else ["--set", f"{name}={text}"]
    return tuple(words)


def _texts(value: Any) -> list[str]:
    """Returns a value in the syntax of `--set`. A list of texts gives one text per item."""
    if isinstance(value, bool):
        return [str(value).lower()]
    if not isinstance(value, list | tuple):
        return [str(value)]
    return (
        list(value)
        if all(isinstance(item, str) for item in value)
        else [",".join(repr(item).removesuffix(".0") for item in value)]
    )


def setting_text(name: str, value: Any) -> str:
    """Returns the arguments for one setting as shell text."""
    return shlex.join(setting_words({name: value}))
