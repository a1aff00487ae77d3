"""Images written as they are read, for tools that read them otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timm.data.dataset_factory import create_dataset

from hilo_nas.data import prepare_data
from hilo_nas.data.cache import load_arrays
from hilo_nas.data.prepared_images import find_places
from hilo_nas.data.reading import ReadOptions
from hilo_nas.data.write import CLASS_MAP, name_folders, write_data
from hilo_nas.errors import DataError, StorageError, UsageError
from hilo_nas.events import DataRead, Notice
from hilo_nas.measurement import ProxyPlan


def write(source: Path, folder: Path, **options):
    return write_data(str(source), folder, emit=lambda event: None, **options)


def read_as_timm(folder: Path, split: str) -> dict[bytes, int]:
    """The label of each image's pixels."""
    reader = create_dataset("", root=str(folder), split=split, class_map=str(folder / CLASS_MAP)).reader
    found = {}
    for place in range(len(reader)):
        stream, label = reader[place]
        with stream, Image.open(stream) as image:
            found[np.asarray(image.convert("RGB")).tobytes()] = label
    return found


def read_as_search(source: Path, img_size: int) -> tuple[dict[bytes, int], dict[bytes, int]]:
    data = prepare_data(str(source), img_size, emit=lambda event: None)
    pixels = load_arrays(Path(data.path))[1]
    places = find_places(data, ProxyPlan, None)
    return tuple(
        {pixels[place].tobytes(): int(places.labels[place]) for place in side}
        for side in (places.training, places.scored)
    )


def test_timm_reads_what_was_written_as_a_search_reads_the_source(images, tmp_path):
    folder = images.folder("pets", {"cats": 10, "dogs/10": 5, "dogs/9": 5, "emus": 10}, size=(16, 16))
    written = write(folder, tmp_path / "out")
    assert (written.counts, written.renamed) == ({"train": 24, "validation": 6}, {})
    training, scored = read_as_search(folder, 16)
    assert read_as_timm(tmp_path / "out", "train") == training
    assert read_as_timm(tmp_path / "out", "validation") == scored


def test_turned_transparent_and_deep_images_are_written_as_networks_see_them(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("high", "low"):
        (tmp_path / "odd" / name).mkdir(parents=True)
        for index in range(4):
            offset = 3000 if name == "high" else 0
            deep = rng.integers(offset, offset + 1000, (16, 16)).astype(np.uint16)
            Image.fromarray(deep).save(tmp_path / "odd" / name / f"deep{index}.png")
            layered = Image.fromarray(rng.integers(0, 256, (16, 16, 4), dtype=np.uint8), "RGBA")
            layered.save(tmp_path / "odd" / name / f"layered{index}.png")
            exif = Image.Exif()
            exif[0x0112] = 6
            turned = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
            turned.save(tmp_path / "odd" / name / f"turned{index}.jpg", exif=exif)
    write(tmp_path / "odd", tmp_path / "out")
    # The cache of the split is at 32 pixels; a search at 16 sees the images in full size.
    training, scored = read_as_search(tmp_path / "odd", 16)
    assert read_as_timm(tmp_path / "out", "train") == training
    assert read_as_timm(tmp_path / "out", "validation") == scored
    assert {file.suffix for file in (tmp_path / "out").rglob("*") if file.is_file()} == {".png", ".txt"}


def test_deep_validation_images_next_to_8_bit_training_images_are_written_as_they_are_scored(images, tmp_path):
    pets = images.folder("pets", {"cats": 4, "dogs": 4}, size=(16, 16))
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "scans" / name).mkdir(parents=True)
        for index in range(3):
            deep = rng.integers(3000, 4000, (16, 16)).astype(np.uint16)
            Image.fromarray(deep).save(tmp_path / "scans" / name / f"{index}.png")
    write(pets, tmp_path / "out", val_data=str(tmp_path / "scans"))
    data = prepare_data(str(pets), 16, val_data=str(tmp_path / "scans"), emit=lambda event: None)
    _, pixels, labels, _ = load_arrays(Path(data.val_path))
    scored = {image.tobytes(): int(label) for image, label in zip(pixels, labels, strict=True)}
    assert read_as_timm(tmp_path / "out", "validation") == scored


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Ten photos, of which two decode within the limit of memory at a fraction of their size alone."""
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(5):
            side = 1024 if index == 0 else 64
            pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{index}.jpg")
    monkeypatch.setenv("HILO_NAS_DECODE_MIB", "1")
    return tmp_path / "photos"


def test_photos_too_large_to_be_written_are_reported_with_the_way_out(photos, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="2 of 10 images") as caught:
        write(photos, tmp_path / "out")
    first, why, *each, way_out = str(caught.value).splitlines()
    assert first.endswith(f"photos were left out of {tmp_path / 'out'}")
    assert why == "2 images too large to be decoded in full size, at which images are written:"
    assert [line.split()[:4] for line in each] == [[f"{name}/0.jpg", "(1024", "x", "1024"] for name in ("cats", "dogs")]
    assert "HILO_NAS_DECODE_MIB" in way_out
    assert "data.skip_broken=true" in way_out
    monkeypatch.setenv("HILO_NAS_DECODE_MIB", "64")
    assert sum(write(photos, tmp_path / "more").counts.values()) == 10


def test_photos_too_large_to_be_written_are_left_out_with_a_warning_on_request(photos, tmp_path, events):
    options = ReadOptions(skip_broken=True)
    written = write_data(str(photos), tmp_path / "out", options=options, emit=events.append)
    assert sum(written.counts.values()) == 8
    (text,) = [event.text for event in events if isinstance(event, Notice) and "left out" in event.text]
    assert "2 of 10 images" in text
    assert "dogs/0.jpg (1024 x 1024 pixels need" in text


@pytest.mark.parametrize("skip_broken", [True, False])
def test_if_all_photos_are_too_large_that_is_the_error(photos, tmp_path, skip_broken):
    for file in photos.rglob("[1-4].jpg"):
        file.unlink()
    for name in ("cats", "dogs"):
        (photos / name / "1.jpg").write_bytes((photos / name / "0.jpg").read_bytes() + b" ")
    with pytest.raises(DataError, match="4 of 4 images") as caught:
        write(photos, tmp_path / "out", options=ReadOptions(skip_broken=skip_broken))
    assert ("data.skip_broken=true" in str(caught.value)) is not skip_broken


def test_images_that_change_between_reading_and_writing_are_reported(images, tmp_path):
    folder = images.folder("pets", {"cats": 5, "dogs": 5})

    def change(event):
        if isinstance(event, DataRead):
            (folder / "cats" / "0.png").write_bytes(b"broken meanwhile")
            (folder / "cats" / "1.png").write_bytes((folder / "cats" / "2.png").read_bytes())

    with pytest.raises(DataError, match=r"2 images changed since .*:\n  cats/0\.png\n  cats/1\.png\n"):
        write_data(str(folder), tmp_path / "out", emit=change)


def test_validation_images_are_written_next_to_all_training_images(images, tmp_path):
    pets = images.folder("pets", {"cats": 6, "dogs": 6, "emus": 6})
    more = images.folder("more", {"emus": 2, "dogs": 2}, seed=1)
    written = write(pets, tmp_path / "out", val_data=str(more))
    assert written.counts == {"train": 18, "validation": 4}
    assert sorted(read_as_timm(tmp_path / "out", "validation").values()) == [1, 1, 2, 2]


def test_a_folder_that_holds_files_is_written_to_by_force_alone(images, tmp_path):
    pets = images.folder("pets", {"cats": 4, "dogs": 4})
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="must be empty, but holds files"):
        write(pets, tmp_path / "out")
    write(pets, tmp_path / "out", force=True)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    with pytest.raises(UsageError, match="is a file"):
        write(pets, tmp_path / "out" / "mine.txt", force=True)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("cats", "cats"),
        ("dogs/10", "dogs_10"),
        ("..", "_"),
        (".hidden", "hidden"),
        ("a\x1b[2Jb\n", "a_[2Jb_"),
        ("café", "café"),
        ("x" * 300, "x" * 80),
        ('a:b*c?"', "a_b_c__"),
        ("con", "_con"),
        ("NUL.old", "_NUL.old"),
        ("com1", "_com1"),
        ("cone", "cone"),
        ("com12", "com12"),
    ],
)
def test_a_class_is_written_to_a_folder_of_a_safe_name(name, folder):
    assert name_folders([name]) == {name: folder}


def test_folders_of_classes_differ_in_more_than_case_and_safe_names_stay():
    names = ["dogs/10", "dogs_10", "DOGS_10", "Cats", "cats"]
    folders = name_folders(names)
    assert list(folders) == names
    assert folders["dogs_10"] == "dogs_10" or folders["DOGS_10"] == "DOGS_10"
    assert len({folder.casefold() for folder in folders.values()}) == 5


def test_nothing_is_written_through_a_link_in_the_folder(images, tmp_path):
    source, target, precious = images.folder("pets", {"cats": 6, "dogs": 6}), tmp_path / "out", tmp_path / "precious"
    write(source, target)
    mine = precious / "mine.txt"
    precious.mkdir()
    mine.write_text("mine")
    (written,) = sorted((target / "train" / "cats").glob("000000-*"))
    for path in (target / CLASS_MAP, written):
        path.unlink()
        path.symlink_to(mine)
    write(source, target, force=True)
    assert mine.read_text() == "mine"
    assert not (target / CLASS_MAP).is_symlink()
    assert not written.is_symlink()
    for place in (target / "validation", target / "train" / "dogs"):
        place.rename(tmp_path / f"moved-{place.name}")
        place.symlink_to(precious)
        with pytest.raises(StorageError, match=f"{place.name} must not be a link"):
            write(source, target, force=True)
        place.unlink()
        place.mkdir()
    assert [path.name for path in precious.iterdir()] == ["mine.txt"]
