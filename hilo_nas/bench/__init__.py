"""Claims about speed that anyone can make again: of a machine, of layers, of backbones, of this and other code.

The names are resolved lazily, so that the load's process starts without what only the benches need.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = [
    "AttentionPlan",
    "BackbonesPlan",
    "OfficialPlan",
    "ReleasesPlan",
    "RulerPlan",
    "bench_attention",
    "bench_backbones",
    "bench_official",
    "bench_releases",
    "bench_ruler",
    "report_attention",
    "report_backbones",
    "report_official",
    "report_releases",
    "report_ruler",
]

_HOMES = {
    "AttentionPlan": "attention",
    "BackbonesPlan": "backbones",
    "OfficialPlan": "official",
    "ReleasesPlan": "releases",
    "RulerPlan": "ruler",
    "bench_attention": "attention",
    "bench_backbones": "backbones",
    "bench_official": "official",
    "bench_releases": "releases",
    "bench_ruler": "ruler",
    "report_attention": "reports",
    "report_backbones": "reports",
    "report_official": "official_report",
    "report_releases": "releases",
    "report_ruler": "reports",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
