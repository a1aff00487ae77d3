"""What lies in folders: found, counted, and never opened where it is no file."""

from __future__ import annotations

import os
import socket
import sys
import unicodedata

import pytest
from packed import PETS, png, read, write
from PIL import Image

from hilo_nas.data.decode import decode_image
from hilo_nas.data.formats import archive_stem, image_endings, is_litter
from hilo_nas.data.sources import parse_source, read_fingerprint
from hilo_nas.data.walk import walk_files
from hilo_nas.errors import DataError

# Formats.


@pytest.mark.parametrize(
    "ending",
    [
        ".png",
        ".jpg",
        ".jpeg",
        ".jfif",
        ".jpe",
        ".webp",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".gif",
        ".ppm",
        ".pgm",
        ".pbm",
        ".tga",
        ".ico",
        ".jp2",
        ".pcx",
        ".mpo",
    ],
)
def test_what_pillow_opens_is_an_image(ending):
    assert ending in image_endings()


@pytest.mark.parametrize("ending", [".h5", ".hdf", ".grib", ".bufr", ".mpg", ".mpeg", ".txt", ".npy", ".pdf", ".csv"])
def test_what_pillow_only_knows_by_name_is_none(ending):
    assert ending not in image_endings()


def test_images_of_every_format_are_read_and_other_files_are_counted_by_ending(tmp_path):
    formats = {".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF", ".GIF": "GIF", ".jfif": "JPEG", ".ppm": "PPM"}
    for kind in ("cat", "dog"):
        (tmp_path / kind).mkdir()
        for ending, name in formats.items():
            Image.new("RGB", (4, 4)).save(tmp_path / kind / f"0{ending}", name)
    write(tmp_path, {"cat/a.npy": b"", "cat/b.NPY": b"", "notes.txt": b"", "LICENSE": b""})
    write(tmp_path, {".DS_Store": b"", "cat/Thumbs.db": b"", "cat/._0.png": b"", "__MACOSX/cat/0.png": b""})
    source, members = read(tmp_path)
    assert source.class_counts == {"cat": 6, "dog": 6}
    assert source.skipped == {".npy": 2, ".txt": 1, "no ending": 1}
    assert len(members) == 12


def test_the_first_picture_of_an_mpo_is_read(tmp_path):
    for kind, colour in (("cat", "red"), ("dog", "blue")):
        (tmp_path / kind).mkdir()
        first, second = Image.new("RGB", (8, 8), colour), Image.new("RGB", (8, 8), "white")
        first.save(tmp_path / kind / "0.mpo", "MPO", save_all=True, append_images=[second])
    contents = read(tmp_path)[1]
    assert {name: decode_image(content, 8).pixels[0, 0].argmax() for name, content in contents.items()} == {
        "cat/0.mpo": 0,
        "dog/0.mpo": 2,
    }


def test_files_without_an_ending_are_named_with_the_ways_to_read_them(tmp_path):
    write(tmp_path, {name.removesuffix(".png"): content for name, content in PETS.items()})
    with pytest.raises(DataError, match=r"It holds 6 without extension\..*FILE\.py:FUNCTION"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.tar", "a"),
        ("a.b.tar.gz", "a.b"),
        ("A.TGZ", "A"),
        ("a.zip", "a"),
        ("a.gz", None),
        ("tar", None),
        (".zip", None),
    ],
)
def test_archives_are_known_by_their_endings(name, stem):
    assert archive_stem(name) == stem


@pytest.mark.parametrize(
    ("path", "expected"), [(".git/a.png", True), ("a/Thumbs.db", True), ("a/__MACOSX/b", True), ("a.b/c.png", False)]
)
def test_litter_of_operating_systems_is_known(path, expected):
    assert is_litter(path) is expected


def test_heic_is_read_once_a_package_reads_it_and_is_named_until_then(tmp_path, monkeypatch):
    """The package is a stand-in that registers the ending for PNG."""
    write(tmp_path, PETS | {f"{kind}/9.HEIC": png(i) for i, kind in enumerate(("cat", "dog"))})
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    image_endings.cache_clear()
    try:
        source, members = read(tmp_path)
        before = read_fingerprint(parse_source(str(tmp_path)))
        assert (len(members), source.skipped) == (6, {".heic": 2})
        assert "pip install pillow-heif" in source.left_out[0]
        monkeypatch.setitem(Image.EXTENSION, ".heic", "PNG")
        image_endings.cache_clear()
        assert len(read(tmp_path)[1]) == 8
        assert read_fingerprint(parse_source(str(tmp_path))) != before
    finally:
        monkeypatch.undo()
        image_endings.cache_clear()


# Folders.


def test_pipes_and_sockets_are_never_opened_and_are_reported(tmp_path):
    write(tmp_path, PETS)
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind("dog/socket.png")
            source, members = read(tmp_path)
    finally:
        os.chdir(here)
    assert members == PETS
    assert source.skipped == {"special": 2}


def test_a_pipe_is_no_source(tmp_path):
    os.mkfifo(tmp_path / "pets.tar")
    with pytest.raises(DataError, match="regular file"):
        parse_source(str(tmp_path / "pets.tar"))


def test_links_in_circles_end(tmp_path):
    write(tmp_path, PETS)
    for kind in ("cat", "dog"):
        for number in range(6):
            (tmp_path / kind / f"up{number}").symlink_to("..")
            (tmp_path / kind / f"other{number}").symlink_to(f"../{'dog' if kind == 'cat' else 'cat'}")
    (tmp_path / "cat" / "self").symlink_to("self")
    assert len(list(walk_files(tmp_path))) < 200
    assert read_fingerprint(parse_source(str(tmp_path)))
    _source, members = read(tmp_path)
    assert {*PETS} <= {*members}


def test_a_linked_folder_is_read_in_each_place(tmp_path):
    write(tmp_path / "all", PETS)
    (tmp_path / "pets" / "train").mkdir(parents=True)
    for kind in ("cat", "dog"):
        (tmp_path / "pets" / "train" / kind).symlink_to(tmp_path / "all" / kind)
        (tmp_path / "pets" / "train" / f"{kind}s").symlink_to(tmp_path / "all" / kind)
    source, _members = read(tmp_path / "pets")
    assert source.class_counts == {"cat": 3, "cats": 3, "dog": 3, "dogs": 3}


def test_a_name_that_is_no_unicode_is_kept(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    with open(folder + b"/\xff.png", "wb") as file:
        file.write(png(1))
    write(tmp_path, PETS)
    source, members = read(tmp_path)
    assert source.class_counts == {"caf\udce9": 1, "cat": 3, "dog": 3}
    assert "caf\udce9/\udcff.png" in members


def test_two_spellings_of_one_name_are_one_class_and_members_keep_theirs(tmp_path):
    composed, parted = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    write(tmp_path, {f"{composed}/0.png": png(0), f"{parted}/1.png": png(1), "dog/0.png": png(2)})
    source, members = read(tmp_path)
    assert source.class_counts == {composed: 2, "dog": 1}
    assert {sample.class_name for sample in source.samples()} == {composed, "dog"}
    assert f"{parted}/1.png" in members


def test_a_file_that_cannot_be_read_is_given_with_its_error_and_the_others_are_read(tmp_path):
    write(tmp_path, PETS)
    (tmp_path / "cat" / "0.png").unlink()
    (tmp_path / "cat" / "0.png").symlink_to("nowhere")
    _source, members = read(tmp_path)
    assert isinstance(members.pop("cat/0.png"), OSError)
    assert members == {name: content for name, content in PETS.items() if name != "cat/0.png"}


@pytest.mark.parametrize("split", ["", "train/"])
def test_folders_without_images_next_to_the_classes_are_named(tmp_path, split):
    write(tmp_path, {split + name: content for name, content in PETS.items()})
    write(tmp_path, {f"{split}fox/.DS_Store": b"", f"{split}bee/a.txt": b"", f"{split}cat/.DS_Store": b""})
    for name in ("owl/deep", ".git", "test", "cat/empty"):
        (tmp_path / split / name).mkdir(parents=True)
    source, members = read(tmp_path)
    assert len(members) == 6
    (sentence,) = source.left_out
    prefix = f"folders of {tmp_path} next to the classes have no images: "
    assert sentence == f"{prefix}{split}bee (1 .txt), {split}fox (empty), {split}owl (empty)"


def test_a_folder_without_images_counts_as_a_change_of_the_source(tmp_path):
    write(tmp_path, PETS)
    spec = parse_source(str(tmp_path))
    before = read_fingerprint(spec)
    (tmp_path / "owl").mkdir()
    assert read_fingerprint(spec) != before
    (tmp_path / "owl").rmdir()
    assert read_fingerprint(spec) == before


@pytest.mark.parametrize(
    "files",
    [
        {"images/0.png": png(0), "labels.csv": b""},
        {"train/0.png": png(0), "test/0.png": png(1), "labels.csv": b""},
        {"0.png": png(0), "labels.csv": b""},
    ],
)
def test_a_table_next_to_images_without_classes_is_named_with_its_reader(tmp_path, files):
    write(tmp_path, files)
    with pytest.raises(DataError, match=r"labels\.csv is not read.* hfds/DIR.*FILE\.py:FUNCTION"):
        read(tmp_path)


def test_no_images_are_refused_with_what_lies_there(tmp_path):
    write(tmp_path, {"cat/a.npy": b"", "dog/b.npy": b""})
    with pytest.raises(DataError, match=r"no images in .*It holds 2 \.npy"):
        read(tmp_path)


def test_images_outside_through_links_are_read_and_reported(tmp_path):
    root = write(tmp_path / "pets", PETS)
    (root / "cat" / "again.png").symlink_to(root / "cat" / "0.png")
    assert read(root)[0].left_out == ()
    write(tmp_path / "disk", {"owl/0.png": png(50), "owl/1.png": png(51), "one.png": png(52)})
    (root / "owl").symlink_to(tmp_path / "disk" / "owl")
    (root / "cat" / "z.png").symlink_to(tmp_path / "disk" / "one.png")
    source, members = read(root)
    assert source.class_counts == {"cat": 5, "dog": 3, "owl": 2}
    assert members["owl/0.png"] == png(50)
    assert source.left_out == ("3 images are outside pets, because of links, for example cat/z.png",)


def test_a_source_that_is_itself_a_link_lies_where_it_leads(tmp_path):
    write(tmp_path / "disk", PETS)
    (tmp_path / "pets").symlink_to(tmp_path / "disk")
    assert read(tmp_path / "pets")[0].left_out == ()


def test_a_file_that_exceeds_the_memory_for_decoding_is_given_with_its_error(tmp_path, monkeypatch):
    monkeypatch.setenv("HILO_NAS_DECODE_MIB", "1")
    root = write(tmp_path / "pets", PETS)
    with open(root / "cat" / "huge.png", "wb") as file:
        file.truncate(2**40)
    assert "1,048,576 MiB must fit into the memory" in str(read(root)[1]["cat/huge.png"])
