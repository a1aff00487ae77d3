"""Durations as users write them."""

import pytest

from hilo_nas.errors import UsageError
from hilo_nas.text.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("90", 90), ("1.5", 1.5), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400), ("1h30m", 5400)],
        *[(" 1h 30m 5s ", 5405), ("1d12h", 129600), ("0.5h", 1800), ("1m0s", 60)],
    ],
)
def test_durations_are_read_with_their_units(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0h0m", "1h30", "30m1h", "1h1h", "-5m", "1e3", "nan", "inf", "soon", "5 w"])
def test_what_is_no_duration_is_refused_with_examples(text):
    with pytest.raises(UsageError, match="such as 90s, 30m or 1h30m, but got"):
        parse_duration(text)
