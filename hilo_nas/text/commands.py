"""Commands of `hilo-nas` as text to be typed: every hint and way out is built here, quoted for a shell."""

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
    "search.timeout_s": "--timeout",
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
"""Settings of a search that have a flag of their own; all others are given by `--set` or in YAML."""


def command(*words: str | Path | int) -> str:
    """Returns `hilo-nas` with words, each quoted where a shell would read it otherwise."""
    return shlex.join(["hilo-nas", *map(str, words)])


def setting_words(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the words of a command that give settings by name; those of a list repeat its name."""
    words: list[str] = []
    for name, value in settings.items():
        for text in _texts(value):
            words += [FLAGS[name], text] if name in FLAGS else ["--set", f"{name}={text}"]
    return tuple(words)


def _texts(value: Any) -> list[str]:
    """Returns a value as `--set` reads it, the texts of a list one by one."""
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
    """Returns a setting as one types it in a shell."""
    return shlex.join(setting_words({name: value}))
