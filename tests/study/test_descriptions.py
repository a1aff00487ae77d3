"""Figures and sentences as people read them."""

import pytest
from builders import build_data, build_manifest

from hilo_nas.study.descriptions import describe_proxy


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({}, "on held-out images of the training split"),
        ({"n_scored": 1360}, "on 1,360 held-out images of the training split"),
        ({"n_scored": 12, "val_name": "val.tar"}, "on the 12 images of data.val_source (val.tar)"),
    ],
)
def test_scores_are_named_by_the_images_that_they_are_taken_on(fields, end):
    assert describe_proxy(build_manifest(data=build_data(**fields))).endswith(end)
