"""Export to an OpenVINO file, in float32 or quantized to INT8."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hilo_nas.export.network_files import NetworkFileExporter
from hilo_nas.text.commands import command

__all__ = ["OPENVINO", "OPENVINO_INT8"]


def _suggest(path: Path, img_size: int, *options: str) -> str:
    words = (f"openvino:{path}", "--device", "cpu", "--batch-size", "1", "--img-size", str(img_size), *options)
    return f"Time it on this machine: {command('measure', *words)}"


OPENVINO = NetworkFileExporter(
    name="openvino",
    files=("model.xml", "model.bin"),
    libraries=("openvino",),
    module="hilo_nas.models.convert.openvino_file",
    suggest=_suggest,
)
OPENVINO_INT8 = dataclasses.replace(OPENVINO, name="openvino-int8", libraries=("openvino", "nncf"), is_int8=True)
