"""Images in archives: read in order, links followed inside, and never outside."""

from __future__ import annotations

import gzip
import os
import stat
import sys
import tarfile
import tracemalloc
import types
import zipfile

import pytest
from packed import PETS, pack, pack_zip, png, read, write

from hilo_nas.data.archives import open_archive
from hilo_nas.errors import DataError


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("pets.tar", "w"),
        ("pets.tar.gz", "w:gz"),
        ("pets.tgz", "w:gz"),
        ("pets.tar.bz2", "w:bz2"),
        ("pets.tar.xz", "w:xz"),
        ("misnamed.tar", "w:gz"),
        ("pets.zip", ""),
    ],
)
@pytest.mark.parametrize("top", ["", "pets/", "./", "/pets/"])
def test_archives_are_read_as_the_folder_in_them_would_be(tmp_path, name, mode, top):
    files = {top + member: content for member, content in {**PETS, "notes.txt": b"x"}.items()}
    path = pack(tmp_path / name, files, mode) if mode else pack_zip(tmp_path / name, files)
    source, members = read(path)
    assert source.class_counts == {"cat": 3, "dog": 3}
    assert sorted(members.values()) == sorted(PETS.values())
    assert source.skipped == {".txt": 1}
    if top in ("", "./") and name != "pets.zip":
        assert members == PETS


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_splits_inside_archives_are_recognized_by_their_names(tmp_path, kind):
    files = {
        f"{split}/{name}": png(i) for i, name in enumerate(PETS) for split in ("seg_train/seg_train", "seg_test/x")
    }
    path = pack(tmp_path / "a.tar", files) if kind == "tar" else pack_zip(tmp_path / "a.zip", files)
    source, _members = read(path)
    assert source.class_counts == {"cat": 3, "dog": 3}
    assert source.split == "seg_train is used for training; seg_test (6 images) is left out"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "not the archive itself: run git lfs pull",
        ),
        (b"\n<!DOCTYPE html><html>", "a web page or XML, not an archive"),
    ],
)
@pytest.mark.parametrize("name", ["pets.tar", "pets.zip", "pets.tar.gz"])
def test_what_lies_in_place_of_an_archive_is_reported(tmp_path, name, content, reason):
    for path in (tmp_path / name, tmp_path):
        write(tmp_path, {name: content})
        with pytest.raises(DataError, match=rf"{name} cannot be read: the file is .*{reason}"):
            read(path)


def test_zstandard_works_where_it_is_installed_and_is_named_where_it_is_not(tmp_path, monkeypatch):
    path = tmp_path / "pets.tar.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + pack(tmp_path / "plain.tar", PETS).read_bytes())
    if sys.version_info < (3, 14):
        monkeypatch.setitem(sys.modules, "zstandard", None)
        with pytest.raises(DataError, match=r"pets\.tar\.zst.*pip install zstandard"):
            read(path)

        class Decompressor:
            """Fake decompressor that only removes the first four bytes."""

            def stream_reader(self, file, **options):
                file.read(4)
                return types.SimpleNamespace(read=file.read)

        monkeypatch.setitem(sys.modules, "zstandard", types.SimpleNamespace(ZstdDecompressor=Decompressor))
        assert read(path)[1] == PETS


def test_links_are_followed_inside_the_archive_and_never_outside(tmp_path):
    (tmp_path / "secret.png").write_bytes(png(99))
    links = [
        ("dog/hard.png", "cat/0.png", tarfile.LNKTYPE),
        ("dog/soft.png", "../cat/1.png", tarfile.SYMTYPE),
        ("dog/twice.png", "soft.png", tarfile.SYMTYPE),
        ("fox", "cat", tarfile.SYMTYPE),
        ("dog/out.png", "../../secret.png", tarfile.SYMTYPE),
        ("dog/absolute.png", str(tmp_path / "secret.png"), tarfile.SYMTYPE),
        ("dog/lost.png", "gone.png", tarfile.SYMTYPE),
        ("dog/circle.png", "circle.png", tarfile.SYMTYPE),
        ("dog/loop", "..", tarfile.SYMTYPE),
    ]
    path = pack(tmp_path / "pets.tar", {**PETS, "../secret.png": png(7)}, links=links, special=["cat/pipe.png"])
    source, members = read(path)
    assert source.class_counts == {"cat": 3, "dog": 6, "fox": 3}
    assert members["dog/hard.png"] == PETS["cat/0.png"]
    assert members["dog/soft.png"] == members["dog/twice.png"] == members["fox/1.png"] == PETS["cat/1.png"]
    assert png(99) not in members.values()
    assert png(7) not in members.values()
    assert source.skipped == {"special": 1}
    (note,) = source.left_out
    assert "6 links and names of pets.tar" in note


def contents_of(path):
    with open(path, "rb") as file, open_archive(file) as archive:
        return archive.list()


def soft(**links: str):
    """Returns symbolic links; two underscores in a name represent a slash."""
    return [(name.replace("__", "/"), target, tarfile.SYMTYPE) for name, target in links.items()]


@pytest.mark.parametrize(
    ("files", "links", "linked", "lost"),
    [
        ("c/y b/z", soft(b__x="../c/y", a="b"), {"a/x": "c/y", "a/z": "b/z", "b/x": "c/y"}, []),
        ("c/y", soft(b__x="../c/y", a="b"), {"a/x": "c/y", "b/x": "c/y"}, []),
        ("c/y", soft(b__d="../c", a="b"), {"a/d/y": "c/y", "b/d/y": "c/y"}, []),
        ("c/y", soft(e="a", b__d="../c", a="b"), {f"{name}/d/y": "c/y" for name in "abe"}, []),
        ("c/y", soft(b__d="../c", b__e="../c", a="b"), {"a/d/y": "c/y", "b/d/y": "c/y", "b/e/y": "c/y"}, ["a/e"]),
        ("b/z", soft(b__x="gone", a="b"), {"a/z": "b/z"}, ["b/x", "a/x"]),
        ("b/z", soft(b__x="..", a="b"), {"a/z": "b/z"}, ["b/x", "a/x"]),
        ("b/z c/y", soft(b__x="../c", c__x="../b"), {"b/x/y": "c/y", "c/x/z": "b/z"}, ["b/x/x", "c/x/x"]),
    ],
)
def test_links_in_linked_folders_are_followed_or_reported(tmp_path, files, links, linked, lost):
    contents = contents_of(
        pack(tmp_path / "a.tar", {name: png(i) for i, name in enumerate(files.split())}, links=links)
    )
    assert {path: contents.files[path] for path in linked} == {p: contents.files[to] for p, to in linked.items()}
    assert {*contents.files} == {*files.split(), *linked}
    assert contents.lost == lost


def test_links_in_linked_folders_do_not_explode(tmp_path):
    links = [(f"{level}/{name}", f"../{level + 1}", tarfile.SYMTYPE) for level in range(30) for name in "ab"]
    contents = contents_of(pack(tmp_path / "a.tar", {"30/x": png(0)}, links=links))
    assert len(contents.files) < 2000
    assert contents.files["29/a/x"] == contents.files["28/a/a/x"] == contents.files["30/x"]


def test_links_of_a_zip_are_followed_inside_it(tmp_path):
    path = pack_zip(tmp_path / "pets.zip", PETS)
    with zipfile.ZipFile(path, "a") as archive:
        for name, target in (("dog/soft.png", "../cat/0.png"), ("dog/out.png", "../../../etc/passwd")):
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    source, members = read(path)
    assert members == {**PETS, "dog/soft.png": PETS["cat/0.png"]}
    assert "dog/out.png" in source.left_out[0]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_of_a_member_that_occurs_twice_the_last_counts_once(tmp_path, kind):
    path = pack(tmp_path / "a.tar", PETS) if kind == "tar" else pack_zip(tmp_path / "a.zip", PETS)
    if kind == "tar":
        pack(path, {"./cat/0.png": png(77)}, "a")
    else:
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("cat/0.png", png(77))
    assert read(path)[1] == {**PETS, "cat/0.png": png(77)}


def test_names_with_backslashes_are_folders(tmp_path):
    path = pack_zip(tmp_path / "pets.zip", {})
    with zipfile.ZipFile(path, "a") as archive:
        for name, content in PETS.items():
            info = zipfile.ZipInfo("x")
            info.filename = name.replace("/", "\\")
            archive.writestr(info, content)
    assert read(path)[1] == PETS


def test_an_encrypted_zip_is_refused_in_words(tmp_path):
    path = pack_zip(tmp_path / "pets.zip", PETS)
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = -1
        while (at := content.find(signature, at + 1)) >= 0:
            content[at + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"pets\.zip.*encrypted.*Unpack"):
        read(path)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_an_archive_that_is_cut_off_is_refused(tmp_path, mode, share):
    files = {name: os.urandom(3000) for name in PETS}
    path = pack_zip(tmp_path / "a.zip", files) if mode == "zip" else pack(tmp_path / "a.tar", files, mode)
    content = path.read_bytes()
    size = 6 * (512 + 3072) if mode == "w" else len(content)
    path.write_bytes(content[: int(size * share)])
    with pytest.raises(DataError, match=r"the archive a\.(tar|zip) cannot be read"):
        read(path)


def test_a_damaged_header_is_no_end_of_the_archive(tmp_path):
    path = pack(tmp_path / "a.tar", PETS)
    content = bytearray(path.read_bytes())
    content[3 * 1024 + 5] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar cannot be read: .* byte"):
        read(path)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_tars_behind_one_another_are_read_and_what_is_no_tar_behind_them_is_not(tmp_path, mode):
    more = {f"owl/{i}.png": png(50 + i) for i in range(3)}
    parts = [pack(tmp_path / "a.tar", PETS, mode), pack(tmp_path / "b.tar", more, mode)]
    path = tmp_path / "both.tar"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert read(path)[1] == PETS | more
    plain = pack(tmp_path / "plain.tar", PETS).read_bytes() + b"signature" * 100
    path.write_bytes(gzip.compress(plain) if mode == "w:gz" else plain)
    assert read(path)[1] == PETS


def test_a_zip_behind_a_program_that_unpacks_it_is_read(tmp_path):
    path = pack_zip(tmp_path / "pets.zip", PETS)
    path.write_bytes(b"#!/bin/sh\nexit\n" + path.read_bytes())
    assert read(path)[1] == PETS


def test_an_archive_whose_members_all_lead_out_of_it_is_refused_with_that_reason(tmp_path):
    path = pack(tmp_path / "pets.tar", {f"../{name}": content for name, content in PETS.items()})
    with pytest.raises(DataError, match=r"no images in .*6 links and names of pets\.tar lead outside"):
        read(path)


def test_a_missing_end_marker_is_reported(tmp_path):
    path = pack(tmp_path / "a.tar", PETS)
    path.write_bytes(path.read_bytes()[: 6 * 1024])
    source, members = read(path)
    assert members == PETS
    assert "no end marker" in source.left_out[0]


def test_a_damaged_member_of_a_zip_is_given_with_its_error(tmp_path):
    path = pack_zip(tmp_path / "a.zip", PETS)
    content = bytearray(path.read_bytes())
    content[40] ^= 0xFF
    path.write_bytes(content)
    members = read(path)[1]
    assert isinstance(members.pop("cat/0.png"), Exception)
    assert len(members) == 5


def test_a_name_with_a_nul_is_left_out(tmp_path):
    path = tmp_path / "pets.tar"
    pack(path, PETS)
    with tarfile.open(path, "a", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("x.png")
        info.pax_headers = {"path": "cat/a\0b.png"}
        tar.addfile(info)
    source, members = read(path)
    assert members == PETS
    assert len(source.left_out) == 1


@pytest.mark.parametrize("kind", ["folder", "tar", "tars", "zip"])
def test_images_come_in_the_order_of_their_names_with_numbers_by_value(tmp_path, kind):
    names = [f"{kind}/{number}.png" for kind in ("c10", "c9") for number in (10, 2, 1)]
    expected = [f"c{folder}/{number}.png" for folder in (9, 10) for number in (1, 2, 10)]
    files = {name: png(i) for i, name in enumerate(names)}
    if kind == "folder":
        write(tmp_path, files)
    elif kind == "zip":
        pack_zip(tmp_path / "a.zip", files)
    elif kind == "tar":
        pack(tmp_path / "a.tar", files)
    else:
        for folder in ("c10", "c9"):
            pack(tmp_path / f"{folder}.tar", {n.split("/")[1]: files[n] for n in names if n.startswith(folder)})
    path = tmp_path / f"a.{kind}" if kind in ("tar", "zip") else tmp_path
    assert [*read(path)[1]] == expected


# Several archives.


def parts_of(kind: str) -> dict[str, bytes]:
    return {name.split("/")[1]: content for name, content in PETS.items() if name.startswith(kind)}


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "zip"])
def test_archives_that_hold_images_directly_are_classes(tmp_path, ending):
    for kind in ("cat", "dog", "train"):
        files = parts_of("cat" if kind == "train" else kind)
        path = tmp_path / f"{kind}.{ending}"
        pack_zip(path, files) if ending == "zip" else pack(path, files, "w:gz" if ending == "tar.gz" else "w")
    source, members = read(tmp_path)
    assert source.class_counts == {"cat": 3, "dog": 3, "train": 3}
    assert members["cat/0.png"] == PETS["cat/0.png"]


def test_archives_that_hold_class_folders_are_splits_and_shards_and_no_classes(tmp_path):
    pack(tmp_path / "pets-train-0.tar", {name: png(1) for name in PETS})
    pack_zip(tmp_path / "pets-train-1.zip", {name: png(2) for name in PETS})
    pack(tmp_path / "pets-test-0.tar.gz", {name: png(3) for name in PETS}, "w:gz")
    source, members = read(tmp_path)
    assert source.class_counts == {"cat": 6, "dog": 6}
    assert {*members.values()} == {png(1), png(2)}
    assert "pets-test-0 (6 images) is left out" in source.split


@pytest.mark.parametrize(
    "inner",
    [
        {"cat": ["2021/0.png", "2022/1.png"], "dog": ["2021/2.png", "2022/3.png"]},
        {"cat": ["images/0.png", "images/1.png"], "dog": ["images/2.png", "images/3.png"]},
        {"cat": ["0.png", "1.png"], "dog": ["dog/2.png", "dog/3.png"]},
        {"cat": ["0.png", "1.png"], "dog": ["2.png", "d/3.png"], "test": ["cat/8.png", "dog/9.png"]},
    ],
)
def test_archives_named_as_classes_are_the_first_level(tmp_path, inner):
    for name, members in inner.items():
        pack(tmp_path / f"{name}.tar", {member: png(int(member[-5])) for member in members})
    source, _members = read(tmp_path)
    assert source.class_counts == {"cat": 2, "dog": 2}


@pytest.mark.parametrize("names", [("pets_a", "pets_b"), ("part1", "part2"), ("vol-1", "vol-2")])
def test_volumes_that_hold_class_folders_are_no_classes(tmp_path, names):
    for name in names:
        pack(tmp_path / f"{name}.tar", PETS)
    assert read(tmp_path)[0].class_counts == {"cat": 6, "dog": 6}


def test_an_archive_next_to_unpacked_images_is_passed_over_and_named(tmp_path):
    write(tmp_path, PETS)
    pack(tmp_path / "pets.tar", PETS)
    source, members = read(tmp_path)
    assert members == PETS
    assert source.skipped == {".tar": 1}
    assert source.left_out == (
        "archives next to folders of images are not read: pets.tar. Unpack them, or use one of them as the source",
    )


@pytest.mark.parametrize(
    ("names", "beside"),
    [
        (("shard-000000", "shard-000001"), ""),
        (("shard-000000", "shard-000001"), ".target"),
        (("shard-000000",), ""),
        (("00000", "00001"), ".label.npy"),
        (("HAM_images_part_1", "HAM_images_part_2"), ""),
        (("pets-a", "pets-b"), ".target"),
    ],
)
def test_parts_of_a_data_set_are_refused_as_classes_unless_the_user_says_so(tmp_path, names, beside):
    for name in names:
        files = {f"{i:03d}.png": png(i) for i in range(4)}
        pack(tmp_path / f"{name}.tar", files | ({f"{i:03d}{beside}": b"0" for i in range(4)} if beside else {}))
    with pytest.raises(
        DataError, match=rf"(?s){names[0]}.*look like parts.*{beside}.*000\.cls.*data\.class_from=first"
    ):
        read(tmp_path)
    assert read(tmp_path, class_from="first")[0].class_counts == dict.fromkeys(names, 4)


@pytest.mark.parametrize("names", [("00000", "00001"), ("class1", "class2"), ("grade_1",)])
def test_numbered_folders_are_classes(tmp_path, names):
    write(tmp_path, {f"{name}/{i}.png": png(i) for name in names for i in range(2)})
    assert read(tmp_path)[0].class_counts == dict.fromkeys(names, 2)


def test_archives_in_an_archive_are_classes_as_well(tmp_path):
    inner = {f"{kind}.tar": pack(tmp_path / f"{kind}.tar", parts_of(kind)).read_bytes() for kind in ("cat", "dog")}
    for name in inner:
        (tmp_path / name).unlink()
    source, members = read(pack(tmp_path / "all" / "imagenet.tar.gz", inner, "w:gz"))
    assert members == PETS
    assert source.class_counts == {"cat": 3, "dog": 3}


def test_a_compressed_tar_is_decompressed_twice_and_not_once_per_image(tmp_path, monkeypatch):
    files = {f"{kind}/{i}.png": os.urandom(2000) for kind in ("cat", "dog") for i in range(30)}
    links = [(f"dog/link{i}.png", f"cat/{i}.png", tarfile.LNKTYPE) for i in range(30)]
    path = pack(tmp_path / "pets.tar.gz", files, "w:gz", links=links)
    rewinds = []
    monkeypatch.setattr(
        gzip._GzipReader, "_rewind", lambda self, old=gzip._GzipReader._rewind: (rewinds.append(1), old(self))
    )
    _source, members = read(path)
    assert len(members) == 90
    assert len(rewinds) <= 4


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_of_a_zip_costs_no_more_memory_than_may_be_used(tmp_path, monkeypatch, method):
    monkeypatch.setenv("HILO_NAS_DECODE_MIB", "8")
    path = pack_zip(tmp_path / "a.zip", PETS)
    with zipfile.ZipFile(path, "a", method) as archive:
        archive.writestr("cat/bomb.png", bytes(2**25))
    tracemalloc.start()
    members = read(path)[1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "a file of 32 MiB must fit into the memory for decoding, but only 8 MiB may be used" in str(
        members["cat/bomb.png"]
    )
    assert members["dog/0.png"] == PETS["dog/0.png"]
    assert peak < 2**24


def test_a_member_that_lies_about_its_size_is_read_no_further(tmp_path):
    path = pack_zip(tmp_path / "a.zip", {**PETS, "cat/bomb.png": bytes(2**25)})
    content = path.read_bytes().replace((2**25).to_bytes(4, "little"), (100).to_bytes(4, "little"))
    path.write_bytes(content)
    tracemalloc.start()
    members = read(path)[1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(members["cat/bomb.png"], zipfile.BadZipFile)
    assert peak < 2**24


def test_a_member_of_a_compressed_tar_costs_no_more_memory_than_may_be_used(tmp_path, monkeypatch):
    monkeypatch.setenv("HILO_NAS_DECODE_MIB", "8")
    members = read(pack(tmp_path / "a.tar.gz", {**PETS, "cat/bomb.png": bytes(2**25)}, "w:gz"))[1]
    assert "a file of 32 MiB must fit" in str(members["cat/bomb.png"])
    assert members["dog/0.png"] == PETS["dog/0.png"]
