"""Networks leaving torch: captured as a graph, and written as ONNX or as OpenVINO's own format.

Both ways begin with `torch.export`. ONNX is then written by torch's exporter for such graphs (the older one, of
TorchScript, is deprecated); OpenVINO takes the graph as it is. The deformable convolution of the token merging, in
torch a gather and a product, is captured as torchvision's one operator, for the formats have better words for that:

* In ONNX it becomes a GridSample and a plain convolution, which every runtime has, so that one file serves all. ONNX's
  own DeformConv is known to ONNX Runtime 1.32 but not to OpenVINO 2026.4, and brings nothing: LITv2-S at 224 px takes
  49 ms with either (457 and 452 ms for a batch of 8). Gathering rows and weighting them is no faster, and holds four
  times the samples in memory.
* OpenVINO has a DeformableConvolution, which it finds in torch's graph: as fast as GridSample (41 ms), and its sampling
  points stay in float32 where the rest is bfloat16. There, GridSample's lose their place: the merging of a map of
  56 x 56 is off by 6 %, against 0.7 %.

Seen on one core of an AMD EPYC in float32, with torch 2.15, onnxruntime 1.32 and openvino 2026.4; it may change.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
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

__all__ = ["OPSET", "capture", "copy_of", "export_onnx", "export_openvino", "has_deform", "to_onnx", "to_openvino"]

OPSET = 20
"""The ONNX operator set written, the first with Gelu: LITv2-S is 8 % faster in ONNX Runtime 1.32 than with 18.

OpenVINO 2025.2 does not read the GridSample of 20; for a file that it must read, 18 serves.
"""
_OPSETS = range(18, 24)
_OLDEST_TORCH = (2, 6)
"""By torch's own notes on its exporter; seen with 2.15."""
_WAY_OUT = "Use another runtime, or torch itself."


def copy_of(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Returns a copy in evaluation mode, on the CPU and in a dtype; the model itself is left as it is.

    A network prepared for inference in torch is copied in its training form, whose operators other runtimes know.
    """
    if isinstance(model, PreparedLITv2):
        return model.training_form().to(dtype).eval()
    # Weights made in inference mode cannot be captured; their copies, made outside it, can.
    with torch.inference_mode(False), torch.no_grad():
        return copy.deepcopy(model).to(device="cpu", dtype=dtype).eval()


def capture(model: nn.Module, example: Tensor, *, dynamic_batch: bool = False) -> ExportedProgram:
    """Returns the graph of a network of `copy_of` for the shape of an example, shape (B, C, H, W).

    Raises:
        UsageError: torch is too old, or a part of the network was prepared for inference in torch.
        ConversionError: torch cannot capture the network.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _OLDEST_TORCH:
        oldest = ".".join(map(str, _OLDEST_TORCH))
        raise UsageError(f"converting a network needs torch {oldest} or newer, but this is {torch.__version__}")
    if any(isinstance(module, PreparedLITv2) for module in model.modules()):
        raise InferenceFormError(
            f"a {type(model).__name__} to convert must not hold networks prepared for inference in torch. Build it of "
            "their training forms, network.training_form()."
        )
    what = f"torch {torch.__version__} must be able to capture {type(model).__name__}"
    with torch.inference_mode(False), torch.no_grad(), refusals(what, "Use torch itself."):
        dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
        image = example.detach().to(device="cpu", dtype=dtype, copy=True)
        shapes = None
        if dynamic_batch:
            shapes = ({0: Dim("batch")},)
            if len(image) == 1:  # torch takes an axis of 1 for a fixed one
                image = image.repeat(2, 1, 1, 1)
        with _deformed_by_torchvision(model):
            program = torch.export.export(model, (image,), dynamic_shapes=shapes, strict=False)
        return _rewrite(program, {torch.ops.aten.copysign.Tensor: _copysign})


@contextlib.contextmanager
def _deformed_by_torchvision(model: nn.Module) -> Iterator[None]:
    """Lets the deformable convolutions of a network be one operator each, for a while."""
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
    """Returns whether a captured network has a deformable convolution."""
    return _has(program, torch.ops.torchvision.deform_conv2d.default)


def _has(program: ExportedProgram, operator: Any) -> bool:
    return any(node.target is operator for node in program.graph.nodes)


def _rewrite(program: ExportedProgram, rules: dict[Any, Callable[..., Tensor]]) -> ExportedProgram:
    """Returns a graph in which some operators are written by others; a graph without them is left as it is."""
    return program.run_decompositions(rules) if any(_has(program, operator) for operator in rules) else program


def to_onnx(program: ExportedProgram, opset: int = OPSET) -> Any:
    """Returns a captured network as torch's `ONNXProgram`.

    Raises:
        UsageError: The exporter's libraries are not installed, or the operator set is not one that is written.
        ConversionError: The network has an operator that ONNX does not.
    """
    if opset not in _OPSETS:
        raise UsageError(f"opset must be from {_OPSETS[0]} to {_OPSETS[-1]}, but got {opset}")
    for library in ("onnx", "onnxscript"):
        import_library(library, "writing ONNX")
    what = "ONNX must be able to express the network"
    with torch.inference_mode(False), torch.no_grad(), refusals(what, _WAY_OUT):
        program = _rewrite(program, {torch.ops.torchvision.deform_conv2d.default: _deform_by_sampling})
        found = torch.onnx.export(
            program, dynamo=True, opset_version=opset, input_names=["image"], output_names=["output"], verbose=False
        )
    assert found is not None  # with `dynamo`
    _forget_origin(found.model)
    return found


def _forget_origin(model: Any) -> None:
    """Removes what the exporter notes of each node's origin: stack traces with paths of this machine, among others."""
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


def export_onnx(
    model: nn.Module, example: Tensor, path: Path, *, opset: int = OPSET, dynamic_batch: bool = False
) -> None:
    """Writes a network as one self-contained ONNX file, in evaluation mode and float32, for images of one size.

    Its input is called `image`, its output `output`. The file is not checked against torch; `convert` does that. ONNX
    files end at 2 GB.

    Args:
        model: The network; left as it is.
        example: Images of the shape wanted, (B, C, H, W).
        path: The file; a folder must be there.
        opset: The ONNX operator set.
        dynamic_batch: Whether the file takes any number of images.

    Raises:
        UsageError: The exporter's libraries are not installed, or the operator set is not one that is written.
        ConversionError: torch cannot capture the network, or ONNX cannot express it.
    """
    program = to_onnx(capture(copy_of(model), example, dynamic_batch=dynamic_batch), opset)
    program.save(path, external_data=False)


def export_openvino(model: nn.Module, example: Tensor, path: Path) -> None:
    """Writes a network in OpenVINO's own format, as `export_onnx` does: `path`, an .xml, and a .bin beside it.

    Who loads it says in which precision it runs; OpenVINO takes bfloat16 by itself where the processor computes in it.

    Args:
        model: The network; left as it is.
        example: Images of the shape wanted, (B, C, H, W).
        path: The .xml file; a folder must be there.

    Raises:
        UsageError: OpenVINO is not installed.
        ConversionError: torch cannot capture the network, or OpenVINO cannot express it.
    """
    openvino = import_library("openvino", "runtime openvino")
    network = to_openvino(capture(copy_of(model), example))
    network.reshape(list(example.shape))
    openvino.save_model(network, path, compress_to_fp16=False)


def _copysign(x: Tensor, sign: Tensor) -> Tensor:
    """Returns `torch.copysign`, which neither format has; a negative zero counts as positive here."""
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
    """Returns torchvision's `deform_conv2d`, written as sampling and a plain convolution.

    The map is sampled once for every tap of every output, side by side, so that the convolution's stride is its kernel.
    Points are found in float32: in half precision they would be off by a hundredth of a pixel and more.

    Raises:
        UsageError: The convolution is modulated, or has several groups of offsets.
    """
    if use_mask or offset_groups != 1:
        raise UsageError("a deformable convolution must have one group of offsets and no modulation to become ONNX")
    H, W = x_BCHW.shape[-2:]
    kernel_h, kernel_w = weight.shape[-2:]
    out_h, out_w = offset.shape[-2:]
    taps = offset.float().reshape(-1, kernel_h, kernel_w, 2, out_h, out_w).permute(0, 4, 1, 5, 2, 3)
    row = torch.arange(out_h)[:, None] * stride_h - pad_h + torch.arange(kernel_h) * dilation_h
    column = torch.arange(out_w)[:, None] * stride_w - pad_w + torch.arange(kernel_w) * dilation_w
    # From pixels to [-1, 1], from the first pixel's outer edge to the last one's.
    y = taps[..., 0] * (2 / H) + ((2 * row + 1) / H - 1)[:, :, None, None]
    x = taps[..., 1] * (2 / W) + ((2 * column + 1) / W - 1)
    grid = torch.stack((x, y), dim=-1).reshape(-1, out_h * kernel_h, out_w * kernel_w, 2)
    samples = F.grid_sample(x_BCHW.float(), grid, padding_mode="zeros", align_corners=False).to(x_BCHW.dtype)
    return F.conv2d(samples, weight, bias, stride=(kernel_h, kernel_w), groups=groups)
