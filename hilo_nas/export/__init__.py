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
from hilo_nas.export.trial_choice import Promise, choose_trial, promises_of

__all__ = [
    "EXPORTERS",
    "ExportOptions",
    "Exporter",
    "NetworkSource",
    "Preprocessing",
    "Promise",
    "StudySource",
    "check_options",
    "choose_trial",
    "export",
    "find_exporter",
    "load_source",
    "promises_of",
    "register_exporter",
    "source_of_study",
    "source_of_trial",
]
