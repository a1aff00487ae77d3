"""Inference form of LITv2: the same outputs as the training form for every architecture, size and precision."""

import copy
import sys

import pytest
import timm
import torch
from builders import archs
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

from hilo_nas.arch.attentions import ATTENTION_KINDS
from hilo_nas.arch.config import ArchConfig
from hilo_nas.errors import UsageError
from hilo_nas.models import LITv2, build_model, prepare_for_inference, randomize_constant_weights
from hilo_nas.models.inference import choose_operators, cuda, onednn
from hilo_nas.models.inference.operators import PLAIN

ARCH = ArchConfig(
    embed_dims=(8, 16, 24, 32), depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 4), alpha=(0.9, 0.9, 0.5, 0.5), patch_size=2
)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def trained(arch: ArchConfig) -> LITv2:
    """Returns a network as after training: sampling offsets are not zero and batch norms have statistics."""
    torch.manual_seed(0)
    model = build_model(arch, num_classes=5).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight.data, module.bias.data):
                tensor.normal_()
            module.running_var.uniform_(0.5, 2)
    randomize_constant_weights(model)
    return model


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest, as a share of the largest value."""
    return float((found.float() - expected).abs().max() / expected.abs().max())


@pytest.fixture
def without_onednn(monkeypatch):
    """A torch without the operators."""

    class Nothing:
        def __getattr__(self, name):
            raise AttributeError(name)

    onednn.is_available.cache_clear()
    monkeypatch.setattr(torch.ops, "mkldnn", Nothing())
    yield
    onednn.is_available.cache_clear()


@pytest.fixture
def card(monkeypatch):
    """A CUDA device that torch reports, but that runs nothing."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    cuda.is_right.cache_clear()
    yield torch.device("cuda", 99)
    cuda.is_right.cache_clear()


@pytest.mark.parametrize("for_compile", [False, True])
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=15, deadline=None)
@given(arch=archs(), size=st.tuples(st.integers(0, 13), st.integers(0, 13)))
@torch.no_grad()
def test_every_architecture_gives_the_same_at_every_size(for_compile, arch, size):
    assume(min(arch.embed_dims) >= 4)  # a norm over one or two channels magnifies any rounding
    model = trained(arch)
    images = torch.randn(2, 3, *(arch.stride + extra for extra in size))
    prepared = prepare_for_inference(model, for_compile=for_compile)
    assert difference(prepared(images), model(images)) <= 1e-4


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
@torch.no_grad()
def test_every_kind_of_attention_gives_the_same(kind):
    model = trained(ArchConfig(**{**ARCH.to_dict(), "attention": (kind,) * 4}))
    images = torch.randn(2, 3, 46, 33)
    assert difference(prepare_for_inference(model)(images), model(images)) <= 1e-4


@torch.no_grad()
def test_the_plain_path_gives_the_same(without_onednn):
    model = trained(ARCH)
    images = torch.randn(2, 3, 32, 32)
    prepared = prepare_for_inference(model)
    assert not onednn.is_available(torch.float32)
    assert "onednn" not in prepared.form
    assert difference(prepared(images), model(images)) <= 1e-4


@pytest.mark.parametrize("precision", ["bf16", "fp16", "amp-bf16", "amp-fp16"])
@pytest.mark.parametrize("for_compile", [False, True])
@torch.no_grad()
def test_half_precision_stays_near_float32(precision, for_compile):
    model = trained(ARCH)
    images = torch.randn(2, 3, 32, 32)
    prepared = prepare_for_inference(model, precision=precision, for_compile=for_compile)
    half = DTYPES[precision.removeprefix("amp-")]
    is_autocast = precision.startswith("amp-")
    with torch.autocast("cpu", dtype=half, enabled=is_autocast):
        found = prepared(images if is_autocast else images.to(half))
    assert difference(found, model(images)) <= (0.05 if half == torch.bfloat16 else 0.01)


@torch.no_grad()
def test_features_of_the_prepared_network_are_those_of_the_trained():
    model = trained(ARCH)
    images = torch.randn(2, 3, 35, 64)
    pairs = (
        net.forward_intermediates(images, indices=[0, 2, 3], norm=True, intermediates_only=True)
        for net in (prepare_for_inference(model), model)
    )
    for found, expected in zip(*pairs, strict=True):
        assert difference(found, expected) <= 1e-4


def test_the_network_given_is_left_as_it_is():
    model = trained(ARCH).train()
    before = copy.deepcopy(model.state_dict())
    prepared = prepare_for_inference(model)
    assert model.training
    assert not prepared.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in prepared.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    own = {parameter.data_ptr() for parameter in model.parameters()}
    assert own.isdisjoint(parameter.data_ptr() for parameter in prepared.parameters() if not parameter.is_mkldnn)


def test_the_form_says_what_was_chosen():
    model = trained(ARCH)
    prepared = prepare_for_inference(model)
    assert model.choices == ()
    assert prepared.form != model.form
    assert {"merging=gather", "batchnorms=folded", "projections=joint"} <= set(prepared.choices)


def test_what_cannot_be_prepared_is_refused():
    model = trained(ARCH)
    with pytest.raises(UsageError, match="must be a LITv2, but got ResNet"):
        prepare_for_inference(timm.create_model("resnet10t"))
    features = timm.create_model("litv2_small", features_only=True)
    with pytest.raises(UsageError, match=r"but got FeatureListNet.* build it without features_only"):
        prepare_for_inference(features)
    for precision in ("int8", "amp-fp32"):
        with pytest.raises(UsageError, match=f"precision must be fp32, .* but got '{precision}'"):
            prepare_for_inference(model, precision=precision)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "amp-bf16"])
def test_a_cuda_device_on_which_tritons_kernels_fail_gets_plain_torch(card, precision):
    pytest.importorskip("triton", reason="triton is not installed")
    with pytest.warns(UserWarning, match="cuda:99"):
        assert choose_operators(card, precision) is PLAIN


def test_a_cuda_device_without_triton_or_below_its_reach_gets_plain_torch(card, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "triton", None)
        assert choose_operators(card, "fp32") is PLAIN
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert choose_operators(card, "fp32") is PLAIN


def test_kernels_that_fail_give_a_warning_and_are_not_used():
    cuda.is_right.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"cpu: .*(CUDA|triton)"):
            assert not cuda.is_right(torch.device("cpu"), torch.float32)
    finally:
        cuda.is_right.cache_clear()
