"""Layers that stay in float in a network in INT8: found by their error, left out by both tools, and named."""

import json
from collections.abc import Sequence

import pytest
import torch
from models.test_quantization import EITHER, SMALL, build, images, needs_nncf, needs_onnxruntime
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.nn.utils.parametrizations import weight_norm

from hilo_nas.errors import ConversionError
from hilo_nas.models import LITv2
from hilo_nas.models.convert import convert, onnx_file, openvino_file
from hilo_nas.models.convert.capture import capture, copy_of, to_onnx, to_openvino
from hilo_nas.models.convert.checked import expected_output, output_share
from hilo_nas.models.convert.quantization import quantize_onnx, quantize_openvino
from hilo_nas.models.convert.runtime_form import build_form
from hilo_nas.models.convert.runtimes import RUNTIMES
from hilo_nas.models.convert.sensitive_layers import find_sensitive_layers, match_layers, measure_errors

FC1 = "layers.2.blocks.0.mlp.fc1"


@torch.no_grad()
def amplify(norm: nn.LayerNorm, layers: Sequence[nn.Linear], factor: float = 1000) -> None:
    """Makes a channel of a norm large. The layers that read it undo that, so the network computes the same."""
    for parameter in norm.parameters():
        parameter[0] *= factor
    for layer in layers:
        layer.weight[:, 0] /= factor


def build_with_outliers() -> LITv2:
    """Returns a network in which the layer `FC1` has an input channel 1,000 times as large as the others."""
    model = build(SMALL)
    block = model.layers[2].blocks[0]
    amplify(block.norm2, [block.mlp.fc1])
    return model


def find(model: nn.Module, batch: Tensor, runtime: str = "openvino", *, dynamic_batch: bool = False) -> tuple[str, ...]:
    form = build_form(copy_of(model), runtime, "int8", dynamic_batch=dynamic_batch)
    return tuple(find_sensitive_layers(capture(form, batch, dynamic_batch=dynamic_batch), images(8, seed=3), runtime))


@pytest.mark.parametrize("dynamic_batch", [False, True])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_layer_after_an_outlier_is_sensitive(runtime, dynamic_batch):
    assert find(build(SMALL), images(3), runtime, dynamic_batch=dynamic_batch) == ()
    assert find(build_with_outliers(), images(3), runtime, dynamic_batch=dynamic_batch) == (FC1,)


def test_sensitive_layers_have_the_names_of_the_network():
    model = build(SMALL)
    attention, norm = model.layers[3].blocks[0].attn, model.layers[3].blocks[0].norm1
    names = [name for name in ("h_qkv", "l_q", "l_kv") if hasattr(attention, name)]
    amplify(norm, [getattr(attention, name) for name in names])
    amplify(model.norm, [model.head.fc])
    found = find(model, images(1))
    assert sorted(found) == sorted([*(f"layers.3.blocks.0.attn.{name}" for name in names), "head.fc"])
    assert set(found) <= dict(model.named_modules()).keys()


def test_a_layer_with_a_constant_output_is_not_sensitive():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 3)).eval()
    nn.init.zeros_(model[1].weight)
    errors = measure_errors(capture(model, images(2, side=8)), images(4, side=8), "openvino")
    assert errors.keys() == {"0", "1", "2"}
    assert errors["1"] == errors["2"] == 0 < errors["0"] < 0.05


@pytest.mark.parametrize("runtime", EITHER)
def test_a_sensitive_layer_stays_in_float_where_the_network_is_calibrated(runtime):
    model, batch = build_with_outliers(), images(8)
    expected = expected_output(model, batch)
    timed = convert(model, batch, runtime, precision="int8", threads=1)
    assert timed.float_layers == ()
    scored = convert(model, batch, runtime, precision="int8", calibration=batch, threads=1)
    assert scored.float_layers == (FC1,)
    assert output_share(scored.read_output(), expected) < 0.5 * output_share(timed.read_output(), expected)


@needs_onnxruntime
def test_a_layer_in_float_reads_the_output_of_a_quantized_one_in_float():
    model, batch = build(SMALL), images(8)
    mlp = model.layers[2].blocks[0].mlp
    (depthwise,) = (module for module in mlp.dwconv.modules() if isinstance(module, nn.Conv2d))
    with torch.no_grad():
        mlp.fc1.weight[0] *= 1000
        mlp.fc1.bias[0] *= 1000
        depthwise.weight[0] /= 1000
    expected = expected_output(model, batch)
    timed = convert(model, batch, "onnxruntime", precision="int8", threads=1)
    scored = convert(model, batch, "onnxruntime", precision="int8", calibration=batch, threads=1)
    assert len(scored.float_layers) == 1
    assert "dwconv" in scored.float_layers[0]
    assert output_share(scored.read_output(), expected) < 0.5 * output_share(timed.read_output(), expected)


class Folded(nn.Module):
    """A batch norm that a runtime folds into a sensitive convolution. The factor of one of its channels is given."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.stem, self.conv, self.bn = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)
        with torch.no_grad():
            self.stem.weight[0] *= 3000
            self.conv.weight[:, 0] /= 3000
            self.bn.weight[2] = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bn(self.conv(self.stem(x))).relu().mean((2, 3)))


@pytest.mark.parametrize("factor", [0.0, 1e-42])
@pytest.mark.parametrize("runtime", EITHER)
def test_a_layer_with_a_dead_channel_stays_in_float(runtime, factor):
    torch.manual_seed(0)
    batch = images(4, side=8)
    found = convert(Folded(factor).eval(), batch, runtime, precision="int8", calibration=batch, threads=1)
    assert found.float_layers == ("conv",)
    assert found.hidden_layers == ()


class Product(nn.Module):
    """Product of tokens with a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8) / 3)

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(2).transpose(1, 2) @ self.weight).transpose(1, 2)


def make_sensitive(kind: str) -> tuple[nn.Module, Tensor]:
    """Returns a layer of a kind and its weights of each input channel."""
    if kind == "computed":
        layer = weight_norm(nn.Conv2d(8, 8, 3))
        return layer, layer.parametrizations.weight.original1.transpose(0, 1)
    if kind == "conv1d":
        layer = nn.Conv1d(8, 8, 3)
        return nn.Sequential(nn.Flatten(2), layer), layer.weight.transpose(0, 1)
    layer = nn.ConvTranspose2d(8, 8, 2) if kind == "transposed" else Product()
    return layer, layer.weight


@pytest.mark.parametrize("runtime", EITHER)
@pytest.mark.parametrize("kind", ["computed", "conv1d", "product", "transposed"])
def test_a_sensitive_layer_of_any_kind_stays_in_float(kind, runtime):
    torch.manual_seed(0)
    batch, stem = images(6, side=8), nn.Conv2d(3, 8, 3)
    layer, weights = make_sensitive(kind)
    with torch.no_grad():
        stem.weight[0] *= 3000
        weights[0] /= 3000
    model = nn.Sequential(stem, layer, nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    found = convert(model, batch, runtime, precision="int8", calibration=batch, threads=1)
    assert found.float_layers == ("1.1" if kind == "conv1d" else "1",)
    assert found.hidden_layers == ()
    assert output_share(found.read_output(), expected_output(model, batch)) < 0.1


def test_errors_are_those_of_the_quantization_of_the_runtime():
    """OpenVINO has half the resolution for inputs that are on both sides of 0, but mostly on one."""
    torch.manual_seed(0)
    program = capture(nn.Conv2d(3, 4, 3).eval(), images(8, side=8))
    skewed = images(8, side=8).abs()
    skewed[0, 0, 0, 0] = -1e-3
    errors = {runtime: measure_errors(program, skewed, runtime)["weight"] for runtime in RUNTIMES}
    assert errors["openvino"] > 1.3 * errors["onnxruntime"]


def test_layers_that_share_weights_have_the_largest_of_their_errors():
    torch.manual_seed(0)
    model, batch = nn.Sequential(nn.Conv2d(3, 3, 3), Shift(), nn.Conv2d(3, 3, 3)).eval(), images(4, side=8)
    own = measure_errors(capture(model, batch), batch, "openvino")
    assert own["2"] > 0.2 > 5 * own["0"]
    model[2].weight = model[0].weight
    (shared,) = measure_errors(capture(model, batch), batch, "openvino").values()
    assert shared > 0.2


class Shift(nn.Module):
    """Sum with a constant, which takes the range of the inputs of the next layer."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 100


class Spoilt(nn.Module):
    """A layer reads infinite inputs, although the output is finite."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = x.mean((2, 3))
        return self.head(torch.nan_to_num(self.layer(y * float("inf")) * 0, 0.0) + y)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_layer_with_infinite_inputs_is_named(runtime):
    batch = images(4, side=8)
    with pytest.raises(ConversionError, match=r"must be finite for INT8, but those of layer are not\. Use fp32\.$"):
        find_sensitive_layers(capture(Spoilt().eval(), batch), batch, runtime)


def weights_of(program: ExportedProgram) -> dict[str, Tensor]:
    """Returns the weights of all layers by their names, except those of the patch embedding."""
    names = list(measure_errors(program, images(2), "openvino"))[1:]
    return {name: program.state_dict[f"{name}.weight"] for name in names}


@pytest.mark.slow
@needs_nncf
def test_nncf_leaves_any_layer_in_float():
    program = capture(build_form(copy_of(build(SMALL)), "openvino", "int8"), images(2))
    layers = weights_of(program)
    network = to_openvino(program)
    network.reshape([2, 3, 64, 64])
    network, names = quantize_openvino(network, images(2), layers, corrects_bias=False)
    assert names == tuple(layers)
    assert sum(op.get_type_name() == "FakeQuantize" for op in network.get_ops()) == 1  # the patch embedding's input


@pytest.mark.slow
@needs_onnxruntime
def test_onnxruntime_leaves_any_layer_in_float():
    program = capture(build_form(copy_of(build(SMALL)), "onnxruntime", "int8"), images(2))
    layers = weights_of(program)
    network, names = quantize_onnx(to_onnx(program).model_proto, images(2), layers)
    assert names == tuple(layers)
    weights = {value.name for value in network.graph.initializer}
    nodes = [node for node in network.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert sum(node.input[1] in weights for node in nodes) == len(layers)


def test_weights_match_in_the_layouts_of_runtimes_and_with_a_folded_batch_norm():
    layer = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    kinds = {"same": layer, "transposed": layer.T, "scaled": layer * torch.arange(-3, 3).add(0.5)[:, None]}
    others = {"other": layer.flip(0), "noisy": layer + 0.01 * layer.flip(1), "smaller": layer[:3]}
    weights = {name: value.contiguous().numpy() for name, value in (kinds | others).items()}
    assert match_layers({"a": layer, "b": layer.flip(1)}, weights) == {"a": list(kinds)}


@pytest.mark.slow
@needs_nncf
def test_an_openvino_file_names_the_layers_that_stay_in_float(tmp_path):
    import openvino

    path, extra = tmp_path / "a.xml", {"shape": (3, 64, 64), "metadata": {}, "calibration": images(8)}
    written = openvino_file.write(build_with_outliers(), path, **extra)
    assert written.float_layers == (FC1,)
    network = openvino.Core().read_model(path)
    assert json.loads(network.get_rt_info(["hilo_nas", "float_layers"]).astype(str)) == [FC1]
    assert "verified" in openvino_file.verify(path)


@pytest.mark.slow
@needs_onnxruntime
def test_an_onnx_file_names_the_layers_that_stay_in_float(tmp_path):
    import onnx

    path, extra = tmp_path / "a.onnx", {"shape": (3, 64, 64), "metadata": {}, "calibration": images(8)}
    written = onnx_file.write(build_with_outliers(), path, **extra)
    assert written.float_layers == (FC1,)
    found = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(found["hilo_nas.float_layers"]) == [FC1]
    assert "verified" in onnx_file.verify(path)
