"""Numbers with their nouns and verbs."""

from __future__ import annotations

import pytest

from hilo_nas.text.plurals import agree, count_of


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "0 classes are"), (1, "1 class is"), (2, "2 classes are"), (1500, "1,500 classes are")]
)
def test_nouns_and_verbs_go_with_their_number(number, expected):
    assert f"{count_of(number, 'class', 'classes')} {agree(number, 'is', 'are')}" == expected


def test_a_plural_ends_in_s_where_no_other_is_given():
    assert (count_of(1, "image"), count_of(2, "image")) == ("1 image", "2 images")
