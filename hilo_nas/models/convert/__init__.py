"""Networks in the runtimes that people ship with: converted, loaded, checked against torch, ready to be timed.

A network leaves torch as a graph (`capture`), a runtime opens it (`runtimes`), and nothing is timed before its output
was compared with torch's (`checked`). The runtimes are extras, imported when they are first asked for.
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
