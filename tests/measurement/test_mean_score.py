"""One score in the place of several seeds'."""

import math

import pytest
from builders import build_score

from hilo_nas.measurement import ProxyScore, mean_score


def test_one_seed_stands_for_itself():
    score = build_score(0.5)
    assert mean_score([score]) is score
    assert mean_score([score], seed_noise=0.0) is score


def test_several_seeds_have_their_mean_and_the_error_of_images_and_seeds():
    scores = [
        build_score(top1, seed=seed, standard_error=0.003, loss=loss, seconds=10.0)
        for seed, (top1, loss) in enumerate([(0.50, 1.0), (0.52, 2.0), (0.54, None)])
    ]
    mean = mean_score(scores)
    assert (mean.value, mean.loss, mean.seconds, mean.seeds) == (pytest.approx(0.52), 1.5, 30.0, 3)
    assert mean.standard_error == pytest.approx(math.hypot(0.003, 0.02 / math.sqrt(3)))


def test_noise_that_is_known_better_takes_the_place_of_the_seeds_own_spread():
    equal = [build_score(0.5, seed=seed, standard_error=0.003) for seed in (0, 1)]
    assert mean_score(equal).standard_error == pytest.approx(0.003)
    assert mean_score(equal, seed_noise=0.02).standard_error == pytest.approx(math.hypot(0.003, 0.02 / math.sqrt(2)))
    assert mean_score(equal[:1], seed_noise=0.02).standard_error == pytest.approx(math.hypot(0.003, 0.02))


def test_the_drop_of_several_seeds_is_that_of_their_means():
    scores = [
        build_score(value, seed=seed, float_value=value + 0.02, drop_error=0.004)
        for seed, value in enumerate([0.4, 0.5])
    ]
    mean = mean_score(scores)
    assert (mean.value, mean.float_value) == (pytest.approx(0.45), pytest.approx(0.47))
    assert mean.drop_error == pytest.approx(0.004)
    assert mean_score([build_score(0.4), build_score(0.5, seed=1)]).float_value is None


def test_the_mean_names_each_layer_that_stayed_in_float_with_any_seed():
    scores = [
        build_score(0.4, seed=seed, float_layers=names) for seed, names in enumerate([("a", "b"), ("b", "c"), ()])
    ]
    assert mean_score(scores).float_layers == ("a", "b", "c")
    assert ProxyScore.from_dict(scores[0].to_dict()) == scores[0]
    assert "float_layers" not in scores[2].to_dict()
