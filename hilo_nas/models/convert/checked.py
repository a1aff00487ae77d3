"""Networks loaded in a runtime, with a check that their outputs match torch."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hilo_nas.errors import ConversionError, UsageError
from hilo_nas.models.convert.capture import OPSET, capture, copy_of, has_deform, to_onnx, to_openvino
from hilo_nas.models.convert.libraries import import_library, refusals
from hilo_nas.models.convert.quantization import name_quantization, quantize_onnx, quantize_openvino
from hilo_nas.models.convert.runtime_form import FORM_NAME, LITv2Form, build_form
from hilo_nas.models.convert.runtimes import Converted, check_runtime, open_onnxruntime, open_openvino
from hilo_nas.models.convert.sensitive_layers import find_sensitive_layers
from hilo_nas.models.precisions import DTYPES

__all__ = ["BOUNDS", "allowed_share", "check_file_precision", "convert", "expected_output", "load_onnx", "output_share"]

BOUNDS = {"fp32": (1e-4, 1e-2), "fp16": (1e-2, 0.3), "bf16": (0.1, 0.3), "int8": (sys.float_info.max,) * 2}
"""Tolerance per precision: (default, maximum) error relative to the largest float32 output of torch.

Random weights can amplify rounding errors by a factor of 1,000. If the error exceeds the default, the tolerance becomes
ten times the error of torch itself in the precision, up to the maximum. For fp32, the error of torch is the difference
between float32 and float64. Outputs in int8 must be finite. They are compared before the quantization,
because random weights can amplify its error as well, and the score of a trained network shows what it costs."""
_MARGIN = 10
"""Factor on the error of torch itself."""


def convert(
    model: nn.Module,
    example: Tensor,
    runtime: str,
    *,
    device: str = "cpu",
    threads: int | None = None,
    precision: str = "fp32",
    calibration: Tensor | None = None,
) -> Converted:
    """Returns a network loaded in a runtime, after a comparison of its output with torch.

    torch runs only the first and the last image of the batch, in float32 on the CPU.

    Args:
        model: Network that maps images to one tensor; not changed.
        example: Input batch, shape (B, C, H, W).
        runtime: One of `RUNTIMES`.
        device: "cpu", "cuda" or "cuda:N".
        threads: Number of threads of the runtime. Defaults to the number of torch threads.
        precision: fp32, bf16, fp16 or int8.
        calibration: Images for the quantization to int8, shape (N, C, H, W), preprocessed like those of the network's
            use. Sensitive layers (`sensitive_layers`) stay in float. Defaults to the batch, which suffices for a
            timing: all layers are quantized, because the errors of random weights say nothing about trained ones.

    Raises:
        UsageError: The runtime is unknown or not installed, or it does not support the precision.
        DeviceError: The runtime does not run on the device.
        ConversionError: The network cannot be converted, or the outputs differ from torch.
        OutOfMemoryError: The network does not fit in memory.
    """
    check_runtime(runtime, device, precision)
    name, threads = type(model).__name__, threads or torch.get_num_threads()
    image = example.detach().to(device="cpu", dtype=torch.float32)
    compared = [0, len(image) - 1]
    expected = expected_output(model, image[compared])
    dtype = DTYPES.get(precision, torch.float32) if runtime == "onnxruntime" else torch.float32
    network = build_form(copy_of(model, dtype), runtime, precision)
    program = capture(network, image)
    names: tuple[str, ...] = ()
    sensitive: dict[str, Tensor] = {}
    ranges = image if calibration is None else calibration

    def load(graph: Any, precision: str) -> Converted:
        if runtime == "openvino":
            return open_openvino(graph, image, name=name, threads=threads, precision=precision)
        with refusals(f"{name} must fit into one ONNX file", "Use torch itself as the runtime."):
            content = graph.SerializeToString()
        return open_onnxruntime(content, image.to(dtype), name=name, device=device, threads=threads, axes={})

    graph = to_openvino(program) if runtime == "openvino" else to_onnx(program).model_proto
    if precision == "int8":  # random weights can amplify the error of quantization, so compare before it
        in_float = load(graph, "fp32").read_output()[compared]
        _check_output(in_float, expected, f"{name} in {runtime} before quantization", "fp32", model, image[compared])
        if calibration is not None:
            sensitive = find_sensitive_layers(program, calibration, runtime)
        if runtime == "openvino":
            graph, names = quantize_openvino(graph, ranges, sensitive, corrects_bias=calibration is not None)
        else:
            graph, names = quantize_onnx(graph, ranges, sensitive)
    opened = load(graph, precision)
    if runtime == "openvino":
        form, merging = opened.form, "DeformableConvolution"
    else:
        form, merging = f"{opened.form} opset{OPSET} {precision}", "GridSample"
    if precision == "int8":
        form += f" {name_quantization(runtime)}"
    if isinstance(network, LITv2Form):
        form += f" {FORM_NAME}"
    if has_deform(program):
        form += f" dcn={merging}"
    _check_output(opened.read_output()[compared], expected, f"{name} in {form}", precision, model, image[compared])
    return dataclasses.replace(
        opened, form=form, float_layers=names, hidden_layers=tuple(name for name in sensitive if name not in names)
    )


def expected_output(model: nn.Module, image: Tensor) -> Tensor:
    """Returns the output of torch in float32.

    Raises:
        UsageError: The output is not one tensor.
        ConversionError: The output is not finite, or it is zero everywhere.
    """
    with torch.inference_mode():
        output = copy_of(model)(image)
    name = type(model).__name__
    if not isinstance(output, Tensor):
        raise UsageError(f"a network must return one tensor to be converted, but {name} returns {type(output)}")
    largest = float(output.abs().max())
    if not 0 < largest < math.inf:
        raise ConversionError(
            f"outputs must be finite and not all zero for the check, but the largest output of {name} in torch is "
            f"{largest:g}. Use other weights."
        )
    return output


def _check_output(seen: Tensor, expected: Tensor, name: str, precision: str, model: nn.Module, image: Tensor) -> None:
    """Raises a ConversionError if the difference of an output from torch exceeds the tolerance."""
    if seen.shape != expected.shape:
        raise ConversionError(
            f"the output must have the same shape as in torch, {tuple(expected.shape)}, but got {tuple(seen.shape)}"
        )
    share, bound = output_share(seen, expected), BOUNDS[precision][0]
    if share > bound:
        bound = allowed_share(model, image, expected, precision)
    if not share <= bound:  # this form rejects NaN
        raise ConversionError(
            f"the outputs of a converted network must differ from torch by at most {bound:.2g} of the largest output, "
            f"but {name} differs by {share:.2g}. Use torch itself as the runtime, or a higher precision."
        )


def allowed_share(model: nn.Module, image: Tensor, expected: Tensor, precision: str = "fp32") -> float:
    """Returns the tolerance for an output, relative to the largest float32 output of torch.

    Depends on `BOUNDS` and on the error of torch itself in the precision.
    """
    bound, most = BOUNDS[precision]
    if bound == most:
        return bound
    dtype = torch.float64 if precision == "fp32" else DTYPES[precision]
    with torch.inference_mode(), refusals(f"torch must be able to run the network in {dtype}", "Use fp32."):
        torch_error = output_share(copy_of(model, dtype)(image.to(dtype)), expected)
    return min(max(bound, _MARGIN * torch_error), most)


def output_share(seen: Tensor, expected: Tensor) -> float:
    """Returns the largest difference of two outputs relative to the largest expected output; NaN if either has NaN."""
    return float((seen.double() - expected.double()).abs().max() / expected.double().abs().max())


def load_onnx(
    path: Path,
    runtime: str,
    *,
    batch_size: int,
    img_size: int,
    device: str = "cpu",
    threads: int | None = None,
    precision: str = "fp32",
) -> Converted:
    """Returns an ONNX file loaded in a runtime, with a random batch as its input.

    The precision is that of the file's input. The output is not checked, because there is no network in torch to
    compare with. OpenVINO runs a float16 file in float32 if the processor does not support float16.

    Args:
        path: ONNX file with one input: images of shape (B, C, H, W) in float32 or float16.
        runtime: One of `RUNTIMES`.
        batch_size: Number of images per batch. Must match the file if its batch axis is fixed.
        img_size: Side of the images in pixels. Must match the file if its axes are fixed.
        device: "cpu", "cuda" or "cuda:N".
        threads: Number of threads of the runtime. Defaults to the number of torch threads.
        precision: int8 for a quantized file. Files in float do not read it.

    Raises:
        UsageError: The runtime is not installed, the file does not exist or is not ONNX, or its input does not fit; or
            only one of the file and `precision` is int8.
        DeviceError: The runtime does not run on the device.
        ConversionError: The runtime cannot run the file.
        OutOfMemoryError: The network does not fit in memory.
    """
    check_runtime(runtime, device, "fp32")
    model, given = _read_input(path, runtime)
    is_int8 = any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node)
    check_file_precision(path, precision, is_int8=is_int8)
    sizes = {"batch": batch_size, "channels": 3, "height": img_size, "width": img_size}
    shape, axes = _fit(given, sizes, path)
    dtype = _dtype(given, path)
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    threads = threads or torch.get_num_threads()
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if runtime == "onnxruntime":
        opened = open_onnxruntime(path, image, name=path.name, device=device, threads=threads, axes=axes)
        own = "int8" if is_int8 else "fp16" if dtype == torch.float16 else "fp32"
        return dataclasses.replace(opened, form=f"{opened.form} opset{opset} {own} file")
    openvino = import_library("openvino", "runtime openvino")
    own = "int8" if is_int8 else "fp32"
    core = openvino.Core()
    if dtype == torch.float16 and "FP16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        own = "fp16"
    with refusals(f"openvino must be able to read {path}", "Use another runtime."):
        network = core.read_model(path)
    opened = open_openvino(network, image, name=path.name, threads=threads, precision=own)
    return dataclasses.replace(opened, form=f"{opened.form} opset{opset} file")


def check_file_precision(path: Path, precision: str, *, is_int8: bool) -> None:
    """Raises a UsageError if only one of a file and the requested precision is int8."""
    if is_int8 != (precision == "int8"):
        own, way_out = ("quantized to INT8", "int8") if is_int8 else ("in float", "fp32")
        raise UsageError(
            f"the precision of {path} must be that of the file, which is {own}, but got {precision}. Use "
            f"precision {way_out}."
        )


def _read_input(path: Path, runtime: str) -> tuple[Any, Any]:
    """Returns the model of an ONNX file, without external weights, and its input."""
    onnx = import_library("onnx", f"runtime {runtime}")
    if not path.is_file():
        raise UsageError(f"an ONNX file must exist, but there is no file {path}")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        raise UsageError(f"{path} must be an ONNX file, but cannot be read as one ({type(error).__name__})") from error
    if not model.graph.node:
        raise UsageError(f"{path} must be an ONNX file, but contains no network")
    weights = {weight.name for weight in model.graph.initializer}  # old files list weights as inputs
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise UsageError(f"{path} must have one input, the images, but has {len(inputs)} ({names})")
    return model, inputs[0]


def _dtype(given: Any, path: Path) -> torch.dtype:
    """Returns the dtype of an input."""
    onnx = import_library("onnx", "an ONNX file")
    code = given.type.tensor_type.elem_type
    dtypes = {onnx.TensorProto.FLOAT: torch.float32, onnx.TensorProto.FLOAT16: torch.float16}
    if code not in dtypes:
        kind = onnx.TensorProto.DataType.Name(code).lower()
        raise UsageError(f"{path}: input {given.name} must be float (float32) or float16, but is {kind}")
    return dtypes[code]


def _fit(given: Any, sizes: dict[str, int], path: Path) -> tuple[list[int], dict[str, int]]:
    """Returns the batch shape for an input, and the sizes of the named dynamic axes.

    Raises:
        UsageError: The input does not have four axes, or an axis is fixed to another size.
    """
    axes = given.type.tensor_type.shape.dim
    if len(axes) != len(sizes):
        raise UsageError(f"{path}: input {given.name} must have the axes {', '.join(sizes)}, but has {len(axes)} axes")
    shape, named = [], {}
    for axis, (meaning, size) in zip(axes, sizes.items(), strict=True):
        if axis.dim_value and axis.dim_value != size and meaning != "channels":
            option = "batch_size" if meaning == "batch" else "img_size"
            raise UsageError(
                f"{path}: input {given.name} has a fixed {meaning} of {axis.dim_value}, but got {option} {size}. "
                f"Use {option} {axis.dim_value}, or a file with a dynamic {meaning}."
            )
        shape.append(axis.dim_value or size)
        if axis.dim_param:
            named[axis.dim_param] = size
    return shape, named
