"""OpenVINO files for deployment: a network (.xml) and its weights (.bin), with data for a check on the target machine.

The program that loads the file chooses the precision. By default, OpenVINO uses bfloat16 if the processor supports it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hilo_nas.errors import UsageError
from hilo_nas.models.convert.capture import to_openvino
from hilo_nas.models.convert.checked import check_file_precision
from hilo_nas.models.convert.file_check import CHECK, FLOAT_LAYERS, FileCheck, Images, WrittenFile, capture_for_file
from hilo_nas.models.convert.libraries import import_library, refusals
from hilo_nas.models.convert.quantization import quantize_openvino
from hilo_nas.models.convert.runtimes import Converted, check_runtime, open_openvino
from hilo_nas.models.convert.sensitive_layers import find_sensitive_layers

__all__ = ["load", "verify", "write"]

_GROUP = "hilo_nas"
"""Section of the file's run-time information (`rt_info`) that holds the metadata."""
_CHECKED = {"INFERENCE_PRECISION_HINT": "f32"}
"""Settings for the check. Operators that are not quantized run in float32."""


def write(
    model: nn.Module,
    path: Path,
    *,
    shape: tuple[int, int, int],
    metadata: Mapping[str, str],
    calibration: Tensor | None = None,
) -> WrittenFile:
    """Writes a network to an OpenVINO file (.xml) and a file of float32 or INT8 weights (.bin) in the same folder.

    Sensitive layers (`sensitive_layers`) of a file in INT8 stay in float, and their names are in its metadata.

    Args:
        model: Network to export; not changed.
        path: .xml file to write, in an existing folder.
        shape: Shape of an image, (C, H, W).
        metadata: Additional metadata for the file. A key starts with `hilo_nas.`.
        calibration: Images from which the ranges of activations in INT8 are read, shape (N, C, H, W), preprocessed
            like those of the network's use. None writes float32.

    Returns:
        What the file accepts and contains.

    Raises:
        UsageError: OpenVINO is not installed.
        ConversionError: The network cannot be converted.
    """
    openvino = import_library("openvino", "writing an OpenVINO file")
    precision = "fp32" if calibration is None else "int8"
    program, check = capture_for_file(model, shape, "openvino", precision=precision)
    network = to_openvino(program)
    float_layers: tuple[str, ...] = ()
    sensitive: dict[str, Tensor] = {}
    with refusals("OpenVINO must be able to write the network", "Use another format."):
        network.reshape([-1 if check.is_dynamic else 1, *shape])
        if calibration is not None:
            core = openvino.Core()
            in_float = core.compile_model(network, "CPU", _CHECKED)
            check.compare(_runner(in_float), "the network in float", _version(openvino))
            sensitive = find_sensitive_layers(program, calibration, "openvino")
            network, float_layers = quantize_openvino(network, calibration, sensitive, corrects_bias=True)
            metadata = {**metadata, FLOAT_LAYERS: json.dumps(float_layers)}
            in_int8 = core.compile_model(network, "CPU", _CHECKED)
            check = check.for_quantized(_runner(in_int8), "the network", _version(openvino))
        network.inputs[0].get_tensor().set_names({"image"})
        network.outputs[0].get_tensor().set_names({"output"})
        for name, text in {**metadata, CHECK: check.to_text()}.items():
            network.set_rt_info(text, [_GROUP, name.removeprefix(f"{_GROUP}.")])
        openvino.save_model(network, path, compress_to_fp16=False)
    hidden = tuple(name for name in sensitive if name not in float_layers)
    return WrittenFile(is_dynamic=check.is_dynamic, float_layers=float_layers, hidden_layers=hidden)


def verify(path: Path) -> str:
    """Checks that OpenVINO on this machine gives, in float32, the outputs of torch that are stored in the file.

    Returns:
        Message with the largest difference.

    Raises:
        UsageError: OpenVINO is not installed, or the file is not from `write`.
        ConversionError: The outputs differ.
    """
    openvino = import_library("openvino", "checking an OpenVINO file")
    if not path.is_file():
        raise UsageError(f"an OpenVINO file must exist, but there is no file {path}")
    with refusals(f"openvino must be able to run {path}", "Export it again."):
        core = openvino.Core()
        network = core.read_model(path)
        compiled = core.compile_model(network, "CPU", _CHECKED)
    key = [_GROUP, CHECK.removeprefix(f"{_GROUP}.")]
    found = network.get_rt_info(key).astype(str) if network.has_rt_info(key) else None
    return FileCheck.from_text(found, str(path)).compare(_runner(compiled), str(path), _version(openvino))


def _version(openvino: Any) -> str:
    return f"openvino {openvino.__version__.partition('-')[0]}"


def load(
    path: Path,
    *,
    batch_size: int,
    img_size: int,
    device: str = "cpu",
    threads: int | None = None,
    precision: str = "fp32",
) -> Converted:
    """Returns an OpenVINO file loaded with a random batch as its input. The output is not checked.

    Args:
        path: .xml file with one input: images of shape (B, 3, H, W) in float32. The .bin file is in the same folder.
        batch_size: Number of images per batch. Must match the file if its batch axis is fixed.
        img_size: Side of the images in pixels. Must match the file if its axes are fixed.
        device: Must be "cpu".
        threads: Number of threads. Defaults to the number of torch threads.
        precision: fp32, bf16 or fp16, or int8 for a quantized file.

    Raises:
        UsageError: OpenVINO is not installed, it does not support the precision, or the file's input does not fit.
        DeviceError: The device is not "cpu".
        ConversionError: OpenVINO cannot read or run the file.
        OutOfMemoryError: The network does not fit in memory.
    """
    check_runtime("openvino", device, precision)
    openvino = import_library("openvino", "runtime openvino")
    with refusals(f"openvino must be able to read {path}", f"Put {path.stem}.bin into the same folder."):
        network = openvino.Core().read_model(path)
    check_file_precision(path, precision, is_int8=any(op.get_type_name() == "FakeQuantize" for op in network.get_ops()))
    if len(network.inputs) != 1:
        raise UsageError(f"{path} must have one input, the images, but has {len(network.inputs)}")
    shape, given = [batch_size, 3, img_size, img_size], network.inputs[0].get_partial_shape()
    if not given.compatible(openvino.PartialShape(shape)):
        raise UsageError(
            f"{path}: the input has the shape {given}, but got batch_size {batch_size} and img_size {img_size}. "
            "Use the sizes of the file."
        )
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    threads = threads or torch.get_num_threads()
    opened = open_openvino(network, image, name=path.name, threads=threads, precision=precision)
    return dataclasses.replace(opened, form=f"{opened.form} file")


def _runner(compiled: Any) -> Any:
    def run(images: Images) -> Tensor:
        return torch.from_numpy(np.array(compiled(images)[0]))

    return run
