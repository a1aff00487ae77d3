"""Every registered kind of attention as a part of a LITv2: sizes, precisions, gradients, weights, compilation."""

import pytest
import torch

from hilo_nas.arch.attentions import ATTENTION_KINDS
from hilo_nas.arch.config import ArchConfig
from hilo_nas.arch.cost import count_params
from hilo_nas.models import build_model
from hilo_nas.models.blocks import Block, _build_attention

KINDS = [kind for kind in ATTENTION_KINDS if kind not in ("none", "hilo")]
PRECISIONS = {
    "bf16": (torch.bfloat16, None),
    "fp16": (torch.float16, None),
    "amp-bf16": (torch.float32, torch.bfloat16),
    "amp-fp16": (torch.float32, torch.float16),
}

kind_param = pytest.mark.parametrize("kind", KINDS)


def arch_of(kind: str) -> ArchConfig:
    """The kind in every stage, at one head and at several, at windows that divide nothing and exceed the last maps."""
    return ArchConfig(
        embed_dims=(8, 12, 16, 20),
        depths=(1, 1, 1, 1),
        num_heads=(1, 3, 4, 2),
        attention=(kind,) * 4,
        window_size=(4, 3, 2, 2),
        mlp_ratios=(1, 1, 1, 1),
    )


def build_attention(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    layer = _build_attention(arch_of(kind), 1)
    assert layer is not None
    return layer


@kind_param
def test_a_network_of_the_kind_learns_at_an_odd_size(kind):
    arch = arch_of(kind)
    model = build_model(arch, num_classes=5, drop_path_rate=0.1).train()
    assert sum(p.numel() for p in model.parameters()) == count_params(arch, num_classes=5)
    for module in model.modules():
        if isinstance(module, Block):
            assert module.has_attn
    logits = model(torch.randn(3, 3, 47, 66))
    assert logits.shape == (3, 5)
    logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@kind_param
@torch.no_grad()
def test_weights_survive_a_round_trip(kind):
    torch.manual_seed(0)
    one, two = (build_model(arch_of(kind), num_classes=3).eval() for _ in range(2))
    image = torch.randn(1, 3, 40, 33)
    assert not torch.equal(one(image), two(image))
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(image), two(image))


@kind_param
def test_a_layer_keeps_the_shape_of_any_map_and_passes_gradients_everywhere(kind):
    layer = build_attention(kind)
    for size in [(1, 1), (2, 9), (8, 8)]:
        x_BHWC = torch.randn(2, *size, 12, requires_grad=True)
        layer.zero_grad()
        y_BHWC = layer(x_BHWC)
        assert y_BHWC.shape == x_BHWC.shape
        y_BHWC.square().sum().backward()
        assert x_BHWC.grad is not None
        assert x_BHWC.grad.abs().sum() > 0
        assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@kind_param
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_runs_forward_and_backward(kind, precision):
    dtype, autocast = PRECISIONS[precision]
    layer = build_attention(kind)
    x_BHWC = torch.randn(2, 7, 5, 12)
    with torch.inference_mode():
        expected = layer(x_BHWC)
    layer.to(dtype)
    with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        y_BHWC = layer(x_BHWC.to(dtype))
    assert y_BHWC.dtype == (autocast or dtype)
    if kind != "clustered":  # which cluster a query belongs to may change with its last bits
        assert (y_BHWC.float() - expected).abs().max() < 0.05 * expected.abs().max()
    y_BHWC.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@kind_param
@torch.no_grad()
def test_maps_need_not_be_contiguous(kind):
    layer = build_attention(kind)
    x_BCHW = torch.randn(2, 12, 5, 8)
    x_BHWC = x_BCHW.permute(0, 2, 3, 1)
    torch.testing.assert_close(layer(x_BHWC), layer(x_BHWC.contiguous()))


@kind_param
def test_a_layer_is_one_graph_to_the_compiler(kind):
    torch._dynamo.reset()
    layer = build_attention(kind)
    x_BHWC = torch.randn(2, 7, 5, 12)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x_BHWC), layer(x_BHWC))
