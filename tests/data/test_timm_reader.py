"""Why timm's reader would read a source otherwise."""

from __future__ import annotations

import pytest
from PIL import Image

OTHER_FORMATS = "there are images in other formats than .png and .jpg"
OTHER_CLASSES = "classes are not the folders that hold the images"
A_PART = "only a part of the images is for training"


def test_a_plain_folder_is_read_alike(prepare, images):
    assert prepare(images.folder("pets", {"cats": 3, "dogs": 3})).unlike_timm == ()
    assert prepare(images.folder("split", {"train/cats": 3, "train/dogs": 3})).unlike_timm == ()


def test_other_formats_are_reported(prepare, images):
    folder = images.folder("pets", {"cats": 3, "dogs": 3})
    Image.new("RGB", (8, 8)).save(folder / "cats" / "more.webp", lossless=True)
    assert prepare(folder).unlike_timm == (OTHER_FORMATS,)


def test_classes_above_the_leaf_folders_are_reported(prepare, images):
    folder = images.folder("pets", {"cats/2021": 3, "cats/2022": 3, "dogs/2021": 3})
    assert prepare(folder).unlike_timm == (OTHER_CLASSES,)


def test_splits_that_timm_does_not_know_are_reported(prepare, images):
    splits = {"seg_train/cats": 3, "seg_train/dogs": 3, "seg_test/cats": 3, "seg_test/dogs": 3}
    assert prepare(images.folder("pets", splits)).unlike_timm == (A_PART,)


@pytest.mark.parametrize(("source", "reason"), [("digits", "the images are in scikit-learn")])
def test_what_is_no_file_is_reported(prepare, source, reason):
    assert prepare(source).unlike_timm == (reason,)


def test_classes_left_out_are_reported(prepare, images):
    data = prepare(images.folder("pets", {"cats": 3, "dogs": 3, "emus": 1}), skip_broken=True)
    assert data.unlike_timm == ("broken images or classes are left out",)
