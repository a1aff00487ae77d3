"""ONNX files for deployment, with a dynamic batch size and data for a check on the target machine.

A dynamic batch axis is slightly slower than a fixed one: for a small LITv2 at 64 px, 1 to 4 % with one image and 1 to
5 % with eight. These are medians of interleaved calls with onnxruntime 1.32 on one thread of a busy AMD EPYC; other
versions can differ. Height and width are fixed, because the sampling positions of token merging depend on them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hilo_nas.errors import UsageError
from hilo_nas.models.convert.capture import to_onnx
from hilo_nas.models.convert.file_check import CHECK, FLOAT_LAYERS, FileCheck, Images, WrittenFile, capture_for_file
from hilo_nas.models.convert.libraries import import_library, refusals
from hilo_nas.models.convert.quantization import quantize_onnx
from hilo_nas.models.convert.sensitive_layers import find_sensitive_layers
from hilo_nas.study.records import write_atomically

__all__ = ["verify", "write"]


def write(
    model: nn.Module,
    path: Path,
    *,
    shape: tuple[int, int, int],
    metadata: Mapping[str, str],
    calibration: Tensor | None = None,
) -> WrittenFile:
    """Writes a network to one ONNX file in float32 or INT8, after a comparison of ONNX Runtime with torch.

    The input is named `image`, the output `output`. The metadata contains the outputs of torch for `verify`. Sensitive
    layers (`sensitive_layers`) of a file in INT8 stay in float, and their names are in its metadata.

    Args:
        model: Network to export; not changed.
        path: File to write, in an existing folder.
        shape: Shape of an image, (C, H, W).
        metadata: Additional metadata for the file.
        calibration: Images from which the ranges of activations in INT8 are read, shape (N, C, H, W), preprocessed
            like those of the network's use. None writes float32.

    Returns:
        What the file accepts and contains.

    Raises:
        UsageError: The libraries of the exporter are not installed.
        ConversionError: The network cannot be converted, or the outputs differ from torch.
        StorageError: The file cannot be written.
    """
    precision = "fp32" if calibration is None else "int8"
    program, check = capture_for_file(model, shape, "onnxruntime", precision=precision)
    proto = to_onnx(program).model_proto
    float_layers: tuple[str, ...] = ()
    sensitive: dict[str, Tensor] = {}
    if calibration is not None:
        session, version = _open(_serialize(proto), "the network in float")
        check.compare(_runner(session), "the network in float", version)
        sensitive = find_sensitive_layers(program, calibration, "onnxruntime")
        proto, float_layers = quantize_onnx(proto, calibration, sensitive)
        metadata = {**metadata, FLOAT_LAYERS: json.dumps(float_layers)}
        session, version = _open(_serialize(proto), "the network")
        check = check.for_quantized(_runner(session), "the network", version)
    import_library("onnx", "writing ONNX").helper.set_model_props(proto, {**metadata, CHECK: check.to_text()})
    content = _serialize(proto)
    _verify(content, "the network")
    write_atomically(path, content)
    hidden = tuple(name for name in sensitive if name not in float_layers)
    return WrittenFile(is_dynamic=check.is_dynamic, float_layers=float_layers, hidden_layers=hidden)


def _serialize(proto: Any) -> bytes:
    with refusals("a network must fit into one ONNX file", "Use torch itself as the runtime."):
        content: bytes = proto.SerializeToString()
    return content


def verify(path: Path) -> str:
    """Checks that ONNX Runtime on this machine gives the outputs of torch that `write` stored in the file.

    Returns:
        Message with the largest difference.

    Raises:
        UsageError: ONNX Runtime is not installed, or the file is not from `write`.
        ConversionError: The outputs differ.
    """
    if not path.is_file():
        raise UsageError(f"an ONNX file must exist, but there is no file {path}")
    return _verify(path, str(path))


def _verify(source: bytes | Path, name: str) -> str:
    session, version = _open(source, name)
    found = session.get_modelmeta().custom_metadata_map.get(CHECK)
    return FileCheck.from_text(found, name).compare(_runner(session), name, version)


def _open(source: bytes | Path, name: str) -> tuple[Any, str]:
    """Returns the session of a network, and the name and version of the runtime."""
    runtime = import_library("onnxruntime", "checking an ONNX file")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, so do not log them too
    with refusals(f"onnxruntime must be able to run {name}", "Export it again."):
        content = source if isinstance(source, bytes) else str(source)
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session, f"onnxruntime {runtime.__version__}"


def _runner(session: Any) -> Callable[[Images], Tensor]:
    return lambda images: torch.from_numpy(session.run(None, {"image": images})[0])
