"""Kinds of attention: formulas against modules and published numbers, and a kind from another package.

The convention is that of torch's counter, which sees products, convolutions and fused attention: a multiply-add is two
of its operations; softmax, norms, averages and what else is elementwise are free.
"""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from hilo_nas.arch.attentions import ATTENTION_KINDS, LINFORMER, attention_named, attention_names
from hilo_nas.arch.cost import count_macs, count_params
from hilo_nas.errors import ArchError, UsageError
from hilo_nas.models import HiLo, build_model, prepare_for_inference
from hilo_nas.models.attentions import ClusteredAttention, Linformer
from hilo_nas.space import load_space

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
    assert ATTENTION_KINDS[kind].params(dim, **knobs) == params_of(layer)
    assert ATTENTION_KINDS[kind].macs(dim, height, width, **knobs) == counted_macs(layer, dim, height, width)


@pytest.mark.parametrize(("height", "width", "rank"), [(4, 4, 3), (5, 7, 8), (2, 1, 5)])
def test_the_formulas_count_a_linformer(height, width, rank):
    knobs = {"num_heads": 3, "tokens": height * width, "rank": rank}
    with torch.device("meta"):
        layer = Linformer(12, **knobs)
    assert LINFORMER.params(12, **knobs) == params_of(layer)
    assert LINFORMER.macs(12, height, width, **knobs) == counted_macs(layer, 12, height, width)


@pytest.mark.parametrize("n_clusters", [1, 4, 100])
def test_the_formulas_count_any_number_of_clusters(n_clusters):
    with torch.device("meta"):
        layer = ClusteredAttention(12, num_heads=3, n_clusters=n_clusters)
    knobs = {"num_heads": 3, "n_clusters": n_clusters}
    assert ATTENTION_KINDS["clustered"].params(12, **knobs) == params_of(layer)
    assert ATTENTION_KINDS["clustered"].macs(12, 5, 7, **knobs) == counted_macs(layer, 12, 5, 7)


@pytest.mark.parametrize(
    ("dim", "knobs", "macs"),
    [
        (384, {"num_heads": 12, "window_size": 2, "alpha": 0.5}, 83_467_776),
        (768, {"num_heads": 12, "window_size": 2, "alpha": 0.9}, 298_296_320),
        (768, {"num_heads": 12, "window_size": 1, "alpha": 0.9}, 521_428_992),
    ],
    ids=["hilo-384", "hilo-768", "plain-768"],
)
def test_a_hilo_layer_has_the_published_multiply_adds(dim, knobs, macs):
    hilo = ATTENTION_KINDS["hilo"]
    assert hilo.macs(dim, 14, 14, **knobs) == macs
    with torch.device("meta"):
        module = HiLo(dim, **knobs)
    assert counted_macs(module, dim, 14, 14) == macs
    assert hilo.params(dim, **knobs) == params_of(module)


def test_the_published_hilo_layer_has_the_published_parameters():
    assert ATTENTION_KINDS["hilo"].params(768, num_heads=12, window_size=2, alpha=0.9) == 2_198_528


def test_plain_attention_costs_the_same_as_hilo_with_windows_of_one():
    for alpha in (0.0, 0.5, 1.0):
        knobs = {"num_heads": 12, "window_size": 1, "alpha": alpha}
        hilo, msa = ATTENTION_KINDS["hilo"], ATTENTION_KINDS["msa"]
        assert hilo.macs(768, 14, 14, **knobs) == msa.macs(768, 14, 14) == 521_428_992
        assert hilo.params(768, **knobs) == msa.params(768)


@pytest.mark.parametrize("kind", ["sra", "hat"])
def test_without_a_reduction_a_layer_costs_what_plain_attention_does(kind):
    assert ATTENTION_KINDS[kind].params(12, num_heads=3, window_size=1) == ATTENTION_KINDS["msa"].params(12)
    assert ATTENTION_KINDS[kind].macs(12, 5, 7, num_heads=3, window_size=1) == ATTENTION_KINDS["msa"].macs(12, 5, 7)


def test_no_attention_costs_nothing():
    assert ATTENTION_KINDS["none"].params(12) == ATTENTION_KINDS["none"].macs(12, 5, 7) == 0


@pytest.mark.parametrize("kind", [*ATTENTION_KINDS.values(), LINFORMER], ids=lambda kind: kind.name)
def test_knobs_that_a_kind_does_not_use_are_ignored(kind):
    felt = {"num_heads": 3, "window_size": 2, "alpha": 0.5, "tokens": 35, "rank": 4}
    others = {**felt, "dropout": 0.1}
    assert kind.params(12, **others) == kind.params(12, **felt)
    assert kind.macs(12, 5, 7, **others) == kind.macs(12, 5, 7, **felt)


def test_an_unknown_kind_is_refused_with_the_known_names():
    with pytest.raises(ArchError, match=r"attention must be one of none, hilo, msa, .*, but got 'performer'"):
        attention_named("performer")


def test_a_linformer_on_a_map_of_another_size_is_refused():
    with pytest.raises(UsageError, match=r"\b36 tokens, but got 5 x 7\. Use tokens=35"):
        LINFORMER.macs(12, 5, 7, num_heads=3, tokens=36, rank=4)


# A kind of another package.

TOY = Path(__file__).parents[1] / "assets" / "toy"
"""One file, and one line in its package's entry points."""
SPACE = """
patch_size: [2, 4]
embed_dims: [8, 16]
depths: [1]
num_heads: [2, 4]
attention: [[none], [hilo], [toy], [toy, msa]]
alpha: [0.5]
window_size: [2]
mlp_ratios: [1]
anchors:
  tiny: {embed_dims: [8, 16, 32, 64], depths: [1, 1, 1, 1], num_heads: [2, 2, 2, 2], attention: [none, hilo, toy, msa],
    alpha: [0.5, 0.5, 0.5, 0.5], window_size: [2, 2, 2, 2], mlp_ratios: [1, 1, 1, 1], patch_size: 4}
defaults: {img_size: 32, batch_size: 8}
"""


@pytest.fixture
def toy_space(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return path


@torch.no_grad()
def test_another_package_adds_a_kind_by_one_file_and_one_line(toy_space, monkeypatch):
    monkeypatch.syspath_prepend(TOY)
    assert attention_names() == (*ATTENTION_KINDS, "toy")
    space, random = load_space(str(toy_space)), Random(0)
    drawn = {(arch := space.decode(space.sample(random))).key(): arch for _ in range(40)}
    assert {arch.attention[3] for arch in drawn.values()} == {"toy", "msa"}
    for arch in list(drawn.values())[:4]:
        assert space.decode(space.encode(arch)) == arch
        model = build_model(arch, num_classes=5).eval()
        assert count_params(arch, num_classes=5) == params_of(model)
        with (
            FlopCounterMode(display=False) as counter,
            torch.nn.attention.sdpa_kernel([torch.nn.attention.SDPBackend.MATH]),
        ):
            logits = model(torch.zeros(1, 3, 40, 56))
        assert count_macs(arch, 40, 56, num_classes=5) == counter.get_total_flops() // 2
        torch.testing.assert_close(prepare_for_inference(model)(torch.zeros(1, 3, 40, 56)), logits)


def test_a_space_of_another_package_s_kind_is_shown_without_torch(toy_space):
    child = "import sys; from hilo_nas.cli import main; code = main(sys.argv[1:]); print(code, 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", child, "space", "show", str(toy_space)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TOY), *sys.path])},
    )
    assert done.stdout.endswith("0 False\n"), done.stdout + done.stderr
