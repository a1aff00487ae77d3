"""Exports of a network, one file per trainer or runtime; every export carries where its figures come from."""

from hilo_nas.export.choose import Promise, choose_trial, promises_of
from hilo_nas.export.exporter import Exporter, ExportOptions, export
from hilo_nas.export.onnx import ONNX
from hilo_nas.export.source import ExportSource, load_source, source_of_trial
from hilo_nas.export.timm import TIMM

__all__ = [
    "EXPORTERS",
    "ExportOptions",
    "ExportSource",
    "Exporter",
    "Promise",
    "choose_trial",
    "export",
    "load_source",
    "promises_of",
    "source_of_trial",
]

EXPORTERS: dict[str, Exporter] = {exporter.name: exporter for exporter in (TIMM, ONNX)}
"""Formats by name. A new one is one file and one name here."""
