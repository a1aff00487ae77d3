"""Standard errors that hold for few held-out images, and what cannot be told from guessing."""

import math

import pytest
from builders import build_score
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest


@given(st.integers(1, 400), st.floats(0, 1))
def test_the_error_of_a_top1_is_that_of_wilsons_interval(n, share):
    right = round(n * share)
    value = right / n
    score = build_score(value, n_val=n, standard_error=math.sqrt(value * (1 - value) / n))
    interval = binomtest(right, n).proportion_ci(method="wilson")
    assert score.interval_error == pytest.approx((interval.high - interval.low) / 2 / 1.96, rel=1e-3)
    assert score.half_width == pytest.approx((interval.high - interval.low) / 2, rel=1e-3)
    assert score.interval_error > 0


def test_for_many_images_the_error_is_the_stored_one():
    score = build_score(0.5, n_val=10_000, standard_error=0.005)
    assert score.interval_error == pytest.approx(0.005, rel=1e-3)


def test_a_balanced_score_has_the_error_of_each_classs_interval():
    perfect = build_score(1.0, metric="balanced", n_val=80, standard_error=0.0, chance=0.1)
    of_class = build_score(1.0, n_val=8, standard_error=0.0)
    assert perfect.interval_error == pytest.approx(of_class.interval_error / math.sqrt(10))


@pytest.mark.parametrize("metric", ["likelihood", "naswot"])
def test_other_scores_keep_their_own_error(metric):
    assert build_score(0.3, metric=metric, standard_error=0.02, chance=0.1).interval_error == 0.02


@pytest.mark.parametrize(
    ("value", "n_val", "chance", "guesses"),
    [
        (0.1, 400, 0.1, True),
        (0.12, 400, 0.1, True),
        (0.14, 400, 0.1, False),
        (0.05, 400, 0.1, True),
        (0.9, 400, 0.9, True),  # of the largest class
        (1.0, 8, 0.9, True),
        (1.0, 8, 0.5, False),
        (0.1, 400, None, False),
    ],
)
def test_a_score_whose_interval_includes_guessing_did_not_train(value, n_val, chance, guesses):
    error = math.sqrt(value * (1 - value) / n_val)
    assert build_score(value, n_val=n_val, standard_error=error, chance=chance).is_at_chance == guesses
