from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hilo_nas.data import CachedData, build
from hilo_nas.data.cache import load_arrays
from hilo_nas.data.held_out import split_held_out
from hilo_nas.data.sources import Sample, parse_source
from hilo_nas.errors import DataError
from hilo_nas.events import DataPrepared, Notice

TWO = {"cats": 3, "dogs": 4}


def arrays(data: CachedData) -> tuple[np.ndarray, np.ndarray]:
    _, pixels, labels, _ = load_arrays(Path(data.path))
    return pixels, labels


def break_image(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


# What is read.


def test_digits_become_colour_images_of_the_size_asked_for(prepare):
    data = prepare("digits", img_size=16)
    pixels, labels = arrays(data)
    assert pixels.shape == (1797, 16, 16, 3)
    assert pixels.dtype == np.uint8
    assert data.num_classes == 10
    assert data.name == "digits"
    assert not data.hflip
    assert (pixels[..., 0] == pixels[..., 2]).all()
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_a_folder_gives_one_class_per_subfolder(prepare, images, events):
    data = prepare(images.folder("pets", TWO))
    assert (data.name, data.class_names, data.n_images, data.hflip) == ("pets", ("cats", "dogs"), 7, True)
    assert np.bincount(arrays(data)[1]).tolist() == [3, 4]
    assert DataPrepared(done=7, total=7) in events


def test_prepared_data_survives_json_and_names_no_folder_but_the_cache(prepare, images, own_cache):
    data = prepare(images.folder("pets", TWO))
    fields = json.loads(json.dumps(data.to_dict()))
    assert CachedData.from_dict(fields) == data
    assert fields.pop("path").startswith(str(own_cache))
    assert str(images.root) not in json.dumps(fields)


def test_images_are_stored_as_they_are_where_the_size_fits(prepare, images):
    folder = images.folder("pets", TWO)
    pixels, labels = arrays(prepare(folder, img_size=12))
    stored = {(int(label), image.tobytes()) for label, image in zip(labels, pixels, strict=True)}
    given_images = {
        (index, np.asarray(Image.open(file)).tobytes())
        for index, name in enumerate(TWO)
        for file in (folder / name).iterdir()
    }
    assert stored == given_images


def test_numbered_classes_are_sorted_by_their_number(prepare, images):
    assert prepare(images.folder("numbers", {"10": 2, "9": 2, "1": 2})).class_names == ("1", "9", "10")


@pytest.mark.parametrize("held", ["test", "val", "validation"])
def test_a_folders_held_out_split_is_never_read(prepare, images, held):
    root = images.folder("pets", {f"train/{name}": count for name, count in TWO.items()})
    images.folder("pets", {f"{held}/{name}": count for name, count in TWO.items()}, seed=1)
    for file in (root / held).rglob("*.png"):
        break_image(file)
    data = prepare(root)
    assert (data.name, data.n_images, data.class_names) == ("pets", 7, ("cats", "dogs"))


def test_a_held_out_split_next_to_classes_is_left_out_and_reported(prepare, images, events):
    root = images.folder("pets", {**TWO, "val/cats": 2, "val/dogs": 2})
    assert prepare(root).n_images == 7
    assert any(isinstance(event, Notice) and event.level == "warning" and "val" in event.text for event in events)


def test_a_folder_with_nothing_but_a_test_split_is_refused(prepare, images):
    with pytest.raises(DataError, match="never reads"):
        prepare(images.folder("pets", {"test/cats": 2, "test/dogs": 2}))


def test_a_class_may_be_named_train(prepare, images):
    assert prepare(images.folder("vehicles", {"bus": 2, "train": 2})).class_names == ("bus", "train")


def test_a_tar_a_folder_of_tars_and_a_folder_give_the_same_content(prepare, images):
    folder = images.folder("pets", TWO)
    images.tar(folder, "packed/pets.tar")
    images.tar(folder / "cats", "tars/cats.tar")
    images.tar(folder / "dogs", "tars/dogs.tar")
    sources = (folder, images.root / "packed" / "pets.tar", images.root / "tars")
    assert len({prepare(source).content_hash for source in sources}) == 1


def test_a_tars_test_split_is_never_read(prepare, images):
    root = images.folder("pets", {f"train/{name}": count for name, count in TWO.items()})
    images.folder("pets", {"test/cats": 2}, seed=1)
    assert prepare(images.tar(root, "pets.tar")).n_images == 7
    split = images.root / "split"
    images.tar(root / "train", "split/train.tar")
    images.tar(root / "test", "split/test.tar")
    assert prepare(split).n_images == 7


def test_a_link_that_leads_nowhere_harms_only_where_an_image_is_wanted_of_it(prepare, images):
    folder = images.folder("pets", TWO)
    (folder / "notes.txt").symlink_to("nowhere")
    assert prepare(folder).n_images == 7
    (folder / "cats" / "lost.png").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"cats/lost\.png"):
        prepare(folder)


def test_images_without_a_class_folder_are_left_out_and_reported(prepare, images, events):
    root = images.folder("pets", TWO)
    shutil.copy(root / "cats" / "0.png", root / "preview.png")
    assert prepare(root).n_images == 7
    assert any(isinstance(event, Notice) and "no class folder" in event.text for event in events)


def test_torchvisions_sets_are_read_where_they_lie(prepare, images):
    raw = images.root / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 28, 28), dtype=np.uint8)
    labels = np.arange(8, dtype=np.uint8) % 2
    for split in ("train", "t10k"):
        header = b"\0\0\x08\x03" + np.array([8, 28, 28], dtype=">i4").tobytes()
        (raw / f"{split}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        header = b"\0\0\x08\x01" + np.array([8], dtype=">i4").tobytes()
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    data = prepare(f"torch/mnist:{images.root / 'data'}")
    assert (data.name, data.class_names, data.n_images) == ("torch/mnist", ("0 - zero", "1 - one"), 8)
    assert not data.hflip


# Content hash.


def test_the_content_hash_does_not_depend_on_place_file_names_or_image_size(prepare, images):
    folder = images.folder("pets", TWO)
    copy = images.root / "elsewhere" / "animals"
    shutil.copytree(folder, copy)
    for file in list((copy / "cats").iterdir()):
        file.rename(file.with_name(f"renamed-{file.name}"))
    first, second, larger = prepare(folder), prepare(copy), prepare(folder, img_size=16)
    assert first.content_hash == second.content_hash == larger.content_hash
    assert len({first.path, second.path, larger.path}) == 3
    assert (first.name, second.name) == ("pets", "animals")


def test_the_same_images_under_the_same_names_are_one_set_wherever_they_lie(prepare, images):
    folder = images.folder("pets", TWO)
    tar = images.tar(folder, "elsewhere/animals.tar")
    assert prepare(folder).path == prepare(tar).path


def test_the_content_hash_follows_every_image_and_class_name(prepare, images):
    folder = images.folder("pets", TWO)
    hashes = [prepare(folder).content_hash]
    shutil.copy(folder / "cats" / "0.png", folder / "cats" / "9.png")
    hashes.append(prepare(folder).content_hash)
    (folder / "cats").rename(folder / "lions")
    hashes.append(prepare(folder).content_hash)
    assert len(set(hashes)) == 3


# What is refused.


def test_a_broken_image_is_named(prepare, images):
    folder = images.folder("pets", TWO)
    break_image(folder / "dogs" / "2.png")
    break_image(folder / "cats" / "1.png")
    with pytest.raises(DataError, match=r"(?s)pets:\n.*cats/1.png.*dogs/2.png"):
        prepare(folder)


def test_a_broken_member_of_a_tar_is_named(prepare, images):
    folder = images.folder("pets", TWO)
    break_image(folder / "dogs" / "2.png")
    with pytest.raises(DataError, match=r"dogs/2\.png"):
        prepare(images.tar(folder, "pets.tar"))


def test_a_single_class_is_refused(prepare, images):
    with pytest.raises(DataError, match=r"two classes or more, but .* has one: 'cats' \(images must be in one sub"):
        prepare(images.folder("pets", {"cats": 3}))


def test_a_class_of_a_single_image_is_refused_unless_validation_data_is_there(prepare, images):
    folder = images.folder("pets", {"cats": 1, "dogs": 3})
    with pytest.raises(DataError, match=r"2 distinct images.*'cats' \(1 image\)"):
        prepare(folder)
    data = prepare(folder, val_data=images.folder("more", {"cats": 1, "dogs": 1}, seed=1))
    assert (data.n_images, data.n_val_images) == (4, 2)


def test_an_empty_folder_is_refused(prepare, tmp_path):
    (tmp_path / "empty" / "cats").mkdir(parents=True)
    with pytest.raises(DataError, match="no images in"):
        prepare(tmp_path / "empty")


def test_an_empty_tar_is_refused(prepare, images):
    (images.root / "nothing").mkdir()
    with pytest.raises(DataError, match="no images in"):
        prepare(images.tar(images.root / "nothing", "nothing.tar"))


def test_an_empty_training_folder_is_refused(prepare, images):
    root = images.folder("pets", {"test/cats": 2, "test/dogs": 2, "cats": 2, "dogs": 2})
    (root / "train").mkdir()
    with pytest.raises(DataError, match="train is empty"):
        prepare(root)


def test_splits_that_hold_images_directly_are_refused(prepare, images):
    with pytest.raises(DataError, match="one subfolder per class"):
        prepare(images.folder("pets", {"train": 3, "test": 3}))


def test_a_tar_that_is_none_is_refused(prepare, tmp_path):
    (tmp_path / "pets.tar").write_bytes(b"this is no tar" * 100)
    with pytest.raises(DataError, match=r"the archive pets.tar cannot be read"):
        prepare(tmp_path / "pets.tar")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("digit", "no data at .*Did you mean digits?"),
        ("cifar-10", "Did you mean torch/cifar10?"),
        ("torch/cifar11", "Did you mean torch/cifar10"),
        ("torch/cifar10:/nowhere/at/all", "no data at '/nowhere/at/all'"),
        ("hfds/", "hfds/uoft-cs/cifar10"),
        ("wds/nowhere", "no data at 'nowhere'"),
        ("torch/mnist", "torch/NAME:DIR"),
        ("", "no such file or folder"),
    ],
)
def test_a_source_that_does_not_exist_is_refused_with_the_nearest_name(text, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        parse_source(text)


def test_a_mistyped_path_is_refused_with_the_nearest_name(images):
    folder = images.folder("flowers", TWO)
    with pytest.raises(DataError, match=f"Did you mean {folder}?"):
        parse_source(str(folder.parent / "flower"))


def test_a_packed_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "pets.7z").touch()
    with pytest.raises(DataError, match=r"must end in \.tar, .*\.zip .*Unpack it"):
        parse_source(str(tmp_path / "pets.7z"))


def test_a_torchvision_set_that_is_not_there_is_refused_with_the_place(prepare, tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=r"(?s)cifar10.*torch/cifar10:DIR"):
        prepare(f"torch/cifar10:{tmp_path / 'data'}")


# A separate validation source.


def test_validation_data_changes_the_content_hash(prepare, images):
    folder, other = images.folder("pets", TWO), images.folder("more", TWO, seed=1)
    alone, both = prepare(folder), prepare(folder, val_data=other)
    assert alone.content_hash != both.content_hash
    assert (both.n_images, both.n_val_images) == (7, 7)


def test_training_images_do_not_serve_as_validation_images(prepare, images):
    folder = images.folder("pets", TWO)
    with pytest.raises(DataError, match="must differ"):
        prepare(folder, val_data=folder)


def test_validation_images_of_an_unknown_class_are_refused(prepare, images):
    with pytest.raises(DataError, match="'cows'"):
        prepare(images.folder("pets", TWO), val_data=images.folder("more", {"cats": 2, "cows": 2}, seed=1))


# The split.


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(2, 12), min_size=2, max_size=5),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 1000),
)
def test_the_hold_out_is_stratified_disjoint_and_does_not_depend_on_order(counts, fraction, seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    digests = rng.integers(0, 2**63, (len(labels), 2), dtype=np.uint64)
    training, held_out = split_held_out(labels, digests, fraction)
    assert sorted([*training, *held_out]) == list(range(len(labels)))
    for label, count in enumerate(counts):
        held = int((labels[held_out] == label).sum())
        assert 1 <= held < count
        assert abs(held - count * fraction) <= 1
    order = rng.permutation(len(labels))
    again = split_held_out(labels[order], digests[order], fraction)
    for places, places_again in zip((training, held_out), again, strict=True):
        assert (digests[places] == digests[order][places_again]).all()


def test_large_files_are_held_in_small_groups():
    samples = [Sample("cat", str(number), bytes(10)) for number in range(150)]
    assert [len(group) for group in build._chunks(samples, 10**6)] == [64, 64, 22]
    assert [len(group) for group in build._chunks(samples[:10], 25)] == [3, 3, 3, 1]
