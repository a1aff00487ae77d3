"""Search spaces as values: the only translator between flat integers and architectures."""

import dataclasses
import json
from random import Random

import pytest
import torch
from builders import TINY, archs, build_measurement
from hypothesis import given, settings
from hypothesis import strategies as st

from hilo_nas.arch.config import N_STAGES, PRESETS
from hilo_nas.arch.cost import count_params
from hilo_nas.errors import UsageError
from hilo_nas.models import build_model
from hilo_nas.space import (
    LIMITS,
    Anchor,
    Knob,
    SearchSpace,
    free_violations,
    list_shipped,
    load_space,
    measured_violations,
)
from hilo_nas.space.limits import violation
from hilo_nas.space.space_file import build_space

SHIPPED = {name: load_space(name) for name in list_shipped()}
seeds = st.integers(0, 2**32)

by_heads = build_space(
    "by_heads",
    {
        "patch_size": [1, 2],
        "embed_dims": [[8, 16], [24], [32, 48], [48]],
        "depths": [1, 2],
        "num_heads": [[1], [1, 2], [2, 4, 8], [3, 6]],
        "attention": [["none", "hilo"], ["none", "hilo", "sra"], ["hilo", "msa"], ["xca", "hilo", "carrier"]],
        "alpha": [0.0, 0.3, 0.5, 1.0],
        "window_size": [1, 2, 3],
        "mlp_ratios": [1, 1.5, 2],
    },
)
"""Everything is free per stage or shared by all, and heads are given by number."""
SPACES = {**SHIPPED, "by_heads": by_heads}

space_param = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)


@space_param
@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_encoding_what_was_decoded_spells_the_same_network(space, seed):
    arch = space.decode(space.sample(Random(seed)))
    params = space.encode(arch)
    assert params.keys() == space.dimensions.keys()
    assert space.decode(params).key() == arch.key()


@space_param
@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_encoding_does_not_depend_on_the_spelling(space, seed):
    arch = space.decode(space.sample(Random(seed)))
    assert space.encode(arch.canonical()) == space.encode(arch)


@space_param
def test_a_space_survives_its_own_description(space):
    again = build_space(space.name, json.loads(json.dumps(space.to_dict())))
    assert again == space
    assert again.hash() == space.hash()


@space_param
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_neighbours_are_one_step_away(space, seed):
    params = space.sample(Random(seed))
    neighbours = list(space.neighbours(params))
    assert neighbours
    for other in neighbours:
        space.decode(other)
        (moved,) = [param for param in params if params[param] != other[param]]
        assert abs(params[moved] - other[moved]) == 1
    assert len({tuple(other.values()) for other in neighbours}) == len(neighbours)
    inner = sum(0 < params[param] < n - 1 for param, n in space.dimensions.items())
    assert len(neighbours) == len(space.dimensions) + inner


@space_param
def test_samples_are_drawn_by_the_seed_and_reach_every_choice(space):
    assert space.sample(Random(3)) == space.sample(Random(3))
    random = Random(0)
    drawn = [space.sample(random) for _ in range(300)]
    for param, n in space.dimensions.items():
        assert {params[param] for params in drawn} == set(range(n))


@space_param
def test_params_that_the_space_does_not_have_are_refused(space):
    params = space.sample(Random(0))
    name = next(iter(params))
    top = space.dimensions[name]
    for wrong in ({}, {**params, "colour": 1}, {key: params[key] for key in list(params)[1:]}):
        with pytest.raises(UsageError, match="the parameters must be "):
            space.decode(wrong)
    for index in (-1, top):
        with pytest.raises(UsageError, match=f"{name} must be from 0 to {top - 1}, but got {index}"):
            space.decode({**params, name: index})


@pytest.mark.parametrize("name", SHIPPED)
def test_anchors_of_shipped_spaces_encode_or_are_named_outside(name):
    space = SHIPPED[name]
    assert space.anchors or name in ("litv2_kinds", "litv2_tabular")  # of which every network is tried
    for anchor in space.anchors:
        if anchor.outside:
            with pytest.raises(UsageError):
                space.encode(anchor.arch)
        else:
            assert space.decode(space.encode(anchor.arch)).key() == anchor.arch.key()


@pytest.mark.parametrize("name", ["litv2_imagenet", "litv2_free"])
def test_the_large_spaces_hold_the_papers_networks(name):
    assert {anchor.name: anchor.arch for anchor in SHIPPED[name].anchors} == PRESETS


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_spaces_suggest_sizes_that_their_networks_take(name):
    space = SHIPPED[name]
    assert space.description
    strides = {space.decode(space.sample(Random(seed))).stride for seed in range(40)}
    assert max(strides) <= min(space.defaults["img_size"], space.defaults["proxy_img_size"])
    assert {"img_size", "batch_size", "proxy_images", "num_classes", "trials"} <= space.defaults.keys()


@pytest.mark.parametrize("name", SHIPPED)
@torch.no_grad()
def test_samples_of_shipped_spaces_build_and_run(name):
    """The tiny ones on the CPU, the others on the meta device, which checks every shape."""
    space, random = SHIPPED[name], Random(1)
    for _ in range(3):
        arch = space.decode(space.sample(random))
        is_tiny = name == "litv2_digits" or (name == "litv2_cifar" and count_params(arch) < 3e6)
        with torch.device("cpu" if is_tiny else "meta"):
            model = build_model(arch, num_classes=space.defaults["num_classes"]).eval()
            logits = model(torch.zeros(1, 3, arch.stride, arch.stride + 5))
        assert logits.shape == (1, space.defaults["num_classes"])
        assert model.arch.key() == arch.key()
        if is_tiny:
            assert logits.isfinite().all()


@torch.no_grad()
def test_the_free_space_places_attention_in_any_stage():
    space, random = SHIPPED["litv2_free"], Random(0)
    drawn = [space.decode(space.sample(random)) for _ in range(60)]
    assert {arch.attention[0] for arch in drawn} == {"none", "hilo"}
    assert any(arch.embed_dims[1] != 2 * arch.embed_dims[0] for arch in drawn)


def test_shared_widths_double_from_stage_to_stage():
    space = SHIPPED["litv2_digits"]
    params = dict.fromkeys(space.dimensions, 0)
    for index, width in enumerate((8, 16, 24, 32)):
        assert space.decode({**params, "embed_dims": index}).embed_dims == tuple(width * 2**i for i in range(N_STAGES))


def test_heads_follow_the_width_where_their_dimension_is_given():
    space = SHIPPED["litv2_digits"]
    arch = space.decode({**dict.fromkeys(space.dimensions, 0), "embed_dims": 3})
    assert [arch.embed_dims[i] // arch.num_heads[i] for i in (2, 3)] == [16, 16]


def test_a_network_that_the_space_cannot_spell_is_answered_with_what_it_lacks():
    space = SHIPPED["litv2_digits"]
    wrong = dataclasses.replace(TINY, depths=(1, 1, 9, 1), patch_size=4, window_size=(1, 1, 3, 1))
    with pytest.raises(UsageError) as caught:
        space.encode(wrong)
    message = str(caught.value)
    assert "patch_size has [2], but the network needs 4" in message
    assert "depths_3 has [1, 2, 3, 4], but the network needs 9" in message
    assert "window_size_3 has [1, 2, 4], but the network needs 3" in message


def test_widths_that_do_not_double_are_outside_a_space_whose_widths_do():
    with pytest.raises(UsageError, match=r"embed_dims has \[8, 16, 24, 32\], but the network needs \[16, 32, 64, 96\]"):
        SHIPPED["litv2_digits"].encode(dataclasses.replace(TINY, embed_dims=(16, 32, 64, 96), num_heads=(1, 2, 4, 6)))


@settings(max_examples=60, deadline=None)
@given(archs(max_width=64, max_depth=2))
def test_encoding_either_spells_the_network_or_refuses_it(arch):
    for space in SPACES.values():
        try:
            params = space.encode(arch)
        except UsageError:
            continue
        assert space.decode(params).key() == arch.key()


def test_a_network_is_encoded_whatever_its_dead_knobs_say():
    space = SHIPPED["litv2_digits"]
    spelled = dataclasses.replace(TINY, num_heads=(16, 32, 4, 8), alpha=(1, 0, 0.6, 0.1), window_size=(9, 9, 2, 1))
    assert spelled.key() == TINY.key()
    assert space.encode(spelled) == space.encode(TINY)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_hash_is_of_what_is_searched(name):
    space = SHIPPED[name]
    same = dataclasses.replace(space, name="x", description="x", defaults={})
    assert same.hash() == space.hash()
    others = [
        dataclasses.replace(space, limits={**space.limits, "params_m": 1.5}),
        dataclasses.replace(space, anchors=(*space.anchors, Anchor(name="a", arch=TINY, outside=True))),
        dataclasses.replace(space, knobs=(*space.knobs[:-1], Knob(space.knobs[-1].name, None, (2.0, 3.5)))),
    ]
    assert len({space.hash(), *(other.hash() for other in others)}) == 4


def test_a_knob_with_one_value_is_no_dimension():
    space = build_space(
        "one",
        {
            "embed_dims": [16],
            "depths": [1],
            "head_dim": [8],
            "attention": [["none"], ["none"], ["hilo"], ["hilo"]],
            "window_size": [2],
        },
    )
    assert (space.dimensions, space.n_configs) == ({}, 1)
    assert space.decode({}).depths == (1, 1, 1, 1)
    assert space.encode(space.decode({})) == {}
    assert list(space.neighbours({})) == []
    assert isinstance(space, SearchSpace)


def test_limits_are_told_in_their_own_direction_and_unit():
    assert {name for name, limit in LIMITS.items() if limit.is_free} == {"params_m", "gmacs"}
    assert LIMITS["params_m"].text("params_m", 20) == "params_m <= 20"
    assert LIMITS["images_per_s"].text("images_per_s", 900) == "images_per_s >= 900"


@given(st.sampled_from(list(LIMITS)), st.floats(0.001, 1e6), st.floats(0.001, 1e6))
def test_a_violation_is_positive_exactly_beyond_the_limit(name, limit, value):
    beyond = value < limit if LIMITS[name].is_floor else value > limit
    found = violation(name, limit, value)
    assert (found > 0) == beyond or value == pytest.approx(limit)


def test_a_violation_grows_with_the_distance():
    assert violation("params_m", 10, 20) == pytest.approx(0.6931, abs=1e-4)
    assert violation("images_per_s", 900, 450) == pytest.approx(0.6931, abs=1e-4)
    assert violation("params_m", 10, 10) == 0
    assert violation("images_per_s", 900, 0.0) > 20


def test_only_the_limits_given_are_checked():
    limits = {"params_m": 20.0, "images_per_s": 900.0, "latency_ms": 5.0, "memory_mib": 100.0}
    free = free_violations(limits, parameters=40_000_000, macs=10**12)
    assert free == {"params_m": pytest.approx(0.6931, abs=1e-4)}
    assert free_violations({"gmacs": 1.0}, parameters=1, macs=500_000_000)["gmacs"] < 0
    measured = measured_violations(limits, [build_measurement(450.0, latency_ms_p95=4.0, memory_mib=200.0)])
    assert measured.keys() == {"images_per_s", "latency_ms", "memory_mib"}
    assert measured["images_per_s"] > 0
    assert measured["latency_ms"] < 0
    assert measured["memory_mib"] > 0


def test_memory_that_cannot_be_seen_breaks_no_limit():
    assert measured_violations({"memory_mib": 1.0}, [build_measurement(memory_mib=None)]) == {"memory_mib": -1.0}
