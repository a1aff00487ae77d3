"""Export to an ONNX file, in float32 or quantized to INT8."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hilo_nas.export.network_files import NetworkFileExporter
from hilo_nas.text.commands import command

__all__ = ["ONNX", "ONNX_INT8"]


def _suggest(path: Path, img_size: int, *options: str) -> str:
    words = (f"onnx:{path}", "--runtime", "onnxruntime", "--batch-size", "1", "--img-size", str(img_size), *options)
    return f"Time it on this machine: {command('measure', *words)}"


ONNX = NetworkFileExporter(
    name="onnx",
    files=("model.onnx",),
    libraries=("onnx", "onnxscript", "onnxruntime"),
    module="hilo_nas.models.convert.onnx_file",
    suggest=_suggest,
)
ONNX_INT8 = dataclasses.replace(ONNX, name="onnx-int8", is_int8=True)
