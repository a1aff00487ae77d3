"""Summary of the images of a search, for new and for cached images."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hilo_nas.data import CachedData
from hilo_nas.data.check import check_data
from hilo_nas.data.sheet import draw_sheet, write_sheet
from hilo_nas.data.summary import DataSummary, describe_facts
from hilo_nas.events import DataRead, Notice


def summary_of(events) -> DataSummary:
    (read,) = [event for event in events if isinstance(event, DataRead)]
    summary = DataSummary.from_dict(read.summary)
    assert summary.to_dict() == read.summary
    return summary


def warnings_of(events) -> list[str]:
    return [event.text for event in events if isinstance(event, Notice) and event.level == "warning"]


def copy(folder: Path, source: str, *targets: str) -> None:
    for target in targets:
        (folder / target).write_bytes((folder / source).read_bytes())


def kinds_of(*sources: Path | str) -> list[str]:
    val_data = str(sources[1]) if len(sources) > 1 else None
    return [fault.kind for fault in check_data(str(sources[0]), 8, val_data=val_data, emit=lambda event: None).faults]


def test_what_was_read_is_reported_with_its_split(prepare, images, events):
    prepare(images.folder("pets", {"cats": 10, "dogs": 20, "emus": 60}))
    summary = summary_of(events)
    train = summary.train
    assert (train.name, train.images, train.classes, train.median, train.copies) == ("pets", 90, 3, 20, 0)
    assert (train.least.name, train.least.images) == ("cats", 10)
    assert (train.most.name, train.most.images) == ("emus", 60)
    assert (summary.n_training, summary.n_scored, summary.validation) == (72, 18, None)
    lines = summary.to_lines()
    assert lines[0] == "pets: 90 images of 3 classes, per class 10 (cats) to 60 (emus), median 20"
    assert lines[-1] == "split: 72 for training, 18 held out for scoring, at 8 px"
    assert warnings_of(events) == []


def test_the_summary_is_reported_for_cached_images_as_well(prepare, images, events):
    folder = images.folder("pets", {"cats": 10, "dogs": 10})
    prepare(folder)
    first = [event for event in events if isinstance(event, DataRead | Notice)]
    events.clear()
    prepare(folder)
    assert [event for event in events if isinstance(event, DataRead | Notice)] == first


def test_validation_images_are_reported_with_their_number(prepare, images, events):
    pets = images.folder("pets", {"cats": 10, "dogs": 10})
    prepare(pets, val_data=images.folder("more", {"cats": 4, "dogs": 2}, seed=1))
    summary = summary_of(events)
    assert summary.validation is not None
    assert (summary.validation.name, summary.n_training, summary.n_scored) == ("more", 20, 6)
    assert summary.to_lines()[-1] == "split: all 20 for training, 6 of data.val_source for scoring, at 8 px"


def test_what_was_changed_or_skipped_on_the_way_is_reported_in_words():
    facts = {
        "sizes": {"smallest": [20, 10], "median": [32, 32], "largest": [640, 480]},
        "n_turned": 3,
        "n_composited": 2,
        "background": "black",
        "n_scaled": 1500,
        "value_range": [0.0, 4095.0],
        "broken": [["a.png", "the file is empty"]],
        "n_cut": 1,
        "skipped": {".txt": 2, "no ending": 1, "special": 3},
        "class_level": "classes are the folders",
    }
    assert describe_facts(facts) == [
        "sizes: 20x10 to 640x480 pixels, median 32x32",
        "classes are the folders",
        "skipped because they are not images: 6 files (2 .txt, 1 without extension, 3 pipes or devices)",
        "rotated by their EXIF orientation: 3 images",
        "transparent: 2 images, composited on black (set another color with data.background)",
        "more than 8 bits: 1,500 images, scaled from the range 0,4095 (set another with data.value_range)",
        "not square, cropped to the center: 1 image",
        "broken and left out (data.skip_broken): 1 image",
    ]
    assert describe_facts({}) == []


# Warnings.


def test_copies_are_warned_of_with_their_share(prepare, images, events):
    folder = images.folder("pets", {"cats": 18, "dogs": 20})
    copy(folder, "cats/0.png", "cats/18.png", "cats/19.png")
    prepare(folder)
    (text,) = warnings_of(events)
    assert text.startswith("2 of 40 images of pets (5.0%) are copies of another image: cats/0.png = cats/")
    assert summary_of(events).train.copies == 2
    copy(folder, "dogs/0.png", "cats/18.png", "cats/19.png", "dogs/20.png")
    (folder / "cats" / "18.png").unlink()
    (folder / "cats" / "19.png").unlink()
    events.clear()
    prepare(folder)
    assert warnings_of(events)[0].startswith("1 of 39 images of pets (2.6%) is a copy of another image: dogs/0.png = ")


def test_an_image_under_two_labels_is_warned_of_and_leaks_into_no_score(prepare, images, events):
    folder = images.folder("pets", {"cats": 19, "dogs": 20})
    copy(folder, "dogs/3.png", "cats/19.png")
    prepare(folder)
    assert any("1 image of pets has several labels: " in text for text in warnings_of(events))


def test_nearly_empty_classes_are_warned_of(prepare, images, events):
    prepare(images.folder("pets", {"cats": 9, "dogs": 10, "emus": 2}))
    assert warnings_of(events) == [
        "2 classes of pets have fewer than 10 images: 'emus' (2), 'cats' (9). Their scores are unreliable."
    ]


def test_validation_images_that_are_training_images_are_warned_of(prepare, images, events):
    pets = images.folder("pets", {"cats": 12, "dogs": 12})
    more = images.folder("more", {"cats": 10, "dogs": 10}, seed=1)
    (more / "cats" / "0.png").write_bytes((pets / "cats" / "5.png").read_bytes())
    (more / "dogs" / "1.png").write_bytes((pets / "cats" / "6.png").read_bytes())
    prepare(pets, val_data=more)
    same, other = warnings_of(events)
    assert same.startswith("1 of 20 validation images (5.0%) is a training image: cats/0.png.")
    assert other.startswith("1 of 20 validation images (5.0%) is a training image of another class: dogs/1.png.")


def test_classes_without_validation_images_are_warned_of(prepare, images, events):
    pets = images.folder("pets", {"cats": 10, "dogs": 10, "emus": 10})
    prepare(pets, val_data=images.folder("more", {"cats": 10, "dogs": 10}, seed=1))
    assert warnings_of(events) == ["more has no image of 1 class: 'emus'."]


def test_class_names_are_one_however_they_are_composed(prepare, images):
    composed, parted = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    data = prepare(
        images.folder("pets", {composed: 10, "dogs": 10}),
        val_data=images.folder("more", {parted: 3, "dogs": 3}, seed=1),
    )
    assert data.class_names == (composed, "dogs")


# All faults at once.


def test_a_sound_source_has_no_faults(images):
    assert kinds_of(images.folder("pets", {"cats": 10, "dogs": 10})) == []


def test_all_faults_of_a_source_are_found_at_once(images):
    folder = images.folder("pets", {"cats": 12, "dogs": 12, "emus": 1})
    copy(folder, "cats/0.png", "cats/12.png", "dogs/12.png")
    more = images.folder("more", {"cats": 10, "owls": 3}, seed=1)
    (more / "cats" / "0.png").write_bytes((folder / "cats" / "5.png").read_bytes())
    assert kinds_of(folder) == ["copies", "labels", "nearly empty", "scarce"]
    assert kinds_of(folder, more) == [
        "copies", "labels", "nearly empty", "unknown class", "overlap", "nearly empty",
    ]  # fmt: skip


def test_validation_images_without_any_class_that_is_trained_on_are_a_fault(images):
    pets = images.folder("pets", {"cats": 10, "dogs": 10})
    more = images.folder("more", {"owls": 10, "emus": 10}, seed=1)
    checked = check_data(str(pets), 8, val_data=str(more), emit=lambda event: None)
    assert [fault.text for fault in checked.faults if fault.kind == "unknown class"] == [
        "classes of more that the training source lacks: 'emus', 'owls'"
    ]
    assert [part.name for part in checked.sets] == ["pets"]


def test_a_source_that_cannot_be_read_is_a_fault(images):
    checked = check_data(str(images.folder("pets", {"cats": 3})), 8, emit=lambda event: None)
    assert [fault.kind for fault in checked.faults] == ["unreadable"]
    assert checked.sets == ()


# The contact sheet.


def test_a_sheet_shows_images_as_they_reach_the_network(prepare, tmp_path):
    for number, name in enumerate(("black", "white")):
        (tmp_path / "tones" / name).mkdir(parents=True)
        for index in range(10):
            level = 255 * number + (-index if number else index)
            Image.new("L", (8, 8), level).save(tmp_path / "tones" / name / f"{index}.png")
    data = prepare(tmp_path / "tones")
    sheet, shown = draw_sheet(data)
    pixels = np.asarray(sheet)
    assert shown == 2
    rows = pixels[4:68, 240:], pixels[72:136, 240:]
    assert rows[0][:, :64].max() < 10  # enlarged from 8 to 64 pixels
    assert rows[1][:, :64].min() > 245
    assert len(np.unique(rows[0][32, 10::68, 0])) == 6


def test_of_many_classes_some_are_shown_and_odd_names_are_written_out(prepare, images, tmp_path):
    names = {f"{number:03d} \x1b[31m漢{'x' * 80}": 2 for number in range(61)}
    data = prepare(images.folder("many", names))
    assert write_sheet(data, tmp_path / "sheet.png") == 60
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.height == 60 * 68 + 40


@pytest.mark.parametrize("count", [1, 3])
def test_a_class_of_few_images_shows_them_all(prepare, images, count):
    data: CachedData = prepare(images.folder("pets", {"cats": count + 1, "dogs": 8}))
    pixels = np.asarray(draw_sheet(data)[0])[4:68, 240:].reshape(64, -1, 3)
    shown = [bool((pixels[:, 68 * i : 68 * i + 64] != 255).any()) for i in range(6)]
    assert sum(shown) == count


def test_names_of_classes_and_files_stay_on_their_line(prepare, images, events):
    folder = images.folder("pets", {"cats": 3, "dogs\nNext: rm": 4})
    (folder / "cats" / "a\nNext: rm.png").write_bytes(b"junk")
    prepare(folder, skip_broken=True)
    warning = next(event.text for event in events if isinstance(event, Notice))
    told = [*summary_of(events).to_lines(), warning]
    assert "a\\x0aNext: rm.png" in warning
    assert any("dogs\\x0aNext: rm" in line for line in told)
    assert not [line for text in told for line in text.splitlines() if line.strip().startswith("Next: rm")]
