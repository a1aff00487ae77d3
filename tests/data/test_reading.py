"""Choices of the user about how images are read."""

import pytest

from hilo_nas.data.reading import ReadOptions, parse_range, render_range
from hilo_nas.errors import UsageError


def test_options_are_stored_as_far_as_they_differ_from_the_defaults():
    assert ReadOptions().to_dict() == {}
    options = ReadOptions(class_from="path", background="#336699", value_range=(0.0, 4095.0), skip_broken=True)
    assert options.to_dict()["value_range"] == [0.0, 4095.0]
    assert ReadOptions.from_dict(options.to_dict()) == options


def test_all_that_cannot_be_is_refused_at_once():
    with pytest.raises(UsageError) as caught:
        ReadOptions(class_from="leaf", background="whitish", value_range=(5.0, 5.0))
    assert str(caught.value).split("\n") == [
        "class_from must be one of first, last, path, but got 'leaf'",
        "background must be a color such as white, gray or #336699, but got 'whitish'",
        "value_range must be two increasing numbers, but got 5,5",
    ]


def test_a_range_is_two_numbers():
    assert parse_range("0,4095") == (0.0, 4095.0)
    assert parse_range("-1.5, 2e3") == (-1.5, 2000.0)


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ((0.0, 4095.0), "0,4095"),
        ((-0.5, 1234567.0), "-0.5,1234567"),
        ((0.1 + 0.2, 2**53), "0.30000000000000004,9007199254740992"),
    ],
)
def test_a_range_is_written_as_it_is_read(bounds, text):
    assert render_range(*bounds) == text
    assert parse_range(text) == bounds


@pytest.mark.parametrize("text", ["", "5", "0,1,2", "a,b", "0,inf", "nan,1"])
def test_what_is_no_range_is_refused(text):
    with pytest.raises(UsageError, match=r"value_range must be two numbers LOW,HIGH such as 0,4095"):
        parse_range(text)
