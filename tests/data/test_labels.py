"""Shards of images with label files next to them."""

from __future__ import annotations

import json

import pytest
from packed import PETS, pack, pack_zip, png, read, write

from hilo_nas.data.readers import open_source
from hilo_nas.data.sources import parse_source
from hilo_nas.errors import DataError

KINDS = ("cat", "dog")


def shard(ending: str, labels: list[object], start: int = 0, prefix: str = "") -> dict[str, bytes]:
    """Returns images with label files, as webdataset writes them."""
    files = {}
    for i, label in enumerate(labels, start):
        files[f"{prefix}{i:03d}.png"] = png(i)
        files[f"{prefix}{i:03d}.{ending}"] = label if isinstance(label, bytes) else str(label).encode()
    return files


def classes_of(path, **options):
    source, members = read(path, **options)
    assert all(isinstance(content, bytes) for content in members.values())
    return source.class_counts


@pytest.mark.parametrize(
    ("ending", "label", "name"),
    [
        ("cls", "{}", "0"),
        ("cls", " {}\n", "0"),
        ("cls", "00{}", "0"),
        ("cls", "cat {}", "cat 0"),
        ("cls", "1_{}", "1_0"),
        ("json", '{{"label": "1_{}"}}', "1_0"),
        ("txt", "cat {}", "cat 0"),
        ("txt", "{}", "0"),
        ("class.txt", "{}", "0"),
        ("label", "{}", "0"),
        ("json", '{{"label": {}}}', "0"),
        ("json", '{{"label": "cat {}"}}', "cat 0"),
        ("json", '{{"cls": {}, "width": 4}}', "0"),
        ("json", '{{"Class": "cat {}", "id": 7}}', "cat 0"),
        ("json", '{{"label": {}, "class_name": "cat {}"}}', "cat 0"),
        ("json", '{{"label": [{}]}}', "0"),
        ("json", '{{"label": {{"name": "x", "label": {}}}}}', "0"),
        ("json", "{}", "0"),
        ("json", '{{"target": {}.0}}', "0"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "wds/"])
def test_labels_are_read_as_integer_as_name_and_from_json(tmp_path, ending, label, name, prefix):
    labels = [label.replace("{}", str(i % 2)).replace("{{", "{").replace("}}", "}") for i in range(6)]
    other = name.replace("0", "1")
    pack(tmp_path / "pets-000.tar", shard(ending, labels[:4]))
    pack(tmp_path / "pets-001.tar", shard(ending, labels[4:], start=4))
    assert classes_of(f"{prefix}{tmp_path}") == {name: 3, other: 3}
    if not prefix:
        assert classes_of(tmp_path / "pets-000.tar") == {name: 2, other: 2}


def test_images_keep_their_names_and_bytes_and_label_files_are_not_counted_as_passed_over(tmp_path):
    path = pack(tmp_path / "pets.tar", {**shard("cls", [0, 1, 0]), "000.txt": b"a cat", "readme.md": b""})
    source, members = read(path)
    assert members == {f"{i:03d}.png": png(i) for i in range(3)}
    assert source.skipped == {".txt": 1, ".md": 1}
    assert "label files, such as 000.cls" in source.class_level


def test_training_shards_are_chosen_by_their_names_and_their_folders(tmp_path):
    for number, name in enumerate(("pets-train-0.tar", "pets-train-1.tar", "pets-test-0.tar", "pets-val-0.tar")):
        pack(tmp_path / "flat" / name, shard("cls", [0, 1], start=10 * number))
    source, members = read(tmp_path / "flat")
    assert {*members} == {
        "pets-train-0/000.png",
        "pets-train-0/001.png",
        "pets-train-1/010.png",
        "pets-train-1/011.png",
    }
    assert "pets-test-0 (2 images) and pets-val-0 (2 images) are left out" in source.split
    for split in ("train", "test"):
        pack(tmp_path / "deep" / split / "0.tar", shard("cls", [0, 1]))
    assert {*read(tmp_path / "deep")[1]} == {"train/0/000.png", "train/0/001.png"}


def test_a_test_folder_next_to_labelled_images_is_left_out_and_named(tmp_path):
    files = shard("cls", [i % 2 for i in range(8)]) | shard("cls", [0, 1] * 2, start=10, prefix="test/")
    source, members = read(write(tmp_path / "pets", files))
    assert {*members} == {f"{i:03d}.png" for i in range(8)}
    assert source.split == "test (4 images) is left out"


def test_shards_may_be_compressed_and_zipped_and_have_folders_in_them(tmp_path):
    pack(tmp_path / "000.tar.gz", shard("cls", [0, 1], prefix="n01/"), "w:gz")
    pack_zip(tmp_path / "001.zip", shard("cls", [0, 1], prefix="n02/"))
    assert classes_of(tmp_path) == {"0": 2, "1": 2}


def test_a_split_described_by_timm_is_read_as_described(tmp_path):
    for name in ("a.tar", "b.tar", "c.tar"):
        pack(tmp_path / name, shard("json", ['{"label": "x", "kind": 0}', '{"label": "y", "kind": 1}']))
    part = {"filenames": ["a.tar", "b.tar"], "alt_label": "kind"}
    (tmp_path / "_info.json").write_text(
        json.dumps({"splits": {"train": part, "validation": {"filenames": ["c.tar"]}}})
    )
    assert classes_of(f"wds/{tmp_path}") == {"0": 2, "1": 2}


def test_images_without_a_label_are_left_out_and_reported(tmp_path):
    path = pack(tmp_path / "pets.tar", {**shard("cls", [0, 1, 0, 1]), "lost.png": png(9)})
    source, members = read(path)
    assert len(members) == 4
    assert source.left_out == ("1 image has no label file and is left out",)


def test_images_without_a_label_of_a_class_are_left_out_and_reported(tmp_path):
    source, members = read(pack(tmp_path / "pets.tar", shard("cls", [0, 1, -1, 0, 1, -1])))
    assert source.class_counts == {"0": 2, "1": 2}
    assert len(members) == 4
    assert source.left_out == ("left out because their label is negative, which means no class: 2 images",)


def test_of_an_image_and_a_mask_of_one_key_the_image_is_read_and_of_several_views_all(tmp_path):
    files = shard("cls", [0, 1, 0, 1])
    masks = {f"{i:03d}.seg.png": png(99) for i in range(4)}
    source, members = read(pack(tmp_path / "pets.tar", files | masks))
    assert png(99) not in members.values()
    assert source.class_counts == {"0": 2, "1": 2}
    assert source.left_out == ("left out as views or masks of another image: 4, such as 000.seg.png next to 000.png",)
    views = {name.replace(".png", f".{side}.png"): content for name, content in files.items() for side in ("l", "r")}
    source, _members = read(pack(tmp_path / "views.tar", views))
    assert source.class_counts == {"0": 4, "1": 4}


@pytest.mark.parametrize("where", ["tar", "folder"])
def test_captions_and_boxes_next_to_images_in_class_folders_are_no_labels(tmp_path, where):
    files = PETS | {name.replace(".png", ".txt"): b"0 .5 .5 1 1" for name in PETS}
    path = pack(tmp_path / "pets.tar", files) if where == "tar" else write(tmp_path / "pets", files)
    source, _members = read(path)
    assert source.class_counts == {"cat": 3, "dog": 3}
    assert source.skipped == {".txt": 6}


@pytest.mark.parametrize(
    ("ending", "labels", "message"),
    [
        ("json", ['{"width": 3}', '{"width": 4}'], r"(?s)hold no class:.*000\.json .*only width"),
        ("json", ['{"label": [1, 2]}', '{"label": 1}'], r"000\.json .*one class, but got \[1, 2\]"),
        ("json", ["{", "1"], r"000\.json"),
        ("cls", ["", "1"], r"000\.cls .*but got ''"),
        ("cls", [b"\xff\xfe\x00", "1"], r"000\.cls"),
        ("txt", [f"caption {i}" for i in range(40)], "40 different texts .*captions"),
        ("json", ['{"label": 1.5}', "1"], "must be an integer or a name"),
    ],
)
def test_what_is_no_label_is_refused_with_file_and_reason(tmp_path, ending, labels, message):
    path = pack(tmp_path / "pets.tar", shard(ending, labels))
    with pytest.raises(DataError, match=message):
        read(path)


def test_a_single_class_is_refused_without_a_word_of_folders(tmp_path, prepare):
    with pytest.raises(DataError, match=r"has one: '0' \(the label file next to each image must name its class\)\.$"):
        prepare(pack(tmp_path / "pets.tar", shard("cls", [0, 0])))


def test_shards_without_labels_are_refused_with_what_they_hold(tmp_path):
    pack(tmp_path / "000.tar", {"0.png": png(0), "0.npy": b""})
    with pytest.raises(DataError, match=r"000\.cls.*holds 1 \.npy"):
        open_source(parse_source(f"wds/{tmp_path}"))
    with pytest.raises(DataError, match="no training shards"):
        open_source(parse_source(f"wds/{write(tmp_path / 'none', {'a.txt': b''})}"))
