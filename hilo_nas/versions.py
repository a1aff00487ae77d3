"""Versions of this package and its main dependencies, which studies store."""

from __future__ import annotations

import importlib.metadata
import platform

import hilo_nas

__all__ = ["versions"]

_LIBRARIES = ("torch", "torchvision", "timm", "optuna")


def versions() -> dict[str, str]:
    """Returns the installed versions of this package, Python and the main dependencies, without importing them."""
    return {
        "hilo-nas": hilo_nas.__version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _LIBRARIES},
    }
