"""Parameters and multiply-adds of single attention layers by formula, against the modules and the published numbers.

The convention is that of torch's counter, which sees products, convolutions and fused attention: a multiply-add is two
of its operations; softmax, norms, averages and what else is elementwise are free.
"""

import importlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from hilo_nas.arch import ATTENTION_KINDS
from hilo_nas.errors import ArchError, UsageError
from hilo_nas.layer_cost import layer_macs, layer_params
from hilo_nas.models import HiLo
from hilo_nas.models.attentions import ClusteredAttention, Linformer

KINDS = [kind for kind in ATTENTION_KINDS if kind != "none"]


def build_layer(kind, dim, **knobs):
    path = ATTENTION_KINDS[kind].layer
    assert path is not None
    module, _, name = path.partition(":")
    layer = getattr(importlib.import_module(module), name)
    with torch.device("meta"):
        return layer(dim=dim, **{knob: knobs[knob] for knob in ATTENTION_KINDS[kind].uses})


def params_of(module):
    return sum(p.numel() for p in module.parameters())


def counted_macs(module, dim, height, width):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(torch.empty(1, height, width, dim, device="meta"))
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.4, 0.5, 1.0]),
    st.integers(1, 12),
    st.integers(1, 12),
)
def test_the_formulas_count_what_the_layer_has_and_does(kind, num_heads, head_dim, window_size, alpha, height, width):
    dim = num_heads * head_dim
    knobs = {"num_heads": num_heads, "window_size": window_size, "alpha": alpha}
    layer = build_layer(kind, dim, **knobs)
    assert layer_params(kind, dim, **knobs) == params_of(layer)
    assert layer_macs(kind, dim, height, width, **knobs) == counted_macs(layer, dim, height, width)


@pytest.mark.parametrize(("height", "width", "rank"), [(4, 4, 3), (5, 7, 8), (2, 1, 5)])
def test_the_formulas_count_a_linformer(height, width, rank):
    knobs = {"num_heads": 3, "tokens": height * width, "rank": rank}
    with torch.device("meta"):
        layer = Linformer(12, **knobs)
    assert layer_params("linformer", 12, **knobs) == params_of(layer)
    assert layer_macs("linformer", 12, height, width, **knobs) == counted_macs(layer, 12, height, width)


@pytest.mark.parametrize("n_clusters", [1, 4, 100])
def test_the_formulas_count_any_number_of_clusters(n_clusters):
    with torch.device("meta"):
        layer = ClusteredAttention(12, num_heads=3, n_clusters=n_clusters)
    knobs = {"num_heads": 3, "n_clusters": n_clusters}
    assert layer_params("clustered", 12, **knobs) == params_of(layer)
    assert layer_macs("clustered", 12, 5, 7, **knobs) == counted_macs(layer, 12, 5, 7)


@pytest.mark.parametrize(
    ("knobs", "macs"),
    [
        ({"dim": 384, "num_heads": 12, "window_size": 2, "alpha": 0.5}, 83_467_776),
        ({"dim": 768, "num_heads": 12, "window_size": 2, "alpha": 0.9}, 298_296_320),
        ({"dim": 768, "num_heads": 12, "window_size": 1, "alpha": 0.9}, 521_428_992),
    ],
    ids=["hilo-384", "hilo-768", "plain-768"],
)
def test_a_hilo_layer_has_the_published_multiply_adds(knobs, macs):
    assert layer_macs("hilo", height=14, width=14, **knobs) == macs
    with torch.device("meta"):
        module = HiLo(**knobs)
    assert counted_macs(module, knobs["dim"], 14, 14) == macs
    assert layer_params("hilo", **knobs) == params_of(module)


def test_the_published_hilo_layer_has_the_published_parameters():
    assert layer_params("hilo", 768, num_heads=12, window_size=2, alpha=0.9) == 2_198_528


def test_plain_attention_costs_the_same_as_hilo_with_windows_of_one():
    for alpha in (0.0, 0.5, 1.0):
        knobs = {"num_heads": 12, "window_size": 1, "alpha": alpha}
        assert layer_macs("hilo", 768, 14, 14, **knobs) == layer_macs("msa", 768, 14, 14) == 521_428_992
        assert layer_params("hilo", 768, **knobs) == layer_params("msa", 768)


@pytest.mark.parametrize("kind", ["sra", "hat"])
def test_without_a_reduction_a_layer_costs_what_plain_attention_does(kind):
    assert layer_params(kind, 12, num_heads=3, window_size=1) == layer_params("msa", 12)
    assert layer_macs(kind, 12, 5, 7, num_heads=3, window_size=1) == layer_macs("msa", 12, 5, 7)


def test_no_attention_costs_nothing():
    assert layer_params("none", 12) == layer_macs("none", 12, 5, 7) == 0


@pytest.mark.parametrize("kind", [*KINDS, "linformer"])
def test_knobs_that_a_kind_does_not_feel_are_ignored(kind):
    felt = {"num_heads": 3, "window_size": 2, "alpha": 0.5, "tokens": 35, "rank": 4}
    others = {**felt, "dropout": 0.1}
    assert layer_params(kind, 12, **others) == layer_params(kind, 12, **felt) > 0
    assert layer_macs(kind, 12, 5, 7, **others) == layer_macs(kind, 12, 5, 7, **felt) > 0


def test_an_unknown_kind_is_answered_with_the_known_ones():
    with pytest.raises(
        ArchError, match=r"attention must be one of none, hilo, msa, .*linformer.*, but got 'performer'"
    ):
        layer_params("performer", 12)
    with pytest.raises(ArchError, match="but got 'performer'"):
        layer_macs("performer", 12, 5, 7)


def test_a_linformer_on_a_map_of_another_size_is_refused():
    with pytest.raises(UsageError, match=r"a linformer for 36 tokens takes maps of as many, but got 5 x 7"):
        layer_macs("linformer", 12, 5, 7, num_heads=3, tokens=36, rank=4)
