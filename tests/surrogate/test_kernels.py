import dataclasses

import numpy as np
import pytest
from builders import TINY
from known_networks import describe, draw_archs, scaled

from hilo_nas.surrogate.features import FeatureScale
from hilo_nas.surrogate.kernels import KERNELS
from hilo_nas.surrogate.network_model import compute_kernels

NETWORKS = [*draw_archs(60), *draw_archs(60)[:5]]
"""Networks of which five come twice."""


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_is_symmetric_and_positive_semidefinite(name):
    features = scaled(NETWORKS)
    kernel_NN = KERNELS[name](features, features)
    assert kernel_NN == pytest.approx(kernel_NN.T, abs=1e-12)
    assert np.linalg.eigvalsh(kernel_NN).min() > -1e-6


@pytest.mark.parametrize("name", sorted(KERNELS.keys() - {"linear"}))
def test_a_network_has_the_kernel_1_with_itself_and_with_equal_ones(name):
    features = scaled(NETWORKS)
    kernel_NN = KERNELS[name](features, features)
    assert np.diag(kernel_NN) == pytest.approx(1, abs=1e-6)
    assert kernel_NN[np.arange(5), np.arange(60, 65)] == pytest.approx(1, abs=1e-6)
    assert kernel_NN.max() <= 1 + 1e-9
    assert kernel_NN.min() >= 0


def test_the_linear_kernel_has_a_mean_of_1_over_the_networks_of_its_scale():
    scale = FeatureScale(describe(NETWORKS))
    features = scale.transform(describe(NETWORKS))
    assert np.diag(KERNELS["linear"](features, features)).mean() == pytest.approx(1)


def test_a_deviation_belongs_to_one_network():
    features = scaled(NETWORKS)
    equal_NN = np.array([[a.key() == b.key() for a in NETWORKS] for b in NETWORKS])
    assert KERNELS["own"](features, features).tolist() == equal_NN.astype(float).tolist()


def test_networks_that_differ_more_are_less_alike():
    deeper = dataclasses.replace(TINY, depths=(1, 1, 3, 1))
    other = dataclasses.replace(TINY, depths=(2, 2, 4, 2), alpha=(0.0,) * 4, mlp_ratios=(2.0,) * 4)
    features = scaled([TINY, TINY, deeper, other])
    for name in ("additive", "smooth", "rough"):
        same, near, far = KERNELS[name](features, features)[0, 1:]
        assert same == pytest.approx(1)
        assert same > near > far


def test_the_rough_kernel_falls_faster_than_the_smooth_one():
    features = scaled(NETWORKS)
    smooth_NN, rough_NN = (KERNELS[name](features, features) for name in ("smooth", "rough"))
    assert np.all(rough_NN <= smooth_NN + 1e-9)
    assert rough_NN.mean() < smooth_NN.mean()


def test_kernels_of_two_sets_are_parts_of_that_of_their_union():
    whole_KNN = compute_kernels(scaled(NETWORKS), scaled(NETWORKS))
    part_KNM = compute_kernels(scaled(NETWORKS[:40]), scaled(NETWORKS[40:]))
    assert part_KNM.shape == (len(KERNELS), 40, 25)
    assert part_KNM == pytest.approx(whole_KNN[:, :40, 40:])
