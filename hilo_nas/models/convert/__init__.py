"""Conversion of networks to ONNX Runtime and OpenVINO, for timing and deployment.

`capture` converts a network to a graph, `runtimes` loads it in a runtime, and `checked` compares its output with torch
before it is timed. The runtimes are optional dependencies (extras), imported on first use.
"""

from hilo_nas.models.convert.capture import export_onnx, export_openvino
from hilo_nas.models.convert.checked import convert, load_onnx
from hilo_nas.models.convert.onnx_file import verify_onnx, write_onnx
from hilo_nas.models.convert.runtimes import RUNTIMES, Converted, check_runtime

__all__ = [
    "RUNTIMES",
    "Converted",
    "check_runtime",
    "convert",
    "export_onnx",
    "export_openvino",
    "load_onnx",
    "verify_onnx",
    "write_onnx",
]
