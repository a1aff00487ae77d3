"""The formats of `hilo-nas export`, by name."""

from __future__ import annotations

from typing import Any

from hilo_nas.errors import UsageError
from hilo_nas.export.exporter import Exporter
from hilo_nas.export.onnx import ONNX
from hilo_nas.export.optuna import OPTUNA
from hilo_nas.export.timm import TIMM

__all__ = ["EXPORTERS", "find_exporter", "register_exporter"]

EXPORTERS: dict[str, Exporter[Any]] = {}
"""Formats by name, in the order in which help lists them."""


def register_exporter(exporter: Exporter[Any]) -> None:
    """Adds a format.

    Raises:
        ValueError: There is one of that name.
    """
    if exporter.name in EXPORTERS:
        raise ValueError(f"an exporter's name must be new, but there is a {exporter.name!r} already")
    EXPORTERS[exporter.name] = exporter


def find_exporter(name: str) -> Exporter[Any]:
    """Returns the format of a name.

    Raises:
        UsageError: There is none.
    """
    if name not in EXPORTERS:
        raise UsageError(f"format must be one of {', '.join(EXPORTERS)}, but got {name!r}")
    return EXPORTERS[name]


for _exporter in (TIMM, ONNX, OPTUNA):
    register_exporter(_exporter)
