"""Layers of a network that change too much in INT8, found by their error on calibration images.

Every linear layer and convolution is computed twice on the same inputs: in float, and with its inputs and weights
rounded to 8 bits. The error is the root mean square of the difference, relative to the standard deviation of the output
over images and positions.
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

__all__ = ["MAX_ERROR", "find_sensitive_layers", "match_layers", "measure_errors"]

MAX_ERROR = 0.2
"""Error above which a layer stays in float.

The errors of a trained network of 32 px (44 layers) were 0.003 to 0.018, and no class of layers stood out. Those of
LITv2-S with random weights were below 0.1."""
_IMAGES, _PIXELS = 64, 2**20
"""Maximum number of images on which the errors are measured, and of their pixels: 64 of 32 px, and 20 of 224 px."""
_LAYERS = {
    torch.ops.aten.linear.default,
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv2d.padding,
    torch.ops.torchvision.deform_conv2d.default,
}
"""Operators whose first two arguments, inputs and weights, are quantized."""
_ANGLE = 1e-6
"""Tolerance for the cosine of the angle between weights that match."""
_CONSTANT = 1e-6
"""Variance of a constant output relative to its mean square, due to rounding."""
Weights = NDArray[np.float32]


def find_sensitive_layers(program: ExportedProgram, images: Tensor) -> dict[str, Tensor]:
    """Returns the weights of the layers whose error in INT8 exceeds `MAX_ERROR` by their names, in the network's order.

    A layer is named after the module that has its weights, such as `layers.2.blocks.0.mlp.fc1`. Takes about as long as
    five passes of these images in torch.

    Args:
        program: Captured network in float32.
        images: Calibration images, shape (N, C, H, W).
    """
    probe = _measure(program, images)
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
    if own.ndim == 2 and own.shape == rows.shape[::-1]:  # products in ONNX
        layouts.append(own.T)
    return any(_are_parallel(rows, layout) for layout in layouts)


def _are_parallel(first: Tensor, second: Tensor) -> bool:
    products, lengths = (first * second).sum(1).abs(), first.norm(dim=1) * second.norm(dim=1)
    return bool((products >= (1 - _ANGLE) * lengths).all() and ((first == 0) == (second == 0)).all())


def measure_errors(program: ExportedProgram, images: Tensor) -> dict[str, float]:
    """Returns the error of each layer in INT8, by its name. It is 0 for an output that is the same everywhere."""
    return _measure(program, images).errors


def _measure(program: ExportedProgram, images: Tensor) -> _Probe:
    most = min(_IMAGES, max(_PIXELS // (images.shape[-2] * images.shape[-1]), 2))
    size = _fixed_batch_size(program) or min(max(len(images), 2), most)  # torch may fix a batch of one image
    count = max(min(len(images), most) // size, 1) * size
    repeated = images.float().repeat(-(-count // len(images)), 1, 1, 1)[:count]
    probe = _Probe(program.module())
    with torch.inference_mode(False), torch.no_grad():
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

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.has_ranges = False
        """True in the second pass."""
        self.weights: dict[str, Tensor] = {}
        self._ranges: dict[str, tuple[float, float]] = {}
        self._sums: dict[str, _Sums] = {}

    @property
    def errors(self) -> dict[str, float]:
        """Error of each layer, after both passes."""
        return {name: sums.error for name, sums in self._sums.items()}

    def run_node(self, n: fx.Node) -> Any:
        """Returns the output of a node in float."""
        output = super().run_node(n)
        weight = n.args[1] if n.op == "call_function" and n.target in _LAYERS else None
        if isinstance(weight, fx.Node) and weight.op == "get_attr":
            name = str(weight.target).removesuffix(".weight")
            (x, w, *others), options = self.fetch_args_kwargs_from_env(n)
            if self.has_ranges:
                assert callable(n.target)
                in_int8 = n.target(_quantize(x, *self._ranges[name]), _quantize_weights(w), *others, **options)
                axis = output.ndim - 1 if n.target is torch.ops.aten.linear.default else 1
                self._sums.setdefault(name, _Sums()).add(output.movedim(axis, -1), in_int8.movedim(axis, -1))
            else:
                self.weights[name] = w
                low, high = self._ranges.get(name, (0.0, 0.0))
                self._ranges[name] = min(low, float(x.min())), max(high, float(x.max()))
        return output


def _quantize(x: Tensor, low: float, high: float) -> Tensor:
    """Returns activations rounded to 256 values from `low` (at most 0) to `high` (at least 0)."""
    scale = (high - low) / 255 or 1.0
    return torch.fake_quantize_per_tensor_affine(x, scale, round(-low / scale), 0, 255)


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
        """Root mean square of the error, relative to the standard deviation of the output within its channels."""
        total = torch.as_tensor(self._second)
        variation = float((total - self._first * self._first / self._count).sum())
        is_constant = variation <= _CONSTANT * float(total.sum())
        return 0.0 if is_constant else math.sqrt(self._squared_error / variation)
