"""A search writes into its study alone, whatever a stranger or an accident put in the place of its files."""

import os

import pytest
from builders import build_record, fresh, write_study

from hilo_nas.errors import RecordError, StorageError
from hilo_nas.searching.opening.folder_checks import check_layout
from hilo_nas.searching.opening.study_lock import locked
from hilo_nas.study.stored_study import StoredStudy, open_study

FILES = [
    "manifest.yaml",
    "local.yaml",
    ".lock",
    "data.png",
    "trials.csv",
    "logs/events.jsonl",
]
FILES += ["data.png", "logs/training.log", "trials/0007.json", "checkpoints/abc-0.pt"]
FOLDERS = ["trials", "logs", "checkpoints"]


@pytest.fixture
def folder(tmp_path):
    return write_study(tmp_path, "demo", [build_record(0)])


def clear(path):
    path.parent.mkdir(exist_ok=True)
    if path.is_dir():
        path.rename(path.with_name("away"))
    else:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("name", FILES + FOLDERS)
def test_nothing_is_written_through_a_link(folder, tmp_path, name):
    target = tmp_path / "mine"
    if name in FOLDERS:
        target.mkdir()
        (target / "kept.pt").write_text("mine")
    else:
        target.write_text("mine")
    clear(folder.path / name)
    (folder.path / name).symlink_to(target)
    with pytest.raises(StorageError, match=rf"{name} must be a \w+, but is a link") as caught, locked(folder):
        pass
    assert "Move them away" in str(caught.value)
    assert (target / "kept.pt" if name in FOLDERS else target).read_text() == "mine"


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_a_files_place_is_named_with_the_way_out(folder, name):
    clear(folder.path / name)
    (folder.path / name).mkdir()
    with pytest.raises(StorageError, match=f"{name} must be a file, but is a folder"), locked(folder):
        pass


@pytest.mark.parametrize("name", FOLDERS)
def test_a_file_in_a_folders_place_is_named_with_the_way_out(folder, name):
    clear(folder.path / name)
    (folder.path / name).write_text("")
    with pytest.raises(StorageError, match=f"{name} must be a folder, but is a file"), locked(folder):
        pass


def test_a_fifo_is_no_file_and_hangs_nobody(folder):
    os.mkfifo(folder.path / "logs.fifo")
    folder.logs_path.mkdir()
    os.mkfifo(folder.logs_path / "events.jsonl")
    with pytest.raises(StorageError, match=r"events\.jsonl must be a file, but is a special file"):
        check_layout(folder)
    os.mkfifo(folder.trials_path / "0003.json")
    with pytest.raises(StorageError, match=r"0003\.json: it must be a regular file, but is a pipe"):
        _ = fresh(folder).records


def test_all_faults_are_told_at_once(folder):
    for name in ("data.png", ".lock"):
        (folder.path / name).mkdir()
    with pytest.raises(StorageError) as caught:
        check_layout(folder)
    assert str(caught.value).count("but is a folder") == 2


def test_a_whole_study_and_a_new_one_are_as_they_must_be(folder, tmp_path):
    check_layout(folder)
    check_layout(StoredStudy(tmp_path / "new"))


def test_what_a_killed_search_left_half_written_is_removed_by_the_next_and_nothing_else(folder):
    folder.checkpoints_path.mkdir()
    left = [folder.path / name for name in (".manifest.yaml.abcd_123.tmp", ".trials.csv.abcdefgh.tmp")]
    left += [folder.trials_path / ".0001.json.01234567.tmp", folder.checkpoints_path / ".k-0.pt.q1w2e3r4.tmp"]
    kept = [folder.path / name for name in (".mine.tmp", "notes.tmp", ".notes.txt.abcdefgh.tmp")]
    for path in (*left, *kept):
        path.write_text("{")
    (folder.path / ".front.csv.abcdefgh.tmp").symlink_to(kept[0])
    with locked(folder):
        assert [path for path in left if path.exists()] == []
    assert all(path.exists() for path in kept)
    assert len(fresh(folder).records) == 1


def test_a_file_in_the_place_of_all_trials_is_no_empty_study(folder):
    (folder.trials_path / "0000.json").unlink()
    folder.trials_path.rmdir()
    folder.trials_path.write_text("")
    with pytest.raises(StorageError, match="must be the folder of the trials, but is a file"):
        _ = fresh(folder).records


@pytest.mark.parametrize("kind", ["deleted", "folder"])
def test_trials_without_a_manifest_are_told_apart_from_no_study(folder, kind):
    folder.manifest_path.unlink()
    if kind == "folder":
        folder.manifest_path.mkdir()
    with pytest.raises(
        RecordError, match=r"holds a study, but .*manifest\.yaml .* Repair the study: hilo-nas repair demo"
    ):
        open_study("demo")
