"""Which images train and which class each is of, as the folders and their names tell."""

from __future__ import annotations

import re

import pytest

from hilo_nas.data.splits import choose_labelled, choose_training, role_of
from hilo_nas.errors import DataError


@pytest.mark.parametrize(
    "name",
    [
        "train",
        "training",
        "Train",
        "TRAIN",
        "train2017",
        "seg_train",
        "_train",
        "train_images",
        "imgs-train",
        "TrainImages",
        "training_set",
        "trainset",
        "split=train",
        "train-00000-of-00001",
        "01_train",
        "trainval",
        "2017train",
        "pets.train",
        "IMGTrain",
        "Training Data",
    ],
)
def test_names_of_training_splits_are_known_by_their_words(name):
    assert role_of(name) == "train"


@pytest.mark.parametrize(
    "name",
    [
        "test",
        "testing",
        "val2017",
        "seg_test",
        "_test",
        "val_images",
        "valid",
        "Validation",
        "validation_set",
        "imgs-val",
        "ValImages",
        "TestData",
        "dev",
        "dev_set",
        "holdout",
        "hold_out",
        "held-out",
        "split=test",
        "eval",
        "PublicTest",
        "testset",
        "t_test2",
        "Test Data",
    ],
)
def test_names_of_held_out_splits_are_known_by_their_words(name):
    assert role_of(name) == "held"


@pytest.mark.parametrize(
    "name", ["contest", "trains", "latest", "attestation", "valley", "invalid", "device", "evaluator", "cat", "2021"]
)
def test_a_word_that_only_contains_a_splits_name_is_none(name):
    assert role_of(name) is None


def choose(paths, class_from=None, n_outer=None):
    """Returns the classes with their images, and the choice, of paths such as `train/cat*3` (three images)."""
    folders = []
    for path in paths:
        name, _, count = path.partition("*")
        folders += [tuple(name.split("/")) if name else ()] * int(count or 2)
    choice = choose_training("pets", folders, n_outer or [0] * len(folders), class_from)
    classes: dict[str, int] = {}
    for name in choice.classes.values():
        classes[name] = classes.get(name, 0) + 1
    return classes, choice


CAT_DOG = {"cat": 2, "dog": 2}


@pytest.mark.parametrize(
    ("train", "held"),
    [
        ("train", "test"),
        ("train2017", "val2017"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("_train", "_test"),
        ("train_images", "val_images"),
        ("Training Data", "Test Data"),
        ("training_set", "test_set"),
        ("imgs-train", "imgs-val"),
        ("TrainImages", "TestImages"),
        ("train", "dev"),
        ("train", "holdout"),
        ("split=train", "split=test"),
        ("images/train", "images/val"),
        ("dataset/Train", "dataset/Valid"),
        ("a/b/c/train", "a/b/c/test"),
        ("data/train_test_split/train", "data/train_test_split/test"),
        ("train/images", "test/images"),
        ("Training", "PublicTest"),
        ("Trainingsdaten", "Testdaten"),
        ("Trainings-Bilder", "Validierung"),
        ("entrenamiento", "prueba"),
        ("entrai\u0302nement", "e\u0301valuation"),
        ("treino", "teste"),
        ("训练集", "测试集"),
        ("labeled", "test"),
    ],
)
def test_of_a_folder_with_splits_the_training_part_alone_is_read_and_the_other_is_named(train, held):
    classes, choice = choose([f"{train}/cat", f"{train}/dog", f"{held}/cat*3", f"{held}/dog*4"])
    assert classes == CAT_DOG
    held_name = next(part for part in held.split("/") if role_of(part) == "held" and part != "train_test_split")
    assert f"{held_name} (7 images) is left out" in choice.split
    assert "train" in choice.split.lower()


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        # Classes whose name is that of a split.
        (["car", "bus", "train", "plane"], {"car": 2, "bus": 2, "train": 2, "plane": 2}),
        (["train/car", "train/train", "val/car", "val/train"], {"car": 2, "train": 2}),
        (["control", "test"], {"control": 2, "test": 2}),
        (["bus/2021", "bus/2022", "train/2021", "train/2022", "car/2021"], {"bus": 4, "train": 4, "car": 2}),
        (["car*9", "bus*9", "train/freight*4", "train/passenger*4"], {"car": 9, "bus": 9, "train": 8}),
        (["freight_train", "passenger_train"], {"freight_train": 2, "passenger_train": 2}),
        (["rapid_test", "train_station"], {"rapid_test": 2, "train_station": 2}),
        (["train_station/1", "park/1", "museum/1"], {"train_station": 2, "park": 2, "museum": 2}),
        (["control/1", "control/2", "test/1", "test/2"], {"control": 4, "test": 4}),
        # Splits next to other folders.
        (["train/cat", "train/dog", "test"], CAT_DOG),
        (["train/cat", "train/dog", "seg_pred*9"], CAT_DOG),
        (["train/cat", "train/dog", "unlabeled/unlabeled*9"], CAT_DOG),
        (["train/cat", "train/dog", "extra/cat", "extra/dog"], CAT_DOG),
        (["train/cat", "train/dog", "test/cat", "docs"], CAT_DOG),
        (["train/cat", "train/dog", "docs*1", "figures*1"], CAT_DOG),
        (["cat", "dog", "val/cat", "val/dog"], CAT_DOG),
        (["cat", "dog", "test/test*5"], CAT_DOG),
        (["cat", "dog", "train/cat", "train/dog"], CAT_DOG),
        (["images/cat", "images/dog", "val/cat", "val/dog"], CAT_DOG),
        (["data/train/cat", "data/train/dog", "data/test", "docs"], CAT_DOG),
        (["train_1/cat", "train_2/dog", "test_1/cat"], CAT_DOG),
        (["train_hq/cat*1", "train_hq/dog*1", "train_lq/cat*1", "train_lq/dog*1"], CAT_DOG),
        (["train_labeled/cat", "train_labeled/dog", "test_hidden"], CAT_DOG),
        (["freight_train/2021", "passenger_train/2021"], {"freight_train": 2, "passenger_train": 2}),
        (["train/cat", "train/dog", "later/cat", "later/dog"], CAT_DOG),
        (["one/cat", "one/dog", "test/cat", "test/dog"], CAT_DOG),
        # Splits inside the classes.
        (["cat/train/good", "cat/test/bad", "cat/truth/bad", "dog/train/good", "dog/test/bad"], CAT_DOG),
        (["cat/train", "cat/test", "dog/train", "dog/test"], CAT_DOG),
        (["cat/train/good", "cat/test/bad", "dog/train/good", "dog/test/good"], CAT_DOG),
        (["cat/train", "cat/test", "dog"], CAT_DOG),
        # Short words amid one another alone.
        (["tr/cat", "tr/dog", "te/cat", "te/dog"], CAT_DOG),
        (["TR/cat", "TR/dog", "VA/cat", "TE/cat"], CAT_DOG),
        (["tr/a", "te/a", "de/b"], {"tr": 2, "te": 2, "de": 2}),
        (["labeled/cat", "labeled/dog", "unlabeled/unlabeled*9"], CAT_DOG),
        # Masks beside images.
        (["images/cat", "images/dog", "masks/cat", "masks/dog"], CAT_DOG),
        (["images/train/cat", "images/train/dog", "masks/train/cat", "images/val/cat", "masks/val/dog"], CAT_DOG),
        (["train_images/cat", "train_images/dog", "train_masks/cat", "train_masks/dog"], CAT_DOG),
        (["cat/images", "cat/masks", "dog/images", "dog/ground_truth"], CAT_DOG),
        (["mask", "without_mask"], {"mask": 2, "without_mask": 2}),
        # Without splits.
        (["cat", "dog"], CAT_DOG),
        (["pets/cat", "pets/dog"], CAT_DOG),
        (["cat", "dog", ""], CAT_DOG),
        (["cat/2021", "cat/2022", "dog/2021"], {"cat": 4, "dog": 2}),
        (["dogs/other", "dogs/brown", "cats/other"], {"dogs": 4, "cats": 2}),
    ],
)
def test_classes_are_the_first_level_below_the_split(paths, expected):
    assert choose(paths)[0] == expected


def test_the_whole_path_names_the_class_where_the_user_says_so():
    classes, choice = choose(["train/dogs/brown", "train/dogs/other", "train/cats/other", "test/cats/other"], "path")
    assert classes == {"dogs/brown": 2, "dogs/other": 2, "cats/other": 2}
    assert "whole folder paths" in choice.class_level


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["cat", "dog"], ["classes are the folders"]),
        (["train/cat", "train/dog"], ["folders below train"]),
        (["cat/2021/may", "dog/2021"], ["first folder level", "3 levels deep", "data.class_from=path"]),
    ],
)
def test_the_level_of_the_classes_is_reported(paths, words):
    level = choose(paths)[1].class_level
    assert all(word in level for word in words), level


@pytest.mark.parametrize(
    ("paths", "sentence"),
    [
        (["cat", "dog"], ""),
        (["train/cat", "train/dog"], "train is used for training"),
        (["train/cat", "train/dog", "val/cat*1"], "train is used for training; val (1 image) is left out"),
        (
            ["train/cat", "train/dog", "val/cat", "test*3"],
            "train is used for training; val (2 images) and test (3 images) are left out",
        ),
        (["cat", "dog", "val/cat", "val/dog"], "val (4 images) is left out"),
        (["car", "train"], "train counts as a class, not as a split"),
        (["rapid_test", "train_station"], "train_station and rapid_test count as classes, not as splits"),
    ],
)
def test_one_sentence_tells_what_trains(paths, sentence):
    assert choose(paths)[1].split == sentence


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["cat", "dog", "val/cat", "val/dog"], ["pets/val", "never read"]),
        (["cat", "dog", ""], ["2 images", "no class folder"]),
        (["train/cat", "train/dog", "test/cat", "docs"], ["pets/docs (2 images)", "left out"]),
        (["train/cat", "train/dog", "train*3"], ["3 images of pets/train", "no class folder"]),
        (["images/cat", "images/dog", "masks/cat*3"], ["left out as masks: 3 in masks of pets"]),
    ],
)
def test_what_no_splits_name_explains_is_a_warning(paths, words):
    (warning,) = choose(paths)[1].left_out
    assert all(word in warning for word in words), warning


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (
            ["test/cat", "test/dog"],
            "only test, which a search never reads. To train on it, name the split itself: pets/test",
        ),
        (["val2017/cat", "seg_test/dog"], "never reads"),
        (["pets/validation/cat", "pets/validation/dog"], "never reads"),
        (["train", "test"], "one subfolder per class"),
        (["", ""], "must be in class folders"),
        (["seg_train/seg_train", "seg_test/seg_test"], "one subfolder per class"),
    ],
)
def test_what_has_no_training_images_or_no_classes_is_refused(paths, message):
    with pytest.raises(DataError, match=message):
        choose(paths)


CROSSED = {
    "sides": ["left/cat", "left/dog", "right/cat", "right/dog"],
    "folds": ["fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog"],
    "folds of numbers": ["fold1/0", "fold1/1", "fold2/0", "fold2/1"],
    "years above numbers": ["2021/0", "2021/1", "2022/0", "2022/1"],
    "years above": ["2021/cat", "2021/dog", "2022/cat", "2022/dog"],
    "some lack a class": ["p1/cat", "p1/dog", "p2/cat", "p3/dog"],
    "a level between": ["a/images/cat", "a/images/dog", "b/photos/cat", "b/photos/dog"],
    "a copy of the set within": ["cat", "dog", "pets/cat", "pets/dog"],
    "a held-out part beside": ["fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog", "test/cat", "test/dog"],
    "sides beside a held-out part": ["left/cat", "left/dog", "right/cat", "right/dog", "test/cat", "test/dog"],
    "a flat held-out part beside": ["left/cat", "left/dog", "right/cat", "right/dog", "test"],
}


@pytest.mark.parametrize("kind", CROSSED)
def test_two_levels_that_may_both_be_classes_are_reported_and_either_can_be_chosen(kind):
    ways = r"data\.class_from=last.*data\.class_from=(first|path)"
    if "sides" in kind:  # as cats/other and dogs/other are: the first level, as elsewhere
        classes, choice = choose(CROSSED[kind])
        assert {*classes} == {"left", "right"}
        assert re.search(ways, choice.left_out[-1])
    else:
        with pytest.raises(DataError, match=ways):
            choose(CROSSED[kind])
    classes, choice = choose(CROSSED[kind], "last")
    names = {"0", "1"} if "numbers" in kind else {"cat", "dog"}
    assert classes == dict.fromkeys(names, 4)
    assert "innermost folders" in choice.class_level
    if "held-out" in kind:
        assert choice.split.startswith("test (")
        assert "left out" in choice.split
    tops = {path.split("/")[0] for path in CROSSED[kind]} - {"test"}
    first = {*choose(CROSSED[kind], "first")[0]}
    assert first == tops | ({"test"} if "flat" in kind else set())


@pytest.mark.parametrize(
    "paths",
    [
        ["cat/2021", "cat/2022", "dog/2021", "dog/2022"],
        ["cat/2021-05", "cat/2021-06", "dog/2021-05", "dog/2021-06"],
        ["0/1", "0/2", "1/1", "1/2"],
        ["cat/id1", "cat/id2", "dog/id1", "dog/id2"],
        ["grade1/1", "grade1/2", "grade2/1", "grade2/2"],
        ["cat/good", "dog/good"],
        ["dogs/other", "dogs/brown", "cats/other"],
        ["cat/images", "cat/crops", "dog/images", "dog/crops", "owl"],
    ],
)
def test_folders_that_only_number_the_images_of_a_class_leave_no_doubt(paths):
    assert {*choose(paths)[0]} == {path.split("/")[0] for path in paths}


@pytest.mark.parametrize("text", ["seg_test", "a/b/val2017", "pets_test.tar", "wds/Test Data"])
def test_a_held_out_split_that_the_user_names_is_read(text):
    inner = ["test/cat", "test/cat", "test/dog"]
    choice = choose_training(text, [tuple(path.split("/")) for path in inner], [0] * 3)
    assert [*choice.classes.values()] == ["cat", "cat", "dog"]
    choice = choose_training(text, [("test_0", "cat"), ("test_1", "dog")], [0] * 2)
    assert [*choice.classes.values()] == ["cat", "dog"]
    assert [*choose_labelled(text, [("test-0",), ("test-1",)], ["cat", "dog"]).classes] == [0, 1]
    choice = choose_training(text, [("train", "cat"), ("test", "cat"), ("test", "dog")], [0] * 3)
    assert [*choice.classes] == [0]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["pets-test-0", "pets-train-0", "extra"], ["pets-train-0"]),
        (["contest-0", "validation_0"], ["contest-0"]),
        (["0", "1", "2"], ["0", "1", "2"]),
        (["train_0", "train_1", "val_0"], ["train_0", "train_1"]),
        (["TrainShards-0", "TestShards-0"], ["TrainShards-0"]),
    ],
)
def test_training_shards_are_recognized_by_their_names_and_never_name_classes(names, expected):
    choice = choose_labelled("pets", [(name,) for name in names], ["cat"] * len(names))
    assert [names[place] for place in choice.classes] == expected
    folders = [(name, kind) for name in names for kind in ("cat", "dog")]
    choice = choose_training("pets", folders, [1] * len(folders))
    assert {*choice.classes.values()} == {"cat", "dog"}
    assert {folders[place][0] for place in choice.classes} == {*expected}


@pytest.mark.parametrize(
    ("folders", "expected", "split", "warning"),
    [
        (
            ["", "", "test", "test", "train"],
            [4],
            "train is used for training; test (2 images) is left out",
            "2 images of pets are next to",
        ),
        (
            ["", "test", "train"],
            [2],
            "train is used for training; test (1 image) is left out",
            "1 image of pets is next to",
        ),
        (["", "", "test", "val"], [0, 1], "test (1 image) and val (1 image) are left out", None),
        (["data", "data/test"], [0], "test (1 image) is left out", None),
        (["data", "more/test", "more/b"], [0, 2], "test (1 image) is left out", None),
        (["", "a/b/val", "a/b"], [0, 2], "val (1 image) is left out", None),
        (["", "extra", "b"], [0, 2], "extra (1 image) is left out", None),
    ],
)
def test_labelled_images_above_the_splits_hide_none(folders, expected, split, warning):
    parts = [tuple(name.split("/")) if name else () for name in folders]
    choice = choose_labelled("pets", parts, ["x"] * len(parts))
    assert [*choice.classes] == expected
    assert choice.split == split
    assert [text.startswith(warning) for text in choice.left_out] == [True] * (warning is not None)


def test_a_shard_above_the_others_hides_no_split():
    shards = [("a", "cat"), ("a", "dog"), ("more", "train", "cat"), ("more", "test", "owl")]
    assert [*choose_training("pets", shards, [1, 1, 2, 2]).classes.values()] == ["cat"]
    shards = [("a", "cat", "1"), ("a", "dog", "1"), ("more", "test", "owl", "1")]
    assert [*choose_training("pets", shards, [1, 1, 2]).classes.values()] == ["cat", "dog"]


def test_splits_of_folders_around_shards_count():
    folders = [("train", "0"), ("train", "1"), ("test", "0")]
    assert [*choose_labelled("pets", folders, ["x"] * 3).classes] == [0, 1]
    with pytest.raises(DataError, match="never reads"):
        choose_labelled("pets", [("test", "0"), ("val", "0")], ["x", "y"])
