"""Export to an OpenVINO file."""

from __future__ import annotations

from hilo_nas.export.network_files import NetworkFileExporter
from hilo_nas.text.commands import command

__all__ = ["OPENVINO"]

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
