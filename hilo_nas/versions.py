"""Versions of the tool and its libraries, as a study stores them."""

from __future__ import annotations

import importlib.metadata
import platform

import hilo_nas

__all__ = ["versions"]

_LIBRARIES = ("torch", "torchvision", "timm", "optuna")


def versions() -> dict[str, str]:
    """Returns the versions of the tool and of what it stands on, as installed; loads none of it."""
    return {
        "hilo-nas": hilo_nas.__version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _LIBRARIES},
    }
