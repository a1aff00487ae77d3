"""Layers that stay in float in a network in INT8: found by their error, left out by both tools, and named."""

import json
from collections.abc import Sequence

import pytest
import torch
from models.test_quantization import EITHER, SMALL, build, images, needs_nncf, needs_onnxruntime
from torch import Tensor, nn
from torch.export import ExportedProgram

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
    return tuple(find_sensitive_layers(capture(form, batch, dynamic_batch=dynamic_batch), images(8, seed=3)))


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
    errors = measure_errors(capture(model, images(2, side=8)), images(4, side=8))
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


def weights_of(program: ExportedProgram) -> dict[str, Tensor]:
    """Returns the weights of all layers by their names, except those of the patch embedding."""
    names = list(measure_errors(program, images(2)))[1:]
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
