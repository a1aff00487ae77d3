"""Scores of networks that are not trained: seconds for each, from fresh weights and a few minibatches."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hilo_nas.proxy.training_free.dss import score_dss
    from hilo_nas.proxy.training_free.naswot import score_naswot
    from hilo_nas.proxy.training_free.plan import NAMES, hash_training_free
    from hilo_nas.proxy.training_free.run import run_training_free
    from hilo_nas.proxy.training_free.zico import score_zico

__all__ = ["NAMES", "hash_training_free", "run_training_free", "score_dss", "score_naswot", "score_zico"]

_HOMES = {
    "NAMES": "plan",
    "hash_training_free": "plan",
    "run_training_free": "run",
    "score_dss": "dss",
    "score_naswot": "naswot",
    "score_zico": "zico",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
