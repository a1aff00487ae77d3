"""Parameters and multiply-adds by formula, against the module itself and against the published numbers."""

import dataclasses

import pytest
import torch
from builders import TINY, archs
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from hilo_nas.arch.attentions import ATTENTION_KINDS, lofi_heads
from hilo_nas.arch.config import N_STAGES, PRESETS, ArchConfig
from hilo_nas.arch.cost import PARTS, count_cost, count_macs, count_params, count_parts, map_sizes
from hilo_nas.errors import UsageError
from hilo_nas.models import build_model

EVERYWHERE = ArchConfig(
    embed_dims=(12, 8, 30, 20),
    depths=(1, 2, 1, 1),
    num_heads=(3, 1, 5, 4),
    attention=("hilo", "hilo", "hilo", "hilo"),
    alpha=(0.5, 0.0, 0.7, 1.0),
    window_size=(3, 2, 7, 2),
    mlp_ratios=(1, 2.5, 3, 0.5),
    patch_size=2,
)
"""HiLo in every stage, widths that do not double, windows that divide nothing."""


def build_meta(arch, **options):
    with torch.device("meta"):
        return build_model(arch, **options).eval()


def counted_macs(module, *shape):
    """What torch's own counter sees while the module runs."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.empty(shape, device="meta"))
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


def shapes_of(model):
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "params", "gmacs"),
    [
        ("litv2_small", 27_844_000, 3.724),
        ("litv2_medium", 48_830_368, 7.463),
        ("litv2_base", 86_520_704, 13.172),
    ],
)
def test_the_published_networks_have_the_published_costs(name, params, gmacs):
    assert count_params(PRESETS[name]) == params
    assert round(count_macs(PRESETS[name], 224) / 1e9, 3) == gmacs


@pytest.mark.parametrize("name", PRESETS)
def test_the_published_networks_cost_what_the_module_does(name):
    model = build_meta(PRESETS[name])
    assert count_params(PRESETS[name]) == sum(p.numel() for p in model.parameters())
    assert count_macs(PRESETS[name], 224) == counted_macs(model, 1, 3, 224, 224)


@settings(max_examples=40, deadline=None)
@given(archs(), st.sampled_from([0, 1, 10]), st.sampled_from([1, 3]))
def test_the_formula_counts_the_modules_parameters(arch, num_classes, in_chans):
    model = build_meta(arch, num_classes=num_classes, in_chans=in_chans)
    counted = sum(p.numel() for p in model.parameters())
    assert count_params(arch, num_classes=num_classes, in_chans=in_chans) == counted


@settings(max_examples=15, deadline=None)
@given(archs(kinds=("hilo", *ATTENTION_KINDS)), st.integers(0, 40), st.integers(0, 40))
def test_the_formula_counts_the_modules_multiply_adds_at_any_size(arch, more_height, more_width):
    height, width = arch.stride + more_height, arch.stride + more_width
    model = build_meta(arch, num_classes=7, in_chans=2)
    counted = counted_macs(model, 1, 2, height, width)
    assert count_macs(arch, height, width, num_classes=7, in_chans=2) == counted


@pytest.mark.parametrize("size", [(16, 16), (17, 30), (33, 47), (16, 63)])
def test_padding_to_patches_and_windows_is_counted(size):
    counted = counted_macs(build_meta(EVERYWHERE, num_classes=3), 1, 3, *size)
    assert count_macs(EVERYWHERE, *size, num_classes=3) == counted


@settings(max_examples=10, deadline=None)
@given(archs(), st.integers(0, 20), st.integers(0, 20))
@torch.no_grad()
def test_map_sizes_are_the_modules(arch, more_height, more_width):
    height, width = arch.stride + more_height, arch.stride + more_width
    features = build_meta(arch).forward_intermediates(
        torch.empty(1, 3, height, width, device="meta"), intermediates_only=True
    )
    assert map_sizes(arch, height, width) == tuple(tuple(feature.shape[-2:]) for feature in features)


def test_an_image_is_square_unless_its_width_is_given():
    assert map_sizes(TINY, 32) == map_sizes(TINY, 32, 32) == ((16, 16), (8, 8), (4, 4), (2, 2))
    assert count_macs(TINY, 32) == count_macs(TINY, 32, 32)


@pytest.mark.parametrize("size", [(31, 64), (64, 31), (1, 1)])
def test_an_image_smaller_than_the_stride_is_refused_by_formula_and_module_alike(size):
    arch = dataclasses.replace(TINY, patch_size=4)
    with pytest.raises(UsageError, match=rf"at least 32 pixels .*stride 32 .*but got {size[0]} x {size[1]}\. Use"):
        map_sizes(arch, *size)
    with pytest.raises(UsageError):
        count_macs(arch, *size)
    with pytest.raises(UsageError):
        build_meta(arch)(torch.empty(1, 3, *size, device="meta"))
    build_meta(arch)(torch.empty(1, 3, 32, 32, device="meta"))


@st.composite
def spellings(draw, arch):
    """Returns an equivalent architecture: other values of unused knobs, and other alphas with the same head split."""
    fields = {name: list(getattr(arch, name)) for name in ("num_heads", "alpha", "window_size")}
    for i in range(N_STAGES):
        heads, uses = arch.num_heads[i], ATTENTION_KINDS[arch.attention[i]].uses
        split = lofi_heads(heads, arch.alpha[i], arch.window_size[i])
        if "num_heads" not in uses:
            fields["num_heads"][i] = draw(st.integers(1, 9))
        if "window_size" not in uses:
            fields["window_size"][i] = draw(st.integers(1, 9))
        if "alpha" not in uses or arch.window_size[i] == 1:
            fields["alpha"][i] = draw(st.floats(0, 1))
        elif split < heads:
            same = st.floats(split / heads, (split + 1) / heads)
            fields["alpha"][i] = draw(same.filter(lambda a, heads=heads, split=split: int(heads * a) == split))
    return dataclasses.replace(arch, **fields)


@settings(max_examples=20, deadline=None)
@given(archs(max_width=12, max_depth=1, kinds=("hilo", *ATTENTION_KINDS)), st.data())
@torch.no_grad()
def test_equal_keys_mean_equal_modules(arch, data):
    """Equivalent architectures have the same tensors, and the same outputs for the same weights."""
    other = data.draw(spellings(arch))
    assert other.key() == arch.key()
    torch.manual_seed(0)
    model = build_model(arch, num_classes=3).eval()
    image = torch.randn(1, 3, arch.stride, arch.stride + 3)
    logits = model(image)
    for spelling in (other, arch.canonical()):
        same = build_model(spelling, num_classes=3).eval()
        assert shapes_of(same) == shapes_of(model)
        same.load_state_dict(model.state_dict())
        assert torch.equal(same(image), logits)


@pytest.mark.parametrize(
    "change",
    [
        {"embed_dims": (16, 32, 64, 144)},
        {"depths": (1, 1, 1, 1)},
        {"num_heads": (1, 2, 2, 8)},
        {"num_heads": (1, 2, 4, 4)},
        {"attention": ("none", "none", "hilo", "none")},
        {"attention": ("hilo", "none", "hilo", "hilo")},
        {"attention": ("none", "none", "window", "hilo")},
        {"alpha": (0.5, 0.5, 0.25, 0.5)},
        {"alpha": (0.5, 0.5, 0.0, 0.5)},
        {"window_size": (2, 2, 4, 1)},
        {"window_size": (2, 2, 2, 2)},
        {"window_size": (2, 2, 1, 1)},
        {"mlp_ratios": (4, 4, 4, 2)},
        {"patch_size": 4},
    ],
    ids=str,
)
@torch.no_grad()
def test_different_keys_mean_different_modules(change):
    """Where two networks have the same tensors, the same weights still give other outputs."""
    other = dataclasses.replace(TINY, **change)
    assert other.key() != TINY.key()
    torch.manual_seed(0)
    one, two = build_model(TINY, num_classes=3).eval(), build_model(other, num_classes=3).eval()
    if shapes_of(one) == shapes_of(two):
        two.load_state_dict(one.state_dict())
        image = torch.randn(1, 3, 64, 64)
        assert not torch.allclose(one(image), two(image), atol=1e-7, rtol=0)


@given(archs())
def test_equivalent_architectures_have_the_same_cost(arch):
    canonical = arch.canonical()
    assert count_params(canonical) == count_params(arch)
    assert count_macs(canonical, 67, 45) == count_macs(arch, 67, 45)


@given(archs())
def test_the_parts_of_a_network_make_up_the_whole(arch):
    size = arch.stride + 5
    parts = count_parts(arch, size)
    assert tuple(parts) == PARTS
    whole = count_cost(arch, size)
    assert sum(part.parameters for part in parts.values()) == whole.parameters == count_params(arch)
    assert sum(part.macs for part in parts.values()) == whole.macs == count_macs(arch, size)


def test_a_part_costs_what_its_module_holds():
    arch = PRESETS["litv2_small"]
    with torch.device("meta"):
        model = build_model(arch)
    modules = [model.patch_embed, *model.layers, torch.nn.ModuleList([model.norm, model.head])]
    held = [sum(p.numel() for p in module.parameters()) for module in modules]
    assert [part.parameters for part in count_parts(arch, 224).values()] == held
