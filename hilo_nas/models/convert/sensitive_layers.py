"""Layers of a network that change too much in INT8, found by their error on calibration images.

Every linear layer, convolution and product with a matrix of weights is computed twice on the same inputs: in float, and
with its inputs and weights rounded to 8 bits as the runtime does. The error is the root mean square of the difference,
relative to the standard deviation of the output over images and positions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torchvision.ops  # noqa: F401  # registers deform_conv2d
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.export import ExportedProgram

from hilo_nas.errors import ConversionError
from hilo_nas.models.convert.libraries import refusals

__all__ = ["MAX_ERROR", "find_sensitive_layers", "match_layers", "measure_errors"]

MAX_ERROR = 0.2
"""Error above which a layer stays in float.

The errors of a trained network of 32 px (44 layers) were 0.003 to 0.018, and no class of layers stood out. Those of
LITv2-S with random weights were below 0.1."""
_IMAGES, _PIXELS = 64, 2**20
"""Maximum number of images on which the errors are measured, and of their pixels: 64 of 32 px, and 20 of 224 px."""
_LAYERS = {
    torch.ops.aten.linear.default: (0, -1),
    torch.ops.aten.matmul.default: (1, -1),
    torch.ops.aten.conv1d.default: (0, 1),
    torch.ops.aten.conv1d.padding: (0, 1),
    torch.ops.aten.conv2d.default: (0, 1),
    torch.ops.aten.conv2d.padding: (0, 1),
    torch.ops.aten.conv_transpose1d.default: (1, 1),
    torch.ops.aten.conv_transpose2d.input: (1, 1),
    torch.ops.torchvision.deform_conv2d.default: (0, 1),
}
"""Operators whose first two arguments, inputs and weights, are quantized, and the axes of the output channel in weights
and output."""
_ANGLE = 1e-6
"""Tolerance for the cosine of the angle between weights that match."""
_CONSTANT = 1e-6
"""Variance of a constant output relative to its mean square, due to rounding."""
Weights = NDArray[np.float32]


def find_sensitive_layers(program: ExportedProgram, images: Tensor, runtime: str) -> dict[str, Tensor]:
    """Returns the weights of the layers whose error in INT8 exceeds `MAX_ERROR` by their names, in the network's order.

    A layer is named after the module that has its weights, such as `layers.2.blocks.0.mlp.fc1`. Layers that share their
    weights have one name, and the largest of their errors. Takes about as long as five passes of these images in torch.

    Args:
        program: Captured network in float32.
        images: Calibration images, shape (N, C, H, W).
        runtime: Runtime whose quantization is measured.

    Returns:
        Weights whose first axis is the output channel.

    Raises:
        ConversionError: The input of a layer is not finite.
    """
    probe = _measure(program, images, runtime)
    return {name: probe.weights[name] for name, error in probe.errors.items() if error > MAX_ERROR}


def match_layers(layers: Mapping[str, Tensor], weights: Mapping[str, Weights]) -> dict[str, list[str]]:
    """Returns the operators of a converted network that compute each layer, by the layer's name.

    Operators are found by their weights, because runtimes rename them. Weights match up to a factor per output channel,
    with which a runtime folds a batch norm into them.

    Args:
        layers: Weights of the layers. Their first axis is the output channel.
        weights: Weights of the converted network's operators, by the names of the operators.

    Returns:
        Names of operators. A layer that no operator matches is left out.
    """
    found = {}
    for name, layer in layers.items():
        operators = [operator for operator, own in weights.items() if _matches(layer.detach(), own)]
        if operators:
            found[name] = operators
    return found


def _matches(layer: Tensor, weights: Weights) -> bool:
    """Returns True if the rows of a runtime's weights, in their layout or transposed, are multiples of a layer's."""
    rows, own = layer.flatten(1).double(), torch.from_numpy(np.array(weights, np.float64))
    if own.numel() != rows.numel():
        return False
    layouts = [own.reshape(rows.shape)]
    if own.ndim > 1 and own.shape[1] == len(rows):  # products in ONNX, and transposed convolutions
        layouts.append(own.transpose(0, 1).reshape(rows.shape))
    return any(_are_parallel(rows, layout) for layout in layouts)


def _are_parallel(layer: Tensor, weights: Tensor) -> bool:
    """Returns True if the rows of a runtime's weights are multiples of a layer's.

    Rows that a factor made zero, or too small for float32, say nothing.
    """
    known = weights.abs().amax(1) > torch.finfo(torch.float32).tiny
    layer, weights = layer[known], weights[known]
    products, lengths = (layer * weights).sum(1).abs(), layer.norm(dim=1) * weights.norm(dim=1)
    return bool(known.any() and (lengths > 0).all() and (products >= (1 - _ANGLE) * lengths).all())


def measure_errors(program: ExportedProgram, images: Tensor, runtime: str) -> dict[str, float]:
    """Returns the error of each layer in INT8, by its name.

    It is 0 for an output that is the same everywhere, and infinite for one that overflows.
    """
    return _measure(program, images, runtime).errors


def _measure(program: ExportedProgram, images: Tensor, runtime: str) -> _Probe:
    most = min(_IMAGES, max(_PIXELS // (images.shape[-2] * images.shape[-1]), 2))
    size = _fixed_batch_size(program) or min(max(len(images), 2), most)  # torch may fix a batch of one image
    count = max(min(len(images), most) // size, 1) * size
    repeated = images.float().repeat(-(-count // len(images)), 1, 1, 1)[:count]
    probe = _Probe(program.module(), runtime)
    what = "torch must be able to measure the error of each layer in INT8"
    with torch.inference_mode(False), torch.no_grad(), refusals(what, "Use fp32."):
        for has_ranges in (False, True):
            probe.has_ranges = has_ranges
            for batch in torch.split(repeated, size):
                probe.run(batch)
    return probe


def _fixed_batch_size(program: ExportedProgram) -> int | None:
    """Returns the number of images per batch of a network; None if it accepts any."""
    (name,) = program.graph_signature.user_inputs
    size = next(node.meta["val"].shape[0] for node in program.graph.nodes if node.name == name)
    return size if isinstance(size, int) else None


class _Probe(fx.Interpreter):
    """Network that reads the ranges of its layers' inputs in a first pass, and their errors in a second one."""

    def __init__(self, network: fx.GraphModule, runtime: str) -> None:
        super().__init__(network)
        self.extra_traceback = False  # would be added to the messages of errors
        self.has_ranges = False
        """True in the second pass."""
        self.weights: dict[str, Tensor] = {}
        """Weights by the name of their layers. The first axis is the output channel."""
        self._is_symmetric = runtime == "openvino"
        self._names = self._name_layers(network.graph)
        self._ranges: dict[fx.Node, tuple[float, float]] = {}
        self._sums: dict[fx.Node, _Sums] = {}

    def _name_layers(self, graph: fx.Graph) -> dict[fx.Node, str]:
        """Returns the name of each operator whose weights do not depend on the images."""
        of_images: set[fx.Node] = set()
        found = {}
        for node in graph.nodes:
            if node.op == "placeholder" or not of_images.isdisjoint(node.all_input_nodes):
                of_images.add(node)
            weight = node.args[1] if node.op == "call_function" and node.target in _LAYERS else None
            if isinstance(weight, fx.Node) and weight not in of_images:
                found[node] = _name_of(node, weight)
        return found

    @property
    def errors(self) -> dict[str, float]:
        """Error of each layer, after both passes."""
        found: dict[str, float] = {}
        for node, sums in self._sums.items():
            name = self._names[node]
            found[name] = max(found.get(name, 0.0), sums.error)
        return found

    def run_node(self, n: fx.Node) -> Any:
        """Returns the output of a node in float."""
        output = super().run_node(n)
        if n not in self._names:
            return output
        (x, w, *others), options = self.fetch_args_kwargs_from_env(n)
        weight_axis, axis = _LAYERS[n.target]  # type: ignore[index]  # an operator, as checked for its name
        if w.ndim <= weight_axis:  # a product with a vector
            return output
        if self.has_ranges:
            assert callable(n.target)
            rounded = _quantize_weights(w.movedim(weight_axis, 0)).movedim(0, weight_axis)
            in_int8 = n.target(self._quantize(x, *self._ranges[n]), rounded, *others, **options)
            self._sums.setdefault(n, _Sums()).add(output.movedim(axis, -1), in_int8.movedim(axis, -1))
        else:
            self.weights[self._names[n]] = w.movedim(weight_axis, 0)
            self._ranges[n] = self._join_range(n, x)
        return output

    def _join_range(self, node: fx.Node, x: Tensor) -> tuple[float, float]:
        """Returns the range of an operator's inputs, with 0 and those of the batches before."""
        low, high = map(float, x.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ConversionError(
                f"the inputs of layers must be finite for INT8, but those of {self._names[node]} are not. Use fp32."
            )
        before = self._ranges.get(node, (0.0, 0.0))
        return min(before[0], low), max(before[1], high)

    def _quantize(self, x: Tensor, low: float, high: float) -> Tensor:
        """Returns activations rounded to 256 values from `low` (at most 0) to `high` (at least 0).

        Symmetric values are 0 and multiples of the same step on both sides if there are negative ones.
        """
        if self._is_symmetric and low < 0:
            return torch.fake_quantize_per_tensor_affine(x, max(-low, high) / 127, 0, -128, 127)
        scale = (high - low) / 255 or 1.0
        return torch.fake_quantize_per_tensor_affine(x, scale, round(-low / scale), 0, 255)


def _name_of(node: fx.Node, weight: fx.Node) -> str:
    """Returns the name of the module that has the weights of an operator, or that computes it."""
    if weight.op == "get_attr":
        return str(weight.target).removesuffix(".weight")
    modules = node.meta.get("nn_module_stack") or {}
    return [path for path, _ in modules.values()][-1] if modules else node.name


def _quantize_weights(w: Tensor) -> Tensor:
    """Returns weights rounded to 255 values per output channel, symmetric around 0. The first axis is the channel."""
    scale = w.detach().abs().flatten(1).amax(1).clamp_min(torch.finfo(torch.float32).tiny) / 127
    return torch.fake_quantize_per_channel_affine(w, scale, torch.zeros_like(scale, dtype=torch.int32), 0, -127, 127)


class _Sums:
    """Sums over images and positions of the output of a layer, per channel, and of its squared error."""

    def __init__(self) -> None:
        self._count, self._squared_error = 0, 0.0
        self._first: Tensor | float = 0.0
        self._second: Tensor | float = 0.0

    def add(self, in_float: Tensor, in_int8: Tensor) -> None:
        """Adds outputs of the shape (..., C)."""
        x, double = in_float.reshape(-1, in_float.shape[-1]), torch.float64
        self._count += len(x)
        self._first = self._first + x.sum(0, dtype=double)
        self._second = self._second + x.square().sum(0, dtype=double)
        self._squared_error += float((in_int8 - in_float).square().sum(dtype=double))

    @property
    def error(self) -> float:
        """Root mean square of the error, relative to the standard deviation of the output within its channels.

        Infinite if the output overflows.
        """
        total = torch.as_tensor(self._second)
        variation = float((total - self._first * self._first / self._count).sum())
        is_constant = variation <= _CONSTANT * float(total.sum())
        if not math.isfinite(variation):
            return math.inf
        return 0.0 if is_constant else math.sqrt(self._squared_error / variation)
