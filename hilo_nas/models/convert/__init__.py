"""Conversion of networks to ONNX Runtime and OpenVINO, for timing and deployment.

`capture` converts a network to a graph, `runtimes` loads it in a runtime, and `checked` compares its output with torch
before it is timed. `onnx_file`, `openvino_file` and `torch_file` write files with the data of such a check. The
runtimes are optional dependencies (extras), imported on first use.
"""

from hilo_nas.models.convert.checked import convert, load_onnx
from hilo_nas.models.convert.openvino_file import load as load_openvino
from hilo_nas.models.convert.runtimes import RUNTIMES, Converted, check_runtime

__all__ = ["RUNTIMES", "Converted", "check_runtime", "convert", "load_onnx", "load_openvino"]
