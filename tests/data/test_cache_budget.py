"""The disk budget of the image cache: what goes first, what stays, and who says so."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hilo_nas.data import clear_caches, list_caches
from hilo_nas.data.cache_budget import trim_cache
from hilo_nas.data.image_sets import load_entry
from hilo_nas.data.prepared_images import describe_data
from hilo_nas.data.set_uses import SetUse, last_use, unused
from hilo_nas.events import DataRead, Notice

USER = """
import sys
from pathlib import Path
from hilo_nas.data.set_uses import SetUse

use = SetUse(Path(sys.argv[1]))
print("uses it", flush=True)
sys.stdin.readline()
"""
TINY_GIB = 0.5 / 2**20
"""Half a KiB, which is less than any set."""


@pytest.fixture
def sets(prepare, images, own_cache, events):
    """Three sets of one source, used one after the other: at 8, 16 and 24 pixels."""
    folder = images.folder("pets", {"cats": 3, "dogs": 4})
    paths = [Path(prepare(folder, size).path) for size in (8, 16, 24)]
    for i, path in enumerate(paths):
        SetUse(path).close()
        os.utime(own_cache / "data" / "uses" / f"{path.name}.use", (1000 + i, 1000 + i))
    events.clear()
    return paths


def sizes_left():
    return [entry.img_size for entry in list_caches()]


def gib_of(*sizes):
    """Disk space of the sets with these sides of their images."""
    return sum(entry.size_mib for entry in list_caches() if entry.img_size in sizes) / 1024


def test_sets_go_in_the_order_of_their_last_use_until_the_others_fit(sets, own_cache, events):
    removed = trim_cache(own_cache, gib_of(16, 24), needed=[], emit=events.append)
    assert [entry.img_size for entry in removed] == [8]
    assert sizes_left() == [16, 24]
    (event,) = events
    assert event.level == "info"
    assert f"removed 1 image set from {own_cache}: pets at 8 px (" in event.text
    assert event.text.endswith("A search that needs it decodes its images again")


def test_a_set_that_was_used_again_stays_longer(sets, own_cache, events):
    SetUse(sets[0]).close()
    assert last_use(sets[0]) > last_use(sets[1])
    trim_cache(own_cache, gib_of(8, 24), needed=[], emit=events.append)
    assert sizes_left() == [8, 24]


def test_a_cache_within_its_budget_keeps_everything_and_says_nothing(sets, own_cache, events):
    assert trim_cache(own_cache, gib_of(8, 16, 24), needed=[], emit=events.append) == []
    assert sizes_left() == [8, 16, 24]
    assert events == []


def test_what_the_study_needs_stays_and_a_budget_below_it_is_warned_of(sets, own_cache, events):
    trim_cache(own_cache, TINY_GIB, needed=[sets[0]], emit=events.append)
    assert sizes_left() == [8]
    assert [event.level for event in events] == ["info", "warning"]
    assert f"the image cache {own_cache} must fit data.max_cache_gib=" in events[1].text


def test_a_set_in_use_by_another_process_stays_until_that_ends(sets, own_cache, events):
    command = [sys.executable, "-c", USER, str(sets[0])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout.readline() == "uses it\n"
        trim_cache(own_cache, TINY_GIB, needed=[], emit=events.append)
        assert sizes_left() == [8]
        assert "in use" in events[-1].text
        user.kill()
        user.wait()
        trim_cache(own_cache, TINY_GIB, needed=[], emit=events.append)
    assert sizes_left() == []


def test_a_set_is_in_use_until_its_use_is_closed(sets):
    use = SetUse(sets[0])
    with unused(sets[0]) as is_unused:
        assert not is_unused
    use.close()
    use.close()
    with unused(sets[0]) as is_unused:
        assert is_unused


def test_other_files_in_the_folder_of_a_set_are_kept(sets, own_cache, events):
    (sets[0] / "notes.txt").write_text("mine")
    renamed = sets[1].rename(sets[1].with_name("my-backup"))
    trim_cache(own_cache, TINY_GIB, needed=[], emit=events.append)
    assert (sets[0] / "notes.txt").read_text() == "mine"
    assert load_entry(sets[0]) is not None  # the whole set stays
    assert load_entry(renamed) is not None
    assert sizes_left() == [8, 16]


def test_a_use_begins_when_a_removal_has_ended(sets):
    with unused(sets[0]) as is_unused:
        assert is_unused
        waiting = threading.Thread(target=lambda: uses.append(SetUse(sets[0])))
        uses = []
        waiting.start()
        waiting.join(0.2)
        assert not uses
    waiting.join(10)
    with unused(sets[0]) as is_unused:
        assert not is_unused
    uses[0].close()


def test_asking_for_uses_does_not_count_as_one(sets, own_cache):
    os.utime(sets[0], (500, 500))
    (own_cache / "data" / "uses" / f"{sets[0].name}.use").unlink()
    with unused(sets[0]):
        pass
    assert last_use(sets[0]) == 500


def test_a_use_is_never_noted_through_a_link(sets, own_cache, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    os.utime(precious, (1, 1))
    file = own_cache / "data" / "uses" / f"{sets[0].name}.use"
    file.unlink()
    file.symlink_to(precious)
    SetUse(sets[0]).close()
    assert precious.stat().st_mtime == 1


def test_images_outside_a_cache_are_used_without_a_trace(tmp_path):
    (tmp_path / "elsewhere" / "set").mkdir(parents=True)
    SetUse(tmp_path / "elsewhere" / "set").close()
    assert [path.name for path in tmp_path.iterdir() if path.name == "uses"] == []


def test_the_notes_of_uses_are_no_foreign_files(sets, own_cache, events):
    (own_cache / "CACHEDIR.TAG").unlink()
    assert len(clear_caches(emit=events.append)) == 3
    assert events == []


def test_preparing_for_a_search_keeps_its_own_images_and_fits_the_rest(sets, images, own_cache, events):
    folder = images.folder("flowers", {"roses": 3, "tulips": 4})
    described = describe_data(str(folder), 8, None, None, max_cache_gib=TINY_GIB, emit=events.append)
    assert [str(entry.path) for entry in list_caches()] == [described["path"]]
    with unused(Path(described["path"])) as is_unused:
        assert not is_unused
    removed = [event.text for event in events if isinstance(event, Notice) and "removed 3 image sets" in event.text]
    assert len(removed) == 1


def test_images_that_another_process_removed_before_their_use_are_read_again(images, events):
    def emit(event):
        if isinstance(event, DataRead) and not any(isinstance(event, DataRead) for event in events):
            (entry,) = list_caches()
            shutil.rmtree(entry.path)
        events.append(event)

    described = describe_data(str(images.folder("flowers", {"roses": 3, "tulips": 4})), 8, None, None, emit=emit)
    assert [str(entry.path) for entry in list_caches()] == [described["path"]]
    assert sum(isinstance(event, DataRead) for event in events) == 2


def test_preparing_without_a_budget_removes_nothing(sets, images, events):
    describe_data(str(images.folder("flowers", {"roses": 3, "tulips": 4})), 8, None, None, emit=events.append)
    assert len(list_caches()) == 4
