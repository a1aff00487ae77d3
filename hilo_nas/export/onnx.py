"""Export to an ONNX file."""

from __future__ import annotations

from hilo_nas.export.network_files import NetworkFileExporter
from hilo_nas.text.commands import command

__all__ = ["ONNX"]

ONNX = NetworkFileExporter(
    name="onnx",
    files=("model.onnx",),
    libraries=("onnx", "onnxscript", "onnxruntime"),
    module="hilo_nas.models.convert.onnx_file",
    suggest=lambda path, side: (
        "Time it on this machine: "
        + command("measure", f"onnx:{path}", "--runtime", "onnxruntime", "--batch-size", "1", "--img-size", str(side))
    ),
)
