"""Export of networks (timm, ONNX) and studies (Optuna). Each format has its own module."""

from hilo_nas.export.exporter import Exporter, ExportOptions, check_options, export
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
