"""Data sets of images: sources, splits into training and scored images, and a cache of decoded images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilo_nas.lazy import lazy_names

if TYPE_CHECKING:
    from hilo_nas.data.cache import CacheEntry, clear_caches, default_cache_dir, list_caches
    from hilo_nas.data.prepared_images import CachedData, prepare_data

__all__ = [
    "CacheEntry",
    "CachedData",
    "clear_caches",
    "default_cache_dir",
    "list_caches",
    "prepare_data",
]

_HOMES = {
    "CacheEntry": "cache",
    "CachedData": "prepared_images",
    "clear_caches": "cache",
    "default_cache_dir": "cache",
    "list_caches": "cache",
    "prepare_data": "prepared_images",
}

__getattr__ = lazy_names(__name__, _HOMES)
