"""Export to an OpenVINO file, in float32 or quantized to INT8."""

from __future__ import annotations

import dataclasses

from hilo_nas.export.network_files import NetworkFileExporter
from hilo_nas.text.commands import command

__all__ = ["OPENVINO", "OPENVINO_INT8"]

OPENVINO = NetworkFileExporter(
    name="openvino",
    files=("model.xml", "model.bin"),
    libraries=("openvino",),
    module="hilo_nas.models.convert.openvino_file",
    suggest=lambda path, side: (
        "Time it on this machine: "
        + command("measure", f"openvino:{path}", "--device", "cpu", "--batch-size", "1", "--img-size", str(side))
    ),
)
OPENVINO_INT8 = dataclasses.replace(OPENVINO, name="openvino-int8", libraries=("openvino", "nncf"), is_int8=True)
