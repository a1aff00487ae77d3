"""Folders opened by their file descriptor, as on Unix, and by their path, as on Windows."""

import os
from pathlib import Path

import pytest

from hilo_nas.data.ownership import remove_folder
from hilo_nas.files.open_folders import opened_folder
from hilo_nas.timing import shared_files


@pytest.fixture(params=[True, False], ids=["descriptor", "path"])
def by_handle(request):
    return request.param


def test_files_are_made_listed_and_removed(tmp_path, by_handle):
    with opened_folder(tmp_path, by_handle=by_handle) as folder:
        folder.make("below")
        os.close(folder.open("file", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        assert sorted(folder.names()) == ["below", "file"]
        folder.remove("file")
    assert [path.name for path in tmp_path.iterdir()] == ["below"]


def test_a_folder_below_another_is_opened_by_its_name(tmp_path, by_handle):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file").touch()
    with (
        opened_folder(tmp_path, by_handle=by_handle) as top,
        opened_folder(Path("below"), below=top, by_handle=by_handle) as folder,
    ):
        assert folder.path == tmp_path / "below"
        assert folder.names() == ["file"]


@pytest.mark.parametrize("kind", ["link", "file", "nothing"])
def test_what_is_no_folder_is_refused(tmp_path, by_handle, kind):
    path = tmp_path / "folder"
    if kind == "link":
        (tmp_path / "target").mkdir()
        path.symlink_to(tmp_path / "target")
    elif kind == "file":
        path.touch()
    with pytest.raises((NotADirectoryError, FileNotFoundError)), opened_folder(path, by_handle=by_handle):
        pass


def test_a_file_that_is_a_link_is_refused(tmp_path, by_handle):
    (tmp_path / "target").write_text("private")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with opened_folder(tmp_path, by_handle=by_handle) as folder, pytest.raises(OSError, match="link"):
        folder.open("link", os.O_RDONLY)


def test_removing_a_link_leaves_its_target(tmp_path, by_handle):
    (tmp_path / "target").touch()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with opened_folder(tmp_path, by_handle=by_handle) as folder:
        folder.remove("link")
        assert folder.names() == ["target"]


def test_shared_files_are_written_locked_and_read(tmp_path, by_handle):
    with shared_files.open_folder(tmp_path / "locks", named=False, by_handle=by_handle) as folder:
        assert folder.status.st_mode & 0o7777 == 0o1777
        os.close(shared_files.open_file(folder, "lock"))
        os.close(shared_files.open_file(folder, "lock"))  # now it exists
        for text in ("old", "new"):
            shared_files.write_new(folder, "card", text)
        assert shared_files.read_text(folder, "card") == "new"
        shared_files.discard(folder, "card")
        shared_files.discard(folder, "card")
    assert [path.name for path in (tmp_path / "locks").iterdir()] == ["lock"]


def test_an_image_set_is_removed_and_other_files_in_its_folder_are_kept(tmp_path, by_handle):
    whole, mixed = tmp_path / "whole", tmp_path / "mixed"
    for folder in (whole, mixed):
        folder.mkdir()
        (folder / "images.npy").touch()
    (mixed / "notes.txt").touch()
    remove_folder(whole, by_handle=by_handle)
    remove_folder(whole, by_handle=by_handle)
    assert not whole.exists()
    with pytest.raises(OSError, match="not empty"):
        remove_folder(mixed, by_handle=by_handle)
    assert [path.name for path in mixed.iterdir()] == ["notes.txt"]
