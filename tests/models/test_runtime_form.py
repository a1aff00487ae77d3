"""The form of a LITv2 for a runtime computes what its training form computes, in few operators."""

import copy
import importlib.util
import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hilo_nas.arch.attentions import ATTENTION_KINDS
from hilo_nas.arch.config import PRESETS, ArchConfig
from hilo_nas.models import LITv2, build_model
from hilo_nas.models.convert import RUNTIMES, convert
from hilo_nas.models.convert.capture import capture, to_openvino
from hilo_nas.models.convert.runtime_form import FORMS, build_form, sample_columns
from hilo_nas.models.dtm import DeformConv, deformable_columns
from hilo_nas.space import list_shipped, load_space

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino not installed")
needs_onnxruntime = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript")),
    reason="onnx, onnxruntime or onnxscript not installed",
)
EITHER = [pytest.param("onnxruntime", marks=needs_onnxruntime), pytest.param("openvino", marks=needs_openvino)]
SPACES = {name: load_space(name) for name in list_shipped()}


def with_trained_values(model: LITv2, std: float = 0.5) -> LITv2:
    """Gives a network weights and statistics that a new network does not have: none is zero or one."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            nn.init.normal_(module.weight, mean=1.0, std=0.2)
            nn.init.normal_(module.bias, std=0.2)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
        if isinstance(module, DeformConv):
            nn.init.normal_(module.conv_offset.weight, std=std)
    return model


def build(arch: ArchConfig, **options: object) -> LITv2:
    torch.manual_seed(0)
    return with_trained_values(build_model(arch, num_classes=5, **options)).eval()


def build_small(**fields: object) -> LITv2:
    small = {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 4]}
    return build(ArchConfig(**small | {"attention": ["none", "none", "hilo", "hilo"]} | fields))


def difference(seen: Tensor, expected: Tensor) -> float:
    assert seen.shape == expected.shape
    return float((seen - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def check_form(model: LITv2, image: Tensor, runtime: str, precision: str = "fp32", bound: float = 1e-4) -> None:
    form = build_form(copy.deepcopy(model), runtime, precision)
    assert type(form) is not LITv2
    assert difference(form(image), model(image)) <= bound


def random_arch(space: str, seed: int) -> ArchConfig:
    chosen = SPACES[space]
    return chosen.decode(chosen.sample(random.Random(seed)))


@pytest.mark.parametrize("runtime", RUNTIMES)
@settings(deadline=None, max_examples=15)
@given(
    space=st.sampled_from(sorted(SPACES)),
    seed=st.integers(0, 10_000),
    batch_size=st.sampled_from((1, 3)),
    extra=st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
def test_networks_of_the_shipped_spaces_keep_their_outputs(runtime, space, seed, batch_size, extra):
    arch = random_arch(space, seed)
    image = torch.randn(batch_size, 3, arch.stride + extra[0], arch.stride + extra[1])
    # Some kinds amplify rounding with fresh weights, so the error is measured in float64.
    check_form(build(arch).double(), image.double(), runtime, bound=1e-6)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_odd_maps_are_padded_and_cropped_as_in_torch(runtime, precision):
    model = build_small(window_size=[1, 1, 3, 2], alpha=[0.5] * 4)
    check_form(model, torch.randn(2, 3, 45, 70), runtime, precision)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_every_kind_of_attention_keeps_its_outputs(kind, runtime):
    model = build_small(attention=[kind] * 4).double()
    check_form(model, torch.randn(1, 3, 70, 64).double(), runtime, bound=1e-6)


@pytest.mark.parametrize(("num_classes", "pool"), [(0, "avg"), (3, "max"), (0, "")])
def test_other_heads_keep_their_outputs(num_classes, pool):
    model = build_small()
    model.reset_classifier(num_classes, pool)
    check_form(model, torch.randn(1, 3, 64, 64), "openvino")


def test_a_pruned_network_keeps_its_outputs():
    model = build_small()
    model.prune_intermediate_layers(2)
    check_form(model, torch.randn(1, 3, 64, 64), "onnxruntime")


def test_other_networks_are_left_as_they_are():
    class Changed(LITv2):
        """A subclass, which can compute anything."""

    network = Changed(**build_small().arch.to_dict())
    for model in (nn.Conv2d(3, 4, 1), network):
        assert all(build_form(model, runtime) is model for runtime in RUNTIMES)
    assert FORMS.keys() == set(RUNTIMES)


@given(std=st.sampled_from((0.1, 3.0, 1e9)), height=st.integers(2, 9), width=st.integers(2, 9))
def test_samples_match_those_of_torch_for_any_offset(std, height, width):
    x_BHWC = torch.randn(2, height, width, 3).double()
    offset_BCHW = std * torch.randn(2, 8, height // 2, width // 2).double()
    torch.testing.assert_close(sample_columns(x_BHWC, offset_BCHW), deformable_columns(x_BHWC, offset_BCHW))


def test_samples_in_bfloat16_stay_in_place_on_a_large_map():
    x_BHWC = torch.arange(300.0).view(1, 1, -1, 1).expand(1, 2, -1, 4) / 300
    offset_BCHW = torch.full((1, 8, 1, 150), 0.25)
    exact = deformable_columns(x_BHWC, offset_BCHW)
    seen = sample_columns(x_BHWC, offset_BCHW.bfloat16().float())
    assert difference(seen, exact) < 1e-6
    rounded = sample_columns(x_BHWC.bfloat16(), offset_BCHW.bfloat16())
    assert difference(rounded.float(), exact) < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("runtime", EITHER)
@pytest.mark.parametrize(("batch_size", "size"), [(1, (64, 64)), (3, (75, 98))])
def test_a_small_network_keeps_its_outputs_in_a_runtime(runtime, batch_size, size):
    model, image = build_small(window_size=[1, 1, 2, 1], alpha=[0.5] * 4), torch.randn(batch_size, 3, *size)
    converted = convert(model, image, runtime, threads=1)
    with torch.no_grad():
        assert difference(converted.read_output(), model(image)) <= 1e-4
    assert "form=tokens" in converted.form


@pytest.mark.long
@pytest.mark.parametrize("runtime", EITHER)
@pytest.mark.parametrize("preset", list(PRESETS))
def test_presets_keep_their_outputs_in_a_runtime(preset, runtime):
    model, image = build(PRESETS[preset]), torch.randn(1, 3, 75, 64)
    converted = convert(model, image, runtime, threads=1)
    with torch.no_grad():
        assert difference(converted.read_output(), model(image)) <= 1e-4


@pytest.mark.long
@pytest.mark.parametrize("runtime", EITHER)
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("seed", range(4))
def test_random_networks_of_the_shipped_spaces_can_be_converted(space, seed, runtime):
    arch = random_arch(space, seed)
    image = torch.randn(1 + 2 * (seed % 2), 3, arch.stride + 9 * seed, arch.stride + 5)
    converted = convert(build(arch), image, runtime, threads=1)  # raises an error if the outputs differ
    assert "form=tokens" in converted.form


def openvino_operators(model: LITv2) -> Counter[str]:
    """Returns how many operators of each type OpenVINO executes; a view of another layout is not executed."""
    openvino = pytest.importorskip("openvino")
    image = torch.randn(1, 3, 64, 64)
    network = to_openvino(capture(build_form(model, "openvino"), image))
    network.reshape(list(image.shape))
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "PERF_COUNT": True}
    request = openvino.Core().compile_model(network, "CPU", options).create_infer_request()
    request.infer([image.numpy()])
    nodes = request.get_profiling_info()
    return Counter(node.node_type for node in nodes if node.status == node.Status.EXECUTED)


@pytest.mark.slow
@needs_openvino
def test_openvino_transposes_only_in_attention_and_merging():
    counts = openvino_operators(build(PRESETS["litv2_small"]))
    merging, hilo, plain = 3, 6 * 5, 2 * 2  # offsets; q, k and v and the result of each attention
    assert counts["Transpose"] <= merging + hilo + plain
    assert counts["MVN"] == 22  # each norm is one operator


@pytest.mark.slow
@needs_openvino
def test_openvino_changes_no_layout_in_blocks_without_attention():
    by_depth = [openvino_operators(build_small(attention=["none"] * 4, depths=[depth] * 4)) for depth in (1, 3)]
    added = by_depth[1] - by_depth[0]
    assert (added["Convolution"], added["GroupConvolution"]) == (8 * 2, 8)
    assert added["Transpose"] == added["Reorder"] == 0
