"""Static quantization of converted networks to INT8, by the tools of the runtimes: NNCF and onnxruntime.quantization.

Linear layers and convolutions get 8-bit weights and inputs, in ONNX Runtime the products of attention too. Norms,
softmax, GELU and residual connections stay in float, and so do layers that `sensitive_layers` finds. In ONNX Runtime,
the outputs of convolutions are rounded to 8 bits as well, except for layers in float.

The ranges of activations come from calibration images. Speed does not depend on them, so a timing uses random images.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import itertools
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hilo_nas.measurement.condition import INT8_VERSION
from hilo_nas.models.convert.libraries import import_library, refusals
from hilo_nas.models.convert.sensitive_layers import Weights, match_layers

__all__ = ["CALIBRATION_IMAGES", "name_quantization", "quantize_onnx", "quantize_openvino"]

CALIBRATION_IMAGES = 300
"""Maximum number of images from which the ranges of activations are read, the default of NNCF."""
_ONNX_LAYERS = ("Conv", "Gemm", "MatMul")
_OPENVINO_LAYERS = ("Convolution", "ConvolutionBackpropData", "DeformableConvolution", "GroupConvolution", "MatMul")
_FLOAT_TYPES = ["Add", "Concat", "Divide", "Gather", "MVN", "Multiply", "ReduceMean", "ScaledDotProductAttention"]
_FLOAT_TYPES += ["Squeeze", "Subtract"]
"""Operators that NNCF must not quantize in a network with layer norms (MVN).

By default, it also quantizes norms, residual connections, and the sampling positions of token merging. Without that,
the logits of a trained LITv2 of 32 px had 25 % less error in INT8, and it took 16 % less time (batch 100). LITv2-S with
these types in float and symmetric activations was 1.13 times as fast (quartiles 1.01 to 1.20; 224 px, batch 4). Seen on
one core of a busy Intel Xeon with AMX, with openvino 2026.4 and nncf 3.4. Networks without layer norms, such as
ResNets, add in INT8."""
_WAY_OUT = "Use another runtime, or fp32."
Batch = NDArray[np.float32]


def name_quantization(runtime: str) -> str:
    """Returns the version of the quantization for a runtime, a part of `Converted.form`: `quantization/2 nncf/3.4.0`.

    ONNX Runtime quantizes by itself, and its version is in the form already.
    """
    own = f"quantization/{INT8_VERSION}"
    return f"{own} nncf/{importlib.metadata.version('nncf')}" if runtime == "openvino" else own


def quantize_openvino(
    network: Any, images: Tensor, float_layers: Mapping[str, Tensor], *, corrects_bias: bool
) -> tuple[Any, tuple[str, ...]]:
    """Returns an OpenVINO network quantized to INT8 by NNCF, and the names of the layers that stay in float.

    Activations are quantized symmetrically. With asymmetric ones, the process crashes in OpenVINO 2026.4 if the batch
    axis is dynamic and a depthwise convolution follows a convolution, at some sizes. The error of a trained LITv2 of
    32 px is the same (1.8 and 1.7 % of the logits' standard deviation).

    Args:
        network: `openvino.Model` with one input, whose batch axis is fixed if the graph needs a fixed one.
        images: Calibration images, shape (N, C, H, W). They are passed in batches that fit the network's input.
        float_layers: Layers to keep in float, from `find_sensitive_layers`. Those that are not found are quantized.
        corrects_bias: True to correct the biases for the mean error of each layer. It takes longer and does not change
            the speed of the network.

    Raises:
        UsageError: NNCF is not installed.
        ConversionError: NNCF cannot quantize the network.
    """
    nncf = import_library("nncf", "precision int8 in openvino")
    axis = network.inputs[0].get_partial_shape()[0]
    batches = _batches(images, axis.get_length() if axis.is_static else 1)
    ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX  # do not depend on the batch size
    advanced = nncf.AdvancedQuantizationParameters(
        disable_bias_correction=not corrects_bias, activations_range_estimator_params=ranges
    )
    with refusals("nncf must be able to quantize the network", _WAY_OUT), _quiet("nncf"):
        found = match_layers(float_layers, _openvino_weights(network)) if float_layers else {}
        quantized = nncf.quantize(
            network,
            nncf.Dataset(batches),
            subset_size=len(batches),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            ignored_scope=nncf.IgnoredScope(names=list(itertools.chain(*found.values())), types=_float_types(network)),
            advanced_parameters=advanced,
        )
    return quantized, tuple(found)


def _float_types(network: Any) -> list[str]:
    """Returns the types of operators that stay in float: `_FLOAT_TYPES` for a network with layer norms, else none."""
    types = {op.get_type_name() for op in network.get_ops()}
    return [name for name in _FLOAT_TYPES if name in types] if "MVN" in types else []


def _openvino_weights(network: Any) -> dict[str, Weights]:
    """Returns the weights of the products and convolutions of a network, by the name of the operator."""
    layers = [op for op in network.get_ops() if op.get_type_name() in _OPENVINO_LAYERS]
    weights = {layer.get_friendly_name(): layer.input_value(1).get_node() for layer in layers}
    return {name: node.data for name, node in weights.items() if node.get_type_name() == "Constant"}


def _batches(images: Tensor, size: int) -> list[Batch]:
    """Returns the images in whole batches. Images are repeated to fill the last one."""
    count = -(-len(images) // size)
    repeated = images.repeat(-(-count * size // len(images)), 1, 1, 1)[: count * size]
    return [batch.numpy() for batch in torch.split(repeated.float().contiguous(), size)]


def quantize_onnx(network: Any, images: Tensor, float_layers: Mapping[str, Tensor]) -> tuple[Any, tuple[str, ...]]:
    """Returns an ONNX network quantized to INT8 by ONNX Runtime, and the names of the layers that stay in float.

    The weights have 8 bits per channel.

    Args:
        network: `onnx.ModelProto` in float32 with the input `image`.
        images: Calibration images, shape (N, C, H, W). They are passed in batches that fit the network's input.
        float_layers: Layers to keep in float, from `find_sensitive_layers`. Those that are not found are quantized.

    Raises:
        UsageError: ONNX Runtime or ONNX is not installed.
        ConversionError: ONNX Runtime cannot quantize the network.
    """
    import_library("onnxruntime", "precision int8 in onnxruntime")
    onnx = import_library("onnx", "precision int8 in onnxruntime")
    quantization = importlib.import_module("onnxruntime.quantization")
    shapes = importlib.import_module("onnxruntime.quantization.shape_inference")
    axis = network.graph.input[0].type.tensor_type.shape.dim[0]
    batches = _batches(images, axis.dim_value or 1)

    what = "onnxruntime must be able to quantize the network"
    with refusals(what, _WAY_OUT), _quiet(None), tempfile.TemporaryDirectory() as folder:
        given, prepared, quantized = (Path(folder) / f"{name}.onnx" for name in ("given", "prepared", "quantized"))
        onnx.save(network, given)
        shapes.quant_pre_process(str(given), str(prepared), skip_symbolic_shape=True)
        found = match_layers(float_layers, _onnx_weights(onnx, prepared)) if float_layers else {}
        quantization.quantize_static(
            str(prepared),
            str(quantized),
            _Reader(batches),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(_ONNX_LAYERS),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=(in_float := list(itertools.chain(*found.values()))),
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        )
        network = onnx.load(quantized)
        _keep_inputs(network.graph, in_float)
        return network, tuple(found)


def _keep_inputs(graph: Any, names: Sequence[str]) -> None:
    """Removes the rounding of the convolutions' outputs that some nodes read, also through operators in float.

    ONNX Runtime needs 8-bit outputs to run a convolution in INT8. Without any, LITv2-S had 0.4 times the speed.
    """
    producers = {name: node for node in graph.node for name in node.output}
    seen, left = set(), [node for node in graph.node if node.name in set(names)]
    while left:
        node = left.pop()
        for place, name in enumerate(node.input):
            source = producers.get(name)
            if source is None:
                continue
            if source.op_type == "DequantizeLinear":
                rounding = producers.get(source.input[0])
                if rounding is not None and rounding.op_type == "QuantizeLinear":
                    node.input[place] = rounding.input[0]
            elif source.op_type not in _ONNX_LAYERS and name not in seen:
                seen.add(name)
                left.append(source)
    for kind in ("DequantizeLinear", "QuantizeLinear"):
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        for node in [node for node in graph.node if node.op_type == kind and node.output[0] not in read]:
            graph.node.remove(node)


def _onnx_weights(onnx: Any, path: Path) -> dict[str, Weights]:
    """Returns the weights of the products and convolutions in a file, by the name of the node."""
    graph = onnx.load(path).graph
    values = {value.name: value for value in graph.initializer}
    kinds = (*_ONNX_LAYERS, "ConvTranspose")  # the last is never quantized, but its inputs are
    layers = [node for node in graph.node if node.op_type in kinds and node.input[1] in values]
    return {node.name: onnx.numpy_helper.to_array(values[node.input[1]]) for node in layers}


class _Reader:
    """Calibration images in the interface of `onnxruntime.quantization.CalibrationDataReader`."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._left = iter(batches)

    def get_next(self) -> dict[str, Batch] | None:
        """Returns the next batch by the name of the network's input; None at the end."""
        batch = next(self._left, None)
        return None if batch is None else {"image": batch}


@contextlib.contextmanager
def _quiet(logger: str | None) -> Iterator[None]:
    """Suppresses progress bars on standard output, warnings of the root logger, and those of another logger."""
    loggers = [logging.getLogger(name) for name in {None, logger}]
    levels = [one.level for one in loggers]
    try:
        for one in loggers:
            one.setLevel(logging.ERROR)
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
