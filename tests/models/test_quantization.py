"""Networks in INT8: quantized where it counts, close to torch, calibrated by the images, and timed like any others."""

import importlib.util
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from hilo_nas.arch.config import ArchConfig
from hilo_nas.errors import ConversionError, UsageError
from hilo_nas.measurement import Condition
from hilo_nas.measurement.condition import INT8_VERSION
from hilo_nas.models import LITv2, build_model, randomize_constant_weights
from hilo_nas.models.convert import convert, openvino_file
from hilo_nas.models.convert.capture import capture, copy_of, to_onnx, to_openvino
from hilo_nas.models.convert.checked import expected_output, output_share
from hilo_nas.models.convert.file_check import FileCheck, draw_images
from hilo_nas.models.convert.quantization import quantize_onnx, quantize_openvino
from hilo_nas.models.convert.runtime_form import FORMS, build_form
from hilo_nas.space import list_shipped, load_space
from hilo_nas.timing.prepared_network import prepare


def needs(*libraries: str) -> pytest.MarkDecorator:
    missing = [library for library in libraries if importlib.util.find_spec(library) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


needs_nncf = needs("openvino", "nncf")
needs_onnxruntime = needs("onnx", "onnxruntime", "onnxscript")
EITHER = [pytest.param("openvino", marks=needs_nncf), pytest.param("onnxruntime", marks=needs_onnxruntime)]
SMALL = ArchConfig(
    embed_dims=(16, 16, 32, 32),
    depths=(1, 1, 1, 1),
    num_heads=(1, 1, 2, 2),
    attention=("none", "none", "hilo", "hilo"),
    alpha=(0.5,) * 4,
    patch_size=4,
)


def build(arch: ArchConfig) -> LITv2:
    torch.manual_seed(0)
    model = build_model(arch, num_classes=10).eval()
    randomize_constant_weights(model)
    return model


def images(count: int, side: int = 64, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("runtime", EITHER)
def test_a_quantized_network_is_close_to_torch_and_reads_each_new_batch(runtime):
    model, batch = build(SMALL), images(4)
    found = convert(model, batch, runtime, precision="int8", threads=1)
    assert output_share(found.read_output(), expected_output(model, batch)) < 0.2
    other = images(4, seed=2)
    found.image.copy_(other)
    found.call()
    assert output_share(found.read_output(), expected_output(model, other)) < 0.2
    assert f"int8 quantization/{INT8_VERSION}" in found.form
    assert ("nncf/" in found.form) == (runtime == "openvino")


@pytest.mark.slow
@pytest.mark.parametrize("runtime", EITHER)
def test_calibration_images_set_the_ranges(runtime):
    model, batch = build(SMALL), images(2)
    expected = expected_output(model, batch)
    fitting = convert(model, batch, runtime, precision="int8", calibration=images(8, seed=3), threads=1)
    narrow = 0.3 * images(8, seed=3)  # clips what is larger
    clipped = convert(model, batch, runtime, precision="int8", calibration=narrow, threads=1)
    assert output_share(fitting.read_output(), expected) < 0.5 * output_share(clipped.read_output(), expected)


@needs_nncf
def test_an_openvino_file_is_as_close_to_torch_as_the_network_that_is_scored(tmp_path):
    import openvino

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8 * 36, 5)).eval()
    batch = images(32, side=8) * torch.linspace(0.1, 3, 32).view(-1, 1, 1, 1)  # means of their ranges clip the last
    scored = convert(model, batch, "openvino", precision="int8", calibration=batch, threads=1).read_output()
    openvino_file.write(model, tmp_path / "a.xml", shape=(3, 8, 8), metadata={}, calibration=batch)
    network = openvino.Core().compile_model(tmp_path / "a.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    written = torch.from_numpy(network(batch.numpy())[0].copy())
    expected = expected_output(model, batch)
    assert output_share(written, expected) < 2 * output_share(scored, expected) < 0.1


@needs_nncf
def test_nncf_quantizes_all_linear_layers_and_convolutions_and_nothing_else():
    network = to_openvino(capture(build_form(copy_of(build(SMALL)), "openvino", "int8"), images(1)))
    network.reshape([1, 3, 64, 64])
    network, _ = quantize_openvino(network, images(1), {}, corrects_bias=False)
    layers = [op for op in network.get_ops() if op.get_type_name() in ("MatMul", "Convolution", "GroupConvolution")]
    assert len(layers) > 20
    for layer in layers:  # weights in INT8 are followed by their scale
        assert layer.input_value(1).get_node().get_type_name() == "Multiply", layer.get_friendly_name()
    quantized = [op for op in network.get_ops() if op.get_type_name() == "FakeQuantize"]
    assert {kind for op in quantized for kind in readers_of(op)} <= {"MatMul", "Convolution", "GroupConvolution"}


def readers_of(operator: Any) -> Iterator[str]:
    """Yields the types of the operators that read an output, after it may have been moved."""
    for target in operator.output(0).get_target_inputs():
        kind = target.get_node().get_type_name()
        yield from readers_of(target.get_node()) if kind in ("Reshape", "Transpose") else [kind]


@needs_onnxruntime
def test_onnxruntime_quantizes_all_linear_layers_and_convolutions():
    program = to_onnx(capture(build_form(copy_of(build(SMALL)), "onnxruntime", "int8"), images(1)))
    network, _ = quantize_onnx(program.model_proto, images(3), {})
    producers = {name: node.op_type for node in network.graph.node for name in node.output}
    layers = [node for node in network.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(layers) > 20
    for layer in layers:
        assert [producers.get(name) for name in layer.input[:2]] == ["DequantizeLinear"] * 2, layer.name


def test_torch_does_not_quantize():
    with pytest.raises(UsageError, match="int8 needs the runtime openvino or onnxruntime, but got torch"):
        Condition(precision="int8")


def draw(space: str, seed: int) -> tuple[LITv2, Tensor]:
    """Returns a random network of a shipped space, and images of an odd size for it."""
    chosen, generator = load_space(space), random.Random(seed)
    arch = chosen.decode(chosen.sample(generator))
    height, width = (arch.stride + generator.randrange(40) for _ in range(2))
    batch = torch.randn(generator.choice((1, 3)), 3, height, width, generator=torch.Generator().manual_seed(seed))
    return build(arch), batch


@pytest.mark.slow
@needs_nncf
def test_a_network_with_norms_and_sampling_positions_in_float_is_close_to_torch():
    model, batch = draw("litv2_cifar", 1)  # with them in INT8, the outputs differ by more than 30 %
    found = convert(model, batch, "openvino", precision="int8")
    assert output_share(found.read_output(), expected_output(model, batch)) < 0.1


@needs_nncf
def test_a_file_in_float_is_not_timed_as_int8(tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 2)).eval()
    openvino_file.write(model, tmp_path / "a.xml", shape=(3, 8, 8), metadata={})
    with pytest.raises(UsageError, match=r"which is in float, but got int8\. Use precision fp32"):
        openvino_file.load(tmp_path / "a.xml", batch_size=1, img_size=8, precision="int8")
    quantized = {"shape": (3, 8, 8), "metadata": {}, "calibration": images(4, side=8)}
    openvino_file.write(model, tmp_path / "b.xml", **quantized)
    with pytest.raises(UsageError, match=r"which is quantized to INT8, but got fp32\. Use precision int8"):
        openvino_file.load(tmp_path / "b.xml", batch_size=1, img_size=8)
    loaded = openvino_file.load(tmp_path / "b.xml", batch_size=1, img_size=8, precision="int8")
    assert "int8" in loaded.form


@needs_onnxruntime
def test_a_network_is_prepared_for_a_timing_in_inference_mode():
    condition = Condition(batch_size=2, img_size=64, precision="int8", runtime="onnxruntime", threads=1)
    with torch.inference_mode():
        prepared = prepare({"arch": SMALL.to_dict()}, condition, num_classes=10)
        prepared.call()
    assert "int8" in prepared.form


def has_own_form_in_float(arch: ArchConfig, runtime: str) -> bool:
    """Returns True if the form of a network in fp32 is not the one that is quantized (`FormChoice.max_conv_dims`)."""
    in_float, in_int8 = (FORMS[runtime].max_conv_dims[precision] for precision in ("fp32", "int8"))
    return any((dim <= in_float) != (dim <= in_int8) for dim in arch.embed_dims)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("runtime", EITHER)
@pytest.mark.parametrize("space", list_shipped())
def test_random_networks_of_the_shipped_spaces_run_at_odd_sizes(space, runtime, seed):
    model, batch = draw(space, seed)
    # A conversion to INT8 runs the network in float first, and compares its outputs with torch.
    for precision in ("int8", *["fp32"] * has_own_form_in_float(model.arch, runtime)):
        found = convert(model, batch, runtime, precision=precision)
        assert found.read_output().shape == (len(batch), 10)
        assert found.read_output().isfinite().all()


def test_a_quantized_file_may_differ_by_three_times_its_own_difference_and_must_be_finite():
    check = FileCheck(shape=(3, 2, 2), is_dynamic=False, output=((1.0, 0.0), (0.0, 1.0)), allowed_share=1e-4)
    outputs = {False: torch.tensor([[1.0, 0.1]]), True: torch.tensor([[0.1, 1.0]])}
    first = draw_images((3, 2, 2))[0]

    def run(images):
        return outputs[not (images[0] == first).all()]

    with pytest.raises(ConversionError, match="must differ from torch by at most"):
        check.compare(run, "a file", "a runtime")
    assert check.for_quantized(run, "a file", "a runtime").allowed_share == pytest.approx(0.3)
    for spoilt in (float("inf"), float("nan")):
        outputs[True] = torch.tensor([[spoilt, 1.0]])
        with pytest.raises(ConversionError):
            check.for_quantized(run, "a file", "a runtime")
