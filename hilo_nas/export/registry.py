"""Registry of the formats of `hilo-nas export`."""

from __future__ import annotations

from typing import Any

from hilo_nas.errors import UsageError
from hilo_nas.export.exporter import Exporter
from hilo_nas.export.onnx import ONNX, ONNX_INT8
from hilo_nas.export.openvino import OPENVINO, OPENVINO_INT8
from hilo_nas.export.optuna import OPTUNA
from hilo_nas.export.timm import TIMM
from hilo_nas.export.torch_package import TORCH_PACKAGE

__all__ = ["EXPORTERS", "find_exporter", "register_exporter"]

EXPORTERS: dict[str, Exporter[Any]] = {}
"""Formats by name, in the order of the help text."""


def register_exporter(exporter: Exporter[Any]) -> None:
    """Registers a format.

    Raises:
        ValueError: The name is already registered.
    """
    if exporter.name in EXPORTERS:
        raise ValueError(f"an exporter's name must be new, but {exporter.name!r} is already registered")
    EXPORTERS[exporter.name] = exporter


def find_exporter(name: str) -> Exporter[Any]:
    """Returns the format with the given name.

    Raises:
        UsageError: There is no such format.
    """
    if name not in EXPORTERS:
        raise UsageError(f"format must be one of {', '.join(EXPORTERS)}, but got {name!r}")
    return EXPORTERS[name]


for _exporter in (TIMM, ONNX, ONNX_INT8, OPENVINO, OPENVINO_INT8, TORCH_PACKAGE, OPTUNA):
    register_exporter(_exporter)
