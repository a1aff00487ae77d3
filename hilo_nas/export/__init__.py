"""Export of networks (timm, ONNX, OpenVINO, torch) and studies (Optuna). Each format has its own module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilo_nas.lazy import lazy_names

if TYPE_CHECKING:
    from hilo_nas.export.export_options import ExportOptions
    from hilo_nas.export.exporter import Exporter, check_options, export
    from hilo_nas.export.registry import EXPORTERS, find_exporter, register_exporter
    from hilo_nas.export.source import (
        NetworkSource,
        Preprocessing,
        StudySource,
        load_source,
        source_of_study,
        source_of_trial,
    )

__all__ = [
    "EXPORTERS",
    "ExportOptions",
    "Exporter",
    "NetworkSource",
    "Preprocessing",
    "StudySource",
    "check_options",
    "export",
    "find_exporter",
    "load_source",
    "register_exporter",
    "source_of_study",
    "source_of_trial",
]

_HOMES = {
    **dict.fromkeys(("EXPORTERS", "find_exporter", "register_exporter"), "registry"),
    "ExportOptions": "export_options",
    **dict.fromkeys(("Exporter", "check_options", "export"), "exporter"),
    **dict.fromkeys(("NetworkSource", "Preprocessing", "StudySource"), "source"),
    **dict.fromkeys(("load_source", "source_of_study", "source_of_trial"), "source"),
}

__getattr__ = lazy_names(__name__, _HOMES)
