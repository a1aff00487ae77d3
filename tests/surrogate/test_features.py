import dataclasses

import numpy as np
import pytest
from builders import TINY, archs, build_arch
from hypothesis import given, settings
from known_networks import describe, draw_archs

from hilo_nas.arch.cost import count_macs, count_params
from hilo_nas.errors import UsageError
from hilo_nas.surrogate.features import FeatureScale, describe_network


def scale_of(networks):
    return FeatureScale(describe(networks))


@given(archs())
@settings(deadline=None)
def test_equal_networks_have_equal_features(arch):
    assert describe_network(arch, 64, 10) == describe_network(arch.canonical(), 64, 10)


@given(archs(), archs())
@settings(deadline=None)
def test_the_costs_are_those_by_formula(first, second):
    for arch in (first, second):
        expected = [count_params(arch, num_classes=7), count_macs(arch, 64, num_classes=7)]
        assert np.exp(describe_network(arch, 64, 7).log_costs) == pytest.approx(expected)


def test_images_smaller_than_the_stride_are_refused():
    with pytest.raises(UsageError):
        describe_network(dataclasses.replace(TINY, patch_size=8), 32, 10)


def test_coordinates_of_the_networks_of_a_scale_reach_from_0_to_1():
    networks = draw_archs(200)
    features = scale_of(networks).transform(describe(networks))
    assert features.coordinates.min(axis=0) == pytest.approx(0)
    assert features.coordinates.max(axis=0) == pytest.approx(1)
    assert features.costs.mean(axis=0) == pytest.approx(0, abs=1e-9)
    assert features.costs.std(axis=0) == pytest.approx(1)


def test_a_space_has_one_coordinate_per_knob_with_an_effect():
    """Width, four depths, the MLP ratio, and per stage of HiLo the window and the share of Lo-Fi heads."""
    networks = draw_archs(300)
    assert scale_of(networks).transform(describe(networks)).coordinates.shape == (300, 1 + 4 + 1 + 2 * 2)


def test_widths_that_double_from_stage_to_stage_are_one_coordinate():
    heads = {"num_heads": (1, 1, 1, 1)}
    networks = [
        dataclasses.replace(TINY, embed_dims=tuple(width * 2**i for i in range(4)), alpha=(0.0,) * 4, **heads)
        for width in (8, 16, 32)
    ]
    features = scale_of(networks).transform(describe(networks))
    # The head width follows the width, too.
    assert features.coordinates.tolist() == pytest.approx(np.array([[0.0], [0.5], [1.0]]))


def test_widths_that_are_free_are_a_coordinate_each():
    networks = [
        dataclasses.replace(TINY, embed_dims=(a, b, 64, 128), num_heads=(1, 1, 4, 8))
        for a in (8, 16)
        for b in (8, 16, 32)
    ]
    assert scale_of(networks).transform(describe(networks)).coordinates.shape == (6, 2)


def test_each_kind_of_attention_but_one_is_a_coordinate():
    networks = [
        dataclasses.replace(
            TINY, attention=("none", "none", kind, "none"), num_heads=(1, 2, 1, 8), window_size=(1,) * 4
        )
        for kind in ("msa", "sra", "xca", "msa")
    ]
    features = scale_of(networks).transform(describe(networks))
    assert {tuple(column) for column in features.coordinates.T} == {(0, 1, 0, 0), (0, 0, 1, 0)}


def test_an_anchor_outside_lies_outside_the_scale():
    wide = dataclasses.replace(TINY, embed_dims=(128, 256, 512, 1024))
    features = scale_of(draw_archs(200)).transform(describe([wide, TINY]))
    assert features.coordinates[0].max() > 1
    assert 0 <= features.coordinates[1].min() <= features.coordinates[1].max() <= 1
    assert features.costs[0].min() > 1


def test_a_kind_of_attention_that_the_space_lacks_has_finite_features():
    other = dataclasses.replace(TINY, attention=("none", "none", "sra", "hilo"))
    features = scale_of(draw_archs(200)).transform(describe([other]))
    assert np.isfinite(features.coordinates).all()


def test_numbers_are_equal_for_equal_networks_alone():
    networks = [*draw_archs(100), *draw_archs(100)[:20]]
    ids = scale_of(networks).transform(describe(networks)).ids
    assert len(set(ids)) == 100
    assert ids[100:].tolist() == ids[:20].tolist()


def test_no_networks_have_features_of_the_same_width():
    scale = scale_of(draw_archs(50))
    empty, some = scale.transform([]), scale.transform(describe([build_arch(3)]))
    assert len(empty) == 0
    assert empty.coordinates.shape[1] == some.coordinates.shape[1]
    assert empty.costs.shape[1] == some.costs.shape[1] == 2


def test_a_single_network_has_no_coordinates():
    features = scale_of([TINY]).transform(describe([TINY]))
    assert features.coordinates.shape == (1, 0)
    assert features.costs.tolist() == [[0.0, 0.0]]
