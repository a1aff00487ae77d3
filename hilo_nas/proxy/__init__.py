"""Short trainings that rank networks: the images, the training and the score."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hilo_nas.proxy.cache import CacheEntry, clear_caches, default_cache_dir, list_caches
    from hilo_nas.proxy.data import CachedData, prepare_data
    from hilo_nas.proxy.train import run_training

__all__ = [
    "CacheEntry",
    "CachedData",
    "clear_caches",
    "default_cache_dir",
    "list_caches",
    "prepare_data",
    "run_training",
]

_HOMES = {
    "CacheEntry": "cache",
    "CachedData": "data",
    "clear_caches": "cache",
    "default_cache_dir": "cache",
    "list_caches": "cache",
    "prepare_data": "data",
    "run_training": "train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
