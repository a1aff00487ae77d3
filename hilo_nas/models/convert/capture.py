"""Export of networks as graphs, in the formats ONNX and OpenVINO.

Both formats start with `torch.export`. For ONNX, the graph-based exporter of torch writes the file, because the
TorchScript exporter is deprecated. OpenVINO converts the graph itself. A LITv2 is captured in the form of
`hilo_nas.models.convert.runtime_form`. The deformable convolution of token merging is a gather and a product in torch.
Graphs contain torchvision's `deform_conv2d` instead, except in the form of a LITv2 for OpenVINO with a fixed batch:

* ONNX: GridSample and a plain convolution. Every runtime supports these operators, so one file works everywhere. The
  ONNX operator DeformConv works in ONNX Runtime 1.32 but not in OpenVINO 2026.4, and it is not faster: LITv2-S at 224
  px takes 49 ms with either (457 and 452 ms for a batch of 8). A gather with weights is not faster either and needs
  four times the memory for the samples.
* OpenVINO: DeformableConvolution, or an embedding bag in the form of a LITv2. The positions of GridSample lose accuracy
  if the network is bfloat16: the error of token merging on a 56 x 56 map is 6 %, compared with 0.7 % for the other
  two.

Measured on one core of an AMD EPYC in float32 with torch 2.15, onnxruntime 1.32 and openvino 2026.4; other versions can
differ.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torchvision.ops import deform_conv2d

from hilo_nas.errors import InferenceFormError, UsageError
from hilo_nas.models.convert.libraries import import_library, refusals
from hilo_nas.models.dtm import DeformConv
from hilo_nas.models.inference import PreparedLITv2

__all__ = ["OPSET", "capture", "copy_of", "has_deform", "to_onnx", "to_openvino", "without_torchvision"]

OPSET = 20
"""Default ONNX operator set. 20 is the first with Gelu: LITv2-S is 8 % faster than with 18 in ONNX Runtime 1.32.

OpenVINO 2025.2 cannot read GridSample of operator set 20. Use 18 for files that it must read.
"""
_OPSETS = range(18, 24)
_OLDEST_TORCH = (2, 6)
"""Minimum torch version, from the release notes of the exporter. Tested with 2.15."""
_WAY_OUT = "Use another runtime, or torch itself."


def copy_of(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Returns a copy of the network in evaluation mode, on the CPU and in the given dtype.

    For a network prepared for inference, the copy is its training form, because other runtimes support its operators.
    """
    if isinstance(model, PreparedLITv2):
        return model.training_form().to(dtype).eval()
    # torch cannot capture weights created in inference mode, but it can capture copies created outside of it.
    with torch.inference_mode(False), torch.no_grad():
        return copy.deepcopy(model).to(device="cpu", dtype=dtype).eval()


def capture(model: nn.Module, example: Tensor, *, dynamic_batch: bool = False) -> ExportedProgram:
    """Returns the graph of a network.

    Args:
        model: Network from `copy_of`.
        example: Example images, shape (B, C, H, W). The graph is for this shape.
        dynamic_batch: True for a graph that accepts any batch size.

    Raises:
        UsageError: The version of torch is too old, or a part of the network is prepared for inference.
        ConversionError: torch cannot capture the network.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _OLDEST_TORCH:
        oldest = ".".join(map(str, _OLDEST_TORCH))
        raise UsageError(f"converting a network needs torch {oldest} or newer, but got {torch.__version__}")
    if any(isinstance(module, PreparedLITv2) for module in model.modules()):
        raise InferenceFormError(
            f"a network to convert must not contain networks prepared for inference, but got {type(model).__name__}. "
            "Use their training forms, network.training_form()."
        )
    what = f"torch {torch.__version__} must be able to capture {type(model).__name__}"
    with torch.inference_mode(False), torch.no_grad(), refusals(what, "Use torch itself."):
        dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
        image = example.detach().to(device="cpu", dtype=dtype, copy=True)
        shapes = None
        if dynamic_batch:
            shapes = ({0: Dim("batch")},)
            if len(image) == 1:  # torch treats an axis of length 1 as fixed
                image = image.repeat(2, 1, 1, 1)
        with _deformed_by_torchvision(model):
            program = torch.export.export(model, (image,), dynamic_shapes=shapes, strict=False)
        return _rewrite(program, {torch.ops.aten.copysign.Tensor: _copysign})


@contextlib.contextmanager
def _deformed_by_torchvision(model: nn.Module) -> Iterator[None]:
    """Replaces the deformable convolutions of a network with torchvision's operator inside the context."""
    convs = [module for module in model.modules() if isinstance(module, DeformConv)]
    for conv in convs:
        conv.forward = functools.partial(_deform, conv)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for conv in convs:
            del conv.forward


def _deform(conv: DeformConv, x_BCHW: Tensor) -> Tensor:
    y_BCHW: Tensor = deform_conv2d(x_BCHW, conv.conv_offset(x_BCHW), conv.weight, conv.bias, stride=(2, 2))
    return y_BCHW


def has_deform(program: ExportedProgram) -> bool:
    """Returns True if a captured network has a deformable convolution."""
    return _has(program, torch.ops.torchvision.deform_conv2d.default)


def _has(program: ExportedProgram, operator: Any) -> bool:
    return any(node.target is operator for node in program.graph.nodes)


def _rewrite(program: ExportedProgram, rules: dict[Any, Callable[..., Tensor]]) -> ExportedProgram:
    """Returns the graph with some operators replaced by decompositions; unchanged if it has none of them."""
    return program.run_decompositions(rules) if any(_has(program, operator) for operator in rules) else program


def to_onnx(program: ExportedProgram, opset: int = OPSET) -> Any:
    """Returns a captured network as a `torch.onnx.ONNXProgram`.

    Raises:
        UsageError: The libraries of the exporter are not installed, or the operator set is not supported.
        ConversionError: ONNX lacks an operator of the network.
    """
    if opset not in _OPSETS:
        raise UsageError(f"opset must be from {_OPSETS[0]} to {_OPSETS[-1]}, but got {opset}")
    for library in ("onnx", "onnxscript"):
        import_library(library, "writing ONNX")
    what = "ONNX must be able to express the network"
    with torch.inference_mode(False), torch.no_grad(), refusals(what, _WAY_OUT):
        program = without_torchvision(program)
        found = torch.onnx.export(
            program, dynamo=True, opset_version=opset, input_names=["image"], output_names=["output"], verbose=False
        )
    assert found is not None  # with `dynamo`
    _clear_metadata(found.model)
    return found


def without_torchvision(program: ExportedProgram) -> ExportedProgram:
    """Returns a captured network whose deformable convolutions are operators of torch itself."""
    return _rewrite(program, {torch.ops.torchvision.deform_conv2d.default: _deform_by_sampling})


def _clear_metadata(model: Any) -> None:
    """Removes the metadata of all nodes, because it contains stack traces with paths of this machine."""
    graphs = [model.graph, *model.functions.values()]
    nodes = [node for graph in graphs for node in graph.all_nodes()]
    values = [value for graph in graphs for value in (*graph.inputs, *graph.outputs)]
    values += [*model.graph.initializers.values(), *(value for node in nodes for value in node.outputs)]
    for part in (model, *graphs, *nodes, *values):
        part.metadata_props.clear()
        part.doc_string = None


def to_openvino(program: ExportedProgram) -> Any:
    """Returns a captured network as an `openvino.Model`.

    Raises:
        UsageError: OpenVINO is not installed.
        ConversionError: OpenVINO lacks an operator of the network.
    """
    openvino = import_library("openvino", "runtime openvino")
    with torch.inference_mode(False), refusals("OpenVINO must be able to express the network", _WAY_OUT):
        return openvino.convert_model(program)


def _copysign(x: Tensor, sign: Tensor) -> Tensor:
    """Returns `torch.copysign`, which neither format supports. Treats negative zero as positive."""
    return torch.where(sign < 0, -x.abs(), x.abs())


def _deform_by_sampling(
    x_BCHW: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Tensor:
    """Returns torchvision's `deform_conv2d`, computed by `grid_sample` and a plain convolution.

    The samples of all kernel positions form one large map. The convolution over it has a stride equal to its kernel
    size. Sampling positions are float32, because the error in half precision is 0.01 pixels or more.

    Raises:
        UsageError: The convolution is modulated or has several groups of offsets.
    """
    if use_mask or offset_groups != 1:
        raise UsageError("a deformable convolution must have one group of offsets and no modulation to become ONNX")
    H, W = x_BCHW.shape[-2:]
    kernel_h, kernel_w = weight.shape[-2:]
    out_h, out_w = offset.shape[-2:]
    taps = offset.float().reshape(-1, kernel_h, kernel_w, 2, out_h, out_w).permute(0, 4, 1, 5, 2, 3)
    row = torch.arange(out_h)[:, None] * stride_h - pad_h + torch.arange(kernel_h) * dilation_h
    column = torch.arange(out_w)[:, None] * stride_w - pad_w + torch.arange(kernel_w) * dilation_w
    # Convert pixels to the range [-1, 1] between the outer edges of the first and the last pixel.
    y = taps[..., 0] * (2 / H) + ((2 * row + 1) / H - 1)[:, :, None, None]
    x = taps[..., 1] * (2 / W) + ((2 * column + 1) / W - 1)
    grid = torch.stack((x, y), dim=-1).reshape(-1, out_h * kernel_h, out_w * kernel_w, 2)
    samples = F.grid_sample(x_BCHW.float(), grid, padding_mode="zeros", align_corners=False).to(x_BCHW.dtype)
    return F.conv2d(samples, weight, bias, stride=(kernel_h, kernel_w), groups=groups)
