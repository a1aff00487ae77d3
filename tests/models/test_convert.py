"""Networks in ONNX Runtime and OpenVINO: the outputs match torch, or an error gives the reason."""

import copy
import gc
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.ops import DeformConv2d

from hilo_nas.arch.attentions import ATTENTION_KINDS
from hilo_nas.arch.config import ArchConfig
from hilo_nas.errors import ConversionError, DeviceError, InferenceFormError, OutOfMemoryError, UsageError
from hilo_nas.models import LITv2, build_model, prepare_for_inference
from hilo_nas.models.attentions.reduced import SRA
from hilo_nas.models.convert import (
    RUNTIMES,
    capture,
    check_runtime,
    checked,
    convert,
    load_onnx,
    onnx_file,
    openvino_file,
)
from hilo_nas.models.convert.capture import copy_of, to_onnx
from hilo_nas.models.convert.libraries import import_library, refusals
from hilo_nas.models.dtm import DeformConv


def needs(*libraries: str) -> pytest.MarkDecorator:
    missing = [library for library in libraries if importlib.util.find_spec(library) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


needs_onnxruntime = needs("onnx", "onnxruntime", "onnxscript")
needs_openvino = needs("onnx", "openvino")
EITHER = [pytest.param("onnxruntime", marks=needs_onnxruntime), pytest.param("openvino", marks=needs_openvino)]
FIELDS = {
    "embed_dims": [8, 16, 24, 32],
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 2, 4, 4],
    "attention": ["none", "none", "hilo", "none"],
}


def with_offsets(model: nn.Module, std: float) -> nn.Module:
    """Sets large random sampling offsets in a network."""
    for module in model.modules():
        if isinstance(module, DeformConv):
            nn.init.normal_(module.conv_offset.weight, std=std)
    return model


def build_litv2(**fields: object) -> LITv2:
    torch.manual_seed(0)
    return with_offsets(build_model(ArchConfig(**FIELDS | fields), num_classes=5), std=2.0)


def build_merging() -> nn.Module:
    """The smallest network with token merging; its output is a map, so that every pixel counts."""
    torch.manual_seed(0)
    return with_offsets(nn.Sequential(nn.Conv2d(3, 8, 3), DeformConv(8, 6), nn.Flatten()).eval(), std=0.5)


def eager(model: nn.Module, image: Tensor) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(model).float().eval()(image.float())


def assert_near(seen: Tensor, expected: Tensor, share: float = 1e-4) -> None:
    assert seen.shape == expected.shape
    assert (seen - expected).abs().max() <= share * expected.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("runtime", EITHER)
def test_a_litv2_gives_torchs_outputs_for_odd_images_and_far_offsets(runtime):
    model, image = build_litv2(), torch.randn(2, 3, 45, 70)
    offsets = []
    for stage in model.layers[1:]:
        stage.downsample.dconv.conv_offset.register_forward_hook(lambda module, args, out: offsets.append(out))
    expected = eager(model, image)
    assert any((offset.abs() > 2 * max(offset.shape[2:])).any() for offset in offsets)  # off the map altogether
    converted = convert(model, image, runtime, threads=1)
    assert_near(converted.read_output(), expected)
    how = {
        "onnxruntime": "CPUExecutionProvider opset20 fp32 form=tokens dcn=GridSample",
        "openvino": "CPU f32 form=tokens",
    }
    version = importlib.import_module(runtime).__version__.split("-")[0]
    assert converted.form.startswith(f"{runtime}/{version} {how[runtime]}")


@pytest.mark.slow
@pytest.mark.parametrize("runtime", EITHER)
def test_a_timm_network_gives_torchs_outputs(runtime):
    torch.manual_seed(0)
    with torch.inference_mode():  # as timing does
        model, image = timm.create_model("test_resnet.r160_in1k", num_classes=7), torch.randn(1, 3, 75, 64)
        converted = convert(model, image, runtime, threads=1)
    assert_near(converted.read_output(), eager(model, image))
    assert "dcn" not in converted.form


@pytest.mark.long
@pytest.mark.parametrize("runtime", EITHER)
@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_every_kind_of_attention_can_be_converted(kind, runtime):
    model, image = build_litv2(attention=[kind] * 4), torch.randn(2, 3, 70, 100)
    # Some kinds amplify rounding with fresh weights: float32 and float64 are up to 4e-5 apart.
    assert_near(convert(model, image, runtime, threads=1).read_output(), eager(model, image), share=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", EITHER)
def test_attention_over_as_many_tokens_as_heads_gives_torchs_outputs(runtime):
    torch.manual_seed(0)
    model, image = SRA(64, num_heads=4, window_size=1).eval(), torch.randn(2, 2, 2, 64)
    assert_near(convert(model, image, runtime, threads=1).read_output(), eager(model, image))


@pytest.mark.slow
@pytest.mark.parametrize("runtime", EITHER)
def test_the_callers_model_is_left_as_it_is(runtime):
    model = build_merging().half().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    converted = convert(model, torch.randn(1, 3, 16, 16), runtime, threads=1)
    after = model.state_dict()
    assert all(after[name].dtype == torch.float16 and torch.equal(after[name], before[name]) for name in before)
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert_near(converted.read_output(), eager(model, converted.image))


def test_merging_is_one_operator_in_a_captured_network_and_a_gather_in_torch():
    model, image = build_merging(), torch.randn(1, 3, 16, 16)
    assert capture.has_deform(capture.capture(model, image))
    assert not capture.has_deform(torch.export.export(model, (image,), strict=False))


@pytest.mark.slow
@needs_onnxruntime
def test_float16_is_checked_and_named():
    model, image = build_merging(), torch.randn(1, 3, 33, 33)
    converted = convert(model, image, "onnxruntime", threads=1, precision="fp16")
    assert "fp16" in converted.form
    assert converted.image.dtype == torch.float16
    assert_near(converted.read_output(), eager(model, image), share=1e-2)


@needs_openvino
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_openvino_lowers_the_precision_where_the_processor_does(precision):
    model, image = build_merging(), torch.randn(1, 3, 33, 33)
    core = import_library("openvino", "the test").Core()
    if precision.upper() in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        converted = convert(model, image, "openvino", threads=1, precision=precision)
        assert precision.replace("fp", "f") in converted.form
        assert_near(converted.read_output(), eager(model, image), share=1e-1)
    else:
        with pytest.raises(UsageError, match=f"openvino.*fp32.*cpu.*but got {precision}"):
            convert(model, image, "openvino", threads=1, precision=precision)


@pytest.mark.slow
def test_a_prepared_network_is_converted_in_its_training_form():
    model, image = build_litv2(), torch.randn(2, 3, 32, 32)
    prepared = prepare_for_inference(model, precision="bf16")
    assert type(capture.copy_of(prepared)) is LITv2
    program = capture.capture(capture.copy_of(prepared), image)
    assert_near(program.module()(image), eager(model, image))
    for captured in (prepared, nn.Sequential(prepared)):
        with pytest.raises(InferenceFormError, match=r"training_form"):
            capture.capture(captured, image)


class Deformable(nn.Module):
    """A deformable convolution of any shape."""

    def __init__(self, *, modulated: bool = False, groups: int = 1, **shape: object) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.offset = nn.Conv2d(4, 12, kernel_size=(3, 2), **shape)
        self.conv = DeformConv2d(4, 6, kernel_size=(3, 2), groups=groups, **shape)
        self.modulated = modulated

    def forward(self, x_BCHW: Tensor) -> Tensor:
        offset_BCHW = 5 * self.offset(x_BCHW)
        return self.conv(x_BCHW, offset_BCHW, offset_BCHW[:, :6] if self.modulated else None)


@pytest.mark.slow
@needs_onnxruntime
def test_other_deformable_convolutions_are_sampled_too():
    model = Deformable(stride=(1, 3), dilation=2, groups=2, padding=(0, 2))
    image = torch.randn(2, 4, 11, 14)
    assert_near(convert(model, image, "onnxruntime", threads=1).read_output(), eager(model, image))


@needs_onnxruntime
def test_a_modulated_convolution_is_refused():
    with pytest.raises(UsageError, match="no modulation"):
        convert(Deformable(modulated=True), torch.randn(2, 4, 11, 14), "onnxruntime")


class Dice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Unlike(nn.Module):
    """Gives other outputs once it is captured."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if torch.compiler.is_compiling() else x * 2


@needs_onnxruntime
def test_a_conversion_that_gives_other_outputs_is_refused():
    with pytest.raises(ConversionError, match=r"\b0\.0001 .*Unlike in onnxruntime/"):
        convert(Unlike(), torch.randn(1, 3, 16, 16), "onnxruntime")


@needs_onnxruntime
def test_a_random_network_cannot_be_checked():
    with pytest.raises(ConversionError, match=r"Dice in onnxruntime/.* 0\.\d"):
        convert(Dice(), torch.randn(1, 3, 16, 16), "onnxruntime")


@needs_onnxruntime
@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_zero_or_infinite_output_is_refused(value):
    model = nn.Conv2d(3, 4, 1)
    nn.init.zeros_(model.weight)
    nn.init.constant_(model.bias, value)
    with pytest.raises(ConversionError, match=r"Conv2d in torch is (0|nan|inf)\b"):
        convert(model, torch.randn(1, 3, 8, 8), "onnxruntime")


class Rounding(nn.Module):
    """Gives its input back, less what numbers near an offset cannot hold."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.offset) - self.offset


@pytest.mark.parametrize(("offset", "allowed"), [(0.0, 1e-4), (3e3, 1e-3), (1e5, 1e-2)])
def test_a_network_that_amplifies_rounding_may_be_further_off(offset, allowed):
    model, image = Rounding(offset), torch.linspace(-1, 1, 99)
    expected = model(image)
    checked._check_output(expected + 0.7 * allowed, expected, "it", "fp32", model, image)
    with pytest.raises(ConversionError, match=f"{1.5 * allowed:.2g}"):
        checked._check_output(expected + 1.5 * allowed, expected, "it", "fp32", model, image)


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Determinant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvalsh(x @ x.mT)


@pytest.mark.parametrize("runtime", EITHER)
@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (Pair(), UsageError, "must return one tensor to be converted, but Pair returns"),
        (Branching(), ConversionError, "must be able to capture Branching, but: .* Use torch itself"),
        (
            Determinant(),
            ConversionError,
            r"must be able to express the network, but: .*linalg.eig.*\. Use another runtime",
        ),
    ],
)
def test_a_network_that_cannot_be_converted_is_refused(model, error, message, runtime):
    with pytest.raises(error, match=message):
        convert(model, torch.randn(1, 3, 8, 8), runtime)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("tvm", "cpu", "fp32"), UsageError, "runtime must be one of onnxruntime, openvino, but got 'tvm'"),
        (("onnxruntime", "cpu", "bf16"), UsageError, "fp32 or fp16 .*cpu.*but got bf16"),
        (("onnxruntime", "cpu", "amp-bf16"), UsageError, "but got amp-bf16"),
        (("openvino", "cpu", "amp-fp16"), UsageError, "openvino.*fp32.*but got amp-fp16"),
        (("onnxruntime", "mps", "fp32"), DeviceError, "onnxruntime must be cpu or cuda, but got mps"),
        (("openvino", "cuda:0", "fp32"), DeviceError, "openvino must be cpu, but got cuda:0"),
    ],
)
def test_what_a_runtime_does_not_take_is_refused(arguments, error, message):
    if arguments[0] in RUNTIMES:
        pytest.importorskip("onnxruntime")
        if importlib.util.find_spec(arguments[0]) is None:
            pytest.skip(f"{arguments[0]} not installed")
    with pytest.raises(error, match=message):
        check_runtime(*arguments)


@pytest.mark.parametrize(
    ("library", "runtime", "extra"),
    [
        ("onnxruntime", "onnxruntime", "onnx"),
        ("onnxscript", "onnxruntime", "onnx"),
        ("openvino", "openvino", "openvino"),
    ],
)
def test_a_missing_extra_is_named(library, runtime, extra, monkeypatch):
    if library == "onnxscript":
        pytest.importorskip("onnxruntime")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError, match=rf"needs {library}, which is not .* Use pip install 'hilo-nas\[{extra}\]'"):
        convert(nn.Conv2d(3, 4, 1), torch.randn(1, 3, 8, 8), runtime)


def test_a_fault_inside_a_library_is_not_taken_for_a_missing_one(monkeypatch, tmp_path):
    (tmp_path / "onnxscript.py").write_text("import a_part_of_it_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxscript", raising=False)
    with pytest.raises(ModuleNotFoundError, match="a_part_of_it_that_is_not_there"):
        import_library("onnxscript", "the test")


CHILD = """
import sys, threading
import hilo_nas.models.convert as convert
heavy = {"onnx", "onnxruntime", "onnxscript", "openvino"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
if "openvino" in sys.argv:
    convert.check_runtime("openvino", "cpu", "fp32")
    assert "openvino" in sys.modules
    assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]
    assert threading.active_count() == 1
"""


@pytest.mark.slow
def test_runtimes_are_imported_when_asked_for_and_report_nothing():
    argument = ["openvino"] if importlib.util.find_spec("openvino") else []
    subprocess.run([sys.executable, "-c", CHILD, *argument], check=True)


def test_a_lack_of_memory_in_a_runtime_is_recognised():
    for text in (
        "bfc_arena.cc:360 AllocateRawInternal Failed to allocate memory for requested buffer of size 16000000000",
        "Check 'ptr' failed at cpu_memory.cpp:257:\nFailed to allocate 8589934588 bytes of memory",
        "std::bad_alloc",
    ):
        with pytest.raises(OutOfMemoryError), refusals("it must fit", "Use less."):
            raise Exception(text)


@needs_openvino
def test_openvino_gets_threads_streams_and_precision(monkeypatch):
    openvino = import_library("openvino", "the test")
    compiled = []

    class Core(openvino.Core):
        def compile_model(self, *arguments):
            compiled.append(super().compile_model(*arguments))
            return compiled[-1]

    monkeypatch.setattr(openvino, "Core", Core)
    torch_threads = torch.get_num_threads()
    for threads in (1, None):
        convert(nn.Conv2d(3, 4, 1), torch.randn(1, 3, 8, 8), "openvino", threads=threads)
    seen = [network.get_property("INFERENCE_NUM_THREADS") for network in compiled]
    assert seen == [1, torch_threads]
    assert compiled[0].get_property("NUM_STREAMS") == 1
    assert compiled[0].get_property("ENABLE_CPU_PINNING") is False
    assert compiled[0].get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


@pytest.fixture(scope="module")
def merging_file(tmp_path_factory) -> Path:
    """A file that takes any number of images of 32 x 32."""
    pytest.importorskip("onnxscript")
    path = tmp_path_factory.mktemp("onnx") / "merging.onnx"
    onnx_file.write(build_merging(), path, shape=(3, 32, 32), metadata={})
    return path


@pytest.mark.slow
@pytest.mark.parametrize("runtime", EITHER)
def test_an_exported_file_gives_torchs_outputs_for_any_batch(merging_file, runtime):
    assert os.listdir(merging_file.parent) == [merging_file.name]  # nothing lies beside it
    loaded = load_onnx(merging_file, runtime, batch_size=3, img_size=32, threads=1)
    assert loaded.image.shape == (3, 3, 32, 32)
    assert loaded.image.all()
    assert_near(loaded.read_output(), eager(build_merging(), loaded.image))
    assert loaded.form.endswith("opset20 fp32 file" if runtime == "onnxruntime" else "f32 opset20 file")


@pytest.mark.slow
@needs_onnxruntime
def test_an_older_operator_set_can_be_written(tmp_path):
    image = torch.randn(2, 3, 32, 32)
    program = capture.capture(copy_of(build_merging()), image)
    to_onnx(program, 18).save(tmp_path / "old.onnx", external_data=False)
    loaded = load_onnx(tmp_path / "old.onnx", "onnxruntime", batch_size=2, img_size=32, threads=1)
    assert_near(loaded.read_output(), eager(build_merging(), loaded.image))
    assert "opset18" in loaded.form
    with pytest.raises(UsageError, match="opset must be from 18 to 23, but got 11"):
        to_onnx(program, 11)


@pytest.fixture(scope="module")
def openvino_merging(tmp_path_factory) -> Path:
    """An OpenVINO file that takes any number of images of 32 x 32."""
    path = tmp_path_factory.mktemp("openvino") / "merging.xml"
    openvino_file.write(build_merging(), path, shape=(3, 32, 32), metadata={"hilo_nas.name": "merging"})
    return path


@needs_openvino
@pytest.mark.parametrize("batch_size", [1, 3])
def test_openvinos_own_format_gives_torchs_outputs(openvino_merging, batch_size):
    assert sorted(os.listdir(openvino_merging.parent)) == ["merging.bin", "merging.xml"]
    loaded = openvino_file.load(openvino_merging, batch_size=batch_size, img_size=32, threads=1)
    assert_near(loaded.read_output(), eager(build_merging(), loaded.image))
    assert loaded.form.endswith("f32 file")


@needs_openvino
def test_an_openvino_file_has_one_image_size(openvino_merging):
    with pytest.raises(UsageError, match=r"got batch_size 2 and img_size 64\. Use the sizes of the file"):
        openvino_file.load(openvino_merging, batch_size=2, img_size=64)


@needs_openvino
def test_a_file_that_is_not_openvinos_is_refused(tmp_path):
    (tmp_path / "a.xml").write_text("<net/>")
    with pytest.raises(ConversionError, match="openvino must be able to read"):
        openvino_file.load(tmp_path / "a.xml", batch_size=1, img_size=32)


def write_onnx(path: Path, operator: str = "Relu", *, inputs: int = 1, dtype: str = "FLOAT", shape=("n", 3, 16, 16)):
    onnx = pytest.importorskip("onnx")
    kind = getattr(onnx.TensorProto, dtype)
    values = [onnx.helper.make_tensor_value_info(f"image{i}", kind, shape) for i in range(inputs)]
    output = onnx.helper.make_tensor_value_info("output", kind, shape)
    node = onnx.helper.make_node(operator, [value.name for value in values], ["output"])
    graph = onnx.helper.make_graph([node], "graph", values, [output])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)


@pytest.mark.parametrize("runtime", EITHER)
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"operator": "Add", "inputs": 2}, r"must have one input, the images, but has 2 \(image0, image1\)"),
        ({"dtype": "INT64"}, r"input image0 must be float \(float32\) or float16, but is int64"),
        ({"shape": ("n", 16)}, "must have the axes batch, channels, height, width, but has 2 axes"),
        ({"shape": (1, 3, 16, 16)}, "has a fixed batch of 1, but got batch_size 2. Use batch_size 1, or a file"),
        ({"shape": ("n", 3, 16, 20)}, "has a fixed width of 20, but got img_size 16. Use img_size 20"),
    ],
)
def test_a_file_whose_input_does_not_fit_is_refused(fields, message, runtime, tmp_path):
    write_onnx(tmp_path / "a.onnx", **fields)
    with pytest.raises(UsageError, match=message):
        load_onnx(tmp_path / "a.onnx", runtime, batch_size=2, img_size=16)


@pytest.mark.parametrize("runtime", EITHER)
@pytest.mark.parametrize("content", [None, b"", b"not a network at all"])
def test_a_file_that_is_no_onnx_is_refused(content, runtime, tmp_path):
    path = tmp_path / "a.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.onnx"):
        load_onnx(path, runtime, batch_size=2, img_size=16)


@pytest.mark.parametrize("runtime", EITHER)
def test_an_operator_that_a_runtime_lacks_is_named(runtime, tmp_path):
    write_onnx(tmp_path / "a.onnx", "Levitate")
    with pytest.raises(ConversionError, match=r"a\.onnx, but: .*Levitate.* Use another runtime"):
        load_onnx(tmp_path / "a.onnx", runtime, batch_size=2, img_size=16)


@pytest.mark.parametrize("runtime", EITHER)
def test_a_file_may_leave_all_axes_open_and_be_in_half_precision(runtime, tmp_path):
    write_onnx(tmp_path / "a.onnx", dtype="FLOAT16", shape=("n", None, "side", "side"))
    loaded = load_onnx(tmp_path / "a.onnx", runtime, batch_size=2, img_size=16, threads=1)
    assert loaded.image.dtype == torch.float16
    assert torch.equal(loaded.read_output(), loaded.image.float().relu())


@needs_onnxruntime
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts the threads that Linux shows")
@pytest.mark.parametrize("threads", [1, 3])
def test_onnx_runtime_starts_as_many_threads_as_asked(threads, tmp_path):
    write_onnx(tmp_path / "a.onnx")
    before = len(os.listdir("/proc/self/task"))
    loaded = load_onnx(tmp_path / "a.onnx", "onnxruntime", batch_size=2, img_size=16, threads=threads)
    assert len(os.listdir("/proc/self/task")) - before == threads - 1
    loaded.call()


@pytest.mark.parametrize("runtime", EITHER)
def test_every_call_runs_the_same_batch(runtime, tmp_path):
    write_onnx(tmp_path / "a.onnx", shape=("n", 3, 64, 64))
    loaded = load_onnx(tmp_path / "a.onnx", runtime, batch_size=2, img_size=64, threads=1)
    expected, call, read_output = loaded.read_output(), loaded.call, loaded.read_output
    del loaded  # the call alone must keep alive what the runtime reads
    gc.collect()
    garbage = [torch.full((2, 3, 64, 64), 7.0) for _ in range(20)]
    call()
    assert torch.equal(read_output(), expected)
    assert len(garbage) == 20


@needs_onnxruntime
def test_a_gpu_that_onnx_runtime_lacks_is_never_replaced_by_the_cpu(monkeypatch, tmp_path):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(
        DeviceError, match=r"needs its CUDAExecutionProvider for cuda:1, but .* has CPUExecutionProvider"
    ):
        check_runtime("onnxruntime", "cuda:1", "fp32")

    asked = []

    def session(model, options, providers):
        """What the library does where the provider is there, but not the CUDA libraries that it needs."""
        asked.extend(providers)
        return real(model, options, providers=["CPUExecutionProvider"])

    write_onnx(tmp_path / "a.onnx")
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(DeviceError, match=r"CUDAExecutionProvider on cuda:1, .*CPUExecutionProvider"):
        load_onnx(tmp_path / "a.onnx", "onnxruntime", batch_size=2, img_size=16, device="cuda:1")
    assert asked == [("CUDAExecutionProvider", {"device_id": 1, "use_tf32": 0})]
