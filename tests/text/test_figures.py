"""Figures as people read them: rounding never says more than is known."""

import pytest

from hilo_nas.text.figures import figure, probability_text, share_text, with_spread


@pytest.mark.parametrize(
    ("probability", "text", "short"),
    [
        (0.0, "less than 1%", "<1%"),
        (0.004, "less than 1%", "<1%"),
        (0.0496, "4.9%", "4.9%"),
        (0.05, "5%", "5%"),
        (0.5, "50%", "50%"),
        (0.945, "94%", "94%"),
        (0.9496, "94.9%", "94.9%"),
        (0.94999999, "94.9%", "94.9%"),
        (0.95, "95%", "95%"),
        (0.987, "99%", "99%"),
        (0.996, "more than 99%", ">99%"),
        (1.0, "more than 99%", ">99%"),
    ],
)
def test_a_probability_is_rounded_neither_to_certainty_nor_up_to_a_threshold(probability, text, short):
    assert probability_text(probability) == text
    assert probability_text(probability, is_short=True) == short


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0%"), (0.003, "less than 1%"), (0.5, "50%"), (0.9496, "95%"), (0.997, "more than 99%"), (1.0, "100%")],
)
def test_a_share_is_none_or_all_only_where_it_is(share, text):
    assert share_text(share) == text


@pytest.mark.parametrize(
    ("value", "half_width", "text"),
    [(12190.4, 120.2, "12,190 ± 120"), (900.0, 36.0, "900 ± 36"), (1.5, 0.25, "1.50 ± 0.25"), (None, 1.0, "-")],
)
def test_a_speed_is_shown_with_its_spread_and_no_exponent(value, half_width, text):
    assert with_spread(value, half_width) == text


def test_a_number_has_no_exponent():
    assert [figure(value) for value in (None, 0, 12194.0, 0.12345)] == ["-", "0", "12,190", "0.1235"]


@pytest.mark.parametrize(
    ("value", "half_width", "text"),
    [(299.0, 364.0, "299 ×/÷ 3.4"), (2814, 1987, "2,814 ×/÷ 2.0"), (100, 50, "100 ± 50")],
)
def test_an_interval_that_is_wide_for_its_value_does_not_reach_below_nothing(value, half_width, text):
    assert with_spread(value, half_width) == text
