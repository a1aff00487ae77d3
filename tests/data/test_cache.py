from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import filelock
import numpy as np
import pytest
from PIL import Image

from hilo_nas.data import clear_caches, default_cache_dir, list_caches
from hilo_nas.data.cache import find_or_build, load_arrays, load_entry
from hilo_nas.errors import NotFoundError, StorageError
from hilo_nas.events import DataPrepared, Notice

TWO = {"cats": 3, "dogs": 4}

BUILDER = """
    import json, sys
    from pathlib import Path
    from hilo_nas.events import event_to_dict
    from hilo_nas.data import prepare_data

    seen = []
    sys.stdin.readline()
    data = prepare_data(sys.argv[1], 8, cache_dir=Path(sys.argv[2]), emit=lambda e: seen.append(event_to_dict(e)))
    print(json.dumps({"data": data.to_dict(), "events": seen}))
"""

CASUALTY = """
    import sys, time
    from pathlib import Path
    from hilo_nas.data.cache import find_or_build

    def build(workshop):
        (workshop / "images.npy").write_bytes(b"half")
        print("half way", flush=True)
        time.sleep(60)

    find_or_build(Path(sys.argv[1]), "f" * 64, 8, build, print)
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_prepared_source_is_not_read_again(prepare, images, events):
    folder = images.folder("pets", TWO)
    first = prepare(folder)
    events.clear()
    assert prepare(folder) == first
    assert not any(isinstance(event, DataPrepared) for event in events)


def test_a_changed_file_is_noticed(prepare, images):
    folder = images.folder("pets", TWO)
    first = prepare(folder)
    images.folder("pets", {"cats": 1}, seed=7)
    assert prepare(folder).content_hash != first.content_hash
    (folder / "dogs" / "3.png").unlink()
    assert prepare(folder).n_images == 6


@pytest.mark.parametrize("part", ["images.npy", "labels.npy", "digests.npy", "members.npy", "meta.json"])
def test_a_cut_off_cache_is_noticed_and_rebuilt(prepare, images, events, part):
    folder = images.folder("pets", TWO)
    first = prepare(folder)
    damaged = Path(first.path) / part
    os.truncate(damaged, damaged.stat().st_size - 3)
    assert load_entry(Path(first.path)) is None
    with pytest.raises(StorageError, match="missing or damaged"):
        load_arrays(Path(first.path))
    events.clear()
    assert prepare(folder) == first
    assert DataPrepared(done=7, total=7) in events
    assert load_entry(Path(first.path)) is not None


def test_a_cache_of_another_version_is_rebuilt(prepare, images):
    folder = images.folder("pets", TWO)
    meta = Path(prepare(folder).path) / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "format": 0}))
    assert list_caches() == []
    assert load_entry(Path(prepare(folder).path)) is not None


@pytest.mark.parametrize(
    "field", ["format", "name", "content_hash", "img_size", "n_images", "class_names", "class_counts"]
)
def test_a_cache_whose_description_lacks_something_is_rebuilt(prepare, images, field):
    folder = images.folder("pets", TWO)
    first = prepare(folder)
    meta = Path(first.path) / "meta.json"
    fields = json.loads(meta.read_text())
    whole = dict(fields)
    del fields[field]
    meta.write_text(json.dumps(fields))
    assert load_entry(Path(first.path)) is None
    assert list_caches() == []
    assert prepare(folder) == first
    assert json.loads(meta.read_text()) == whole


@pytest.mark.parametrize("text", ["null", "[]", "3", '{"format": 1, "n_images": 7, "img_size": 8, "class_names": 3}'])
def test_a_cache_whose_description_is_something_else_is_damaged(prepare, images, text):
    path = Path(prepare(images.folder("pets", TWO)).path)
    (path / "meta.json").write_text(text)
    assert load_entry(path) is None


@pytest.mark.parametrize("act", [list_caches, clear_caches])
def test_a_cache_that_may_not_be_read_is_refused_in_words(prepare, images, own_cache, monkeypatch, act):
    prepare(images.folder("pets", TWO))

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(StorageError, match=r"cannot be read \(Permission denied\).*set HILO_NAS_CACHE_DIR") as caught:
        act()
    assert str(own_cache) in str(caught.value)


def test_who_waits_for_another_builder_says_so_once_and_gives_signs_of_life(prepare, images, own_cache, tmp_path):
    data = prepare(images.folder("pets", TWO))
    (index,) = (own_cache / "data" / "index").iterdir()
    known, whole = json.loads(index.read_text()), shutil.copytree(data.path, tmp_path / "whole")
    (job,) = [file.stem for file in (own_cache / "data" / "locks").iterdir()]
    (Path(data.path) / "meta.json").unlink()

    built = []

    def build(workshop):
        built.append(shutil.copytree(whole, workshop, dirs_exist_ok=True))
        return known["content_hash"], known["key"]

    other = filelock.FileLock(own_cache / "data" / "locks" / f"{job}.lock")
    seen = []

    def emit(event):
        seen.append(event)
        if seen.count(DataPrepared(done=0, total=None)) == 3:
            other.release()

    with other:
        again = find_or_build(own_cache, index.stem, 8, build, emit, heartbeat_s=0.01)
    assert (str(again.path), again.content_hash) == (data.path, data.content_hash)
    notices = [event.text for event in seen if isinstance(event, Notice)]
    assert notices[0].endswith("is damaged or from an earlier version: it is rebuilt")
    assert [text for text in notices if "waiting" in text] == notices[1:2]
    assert seen[2:5] == [DataPrepared(done=0, total=None)] * 3
    assert len(built) == 1


def test_two_processes_that_build_the_same_cache_at_once_share_the_work(images, own_cache):
    folder = images.folder("pets", {"cats": 300, "dogs": 300})
    builders = [start(BUILDER, folder, own_cache) for _ in range(2)]
    outcomes = []
    for builder in builders:
        assert builder.stdin
        builder.stdin.write("go\n")
        builder.stdin.flush()
    for builder in builders:
        output, _ = builder.communicate(timeout=60)
        assert builder.returncode == 0
        outcomes.append(json.loads(output))
    assert outcomes[0]["data"] == outcomes[1]["data"]
    # The waiting process emits progress events with done=0.
    built = [any(event.get("done", 0) > 0 for event in outcome["events"]) for outcome in outcomes]
    assert sorted(built) == [False, True]
    assert len(list_caches()) == 1


def test_what_a_killed_builder_leaves_is_no_cache_and_is_removed_by_the_next(prepare, images, own_cache):
    builder = start(CASUALTY, own_cache)
    assert builder.stdout
    assert builder.stdout.readline() == "half way\n"
    builder.send_signal(signal.SIGKILL)
    builder.communicate()
    building = own_cache / "data" / "building"
    assert len(list(building.iterdir())) == 1
    assert list_caches() == []
    prepare(images.folder("pets", TWO))
    assert list(building.iterdir()) == []
    assert [entry.name for entry in list_caches()] == ["pets"]


def test_a_build_under_way_is_not_swept_away(prepare, images, own_cache):
    builder = start(CASUALTY, own_cache)
    assert builder.stdout
    builder.stdout.readline()
    prepare(images.folder("pets", TWO))
    clear_caches()
    assert len(list((own_cache / "data" / "building").iterdir())) == 1
    builder.kill()
    builder.communicate()


def test_a_failed_build_leaves_nothing(own_cache, events):
    def build(workshop: Path) -> tuple[str, str]:
        (workshop / "images.npy").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageError, match=r"the disk is full.*HILO_NAS_CACHE_DIR"):
        find_or_build(own_cache, "f" * 64, 8, build, events.append)
    assert list((own_cache / "data" / "building").iterdir()) == []


def test_a_disk_that_is_too_small_is_noticed_before_the_first_image(prepare, images, monkeypatch):
    class Tiny:
        free = 100

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Tiny)
    with pytest.raises(StorageError, match="7 images of 8 pixels need"):
        prepare(images.folder("pets", TWO))


def test_a_cache_folder_that_cannot_be_made_is_refused(prepare, images, own_cache):
    own_cache.write_text("a file stands here")
    with pytest.raises(StorageError, match="cannot be written"):
        prepare(images.folder("pets", TWO))


def test_caches_are_listed_and_cleared_by_name(prepare, images, own_cache):
    prepare(images.folder("pets", TWO))
    prepare(images.folder("pets", TWO), img_size=16)
    hash_of_flowers = prepare(images.folder("flowers", TWO, seed=1)).content_hash
    listed = [(entry.name, entry.img_size, entry.n_images, len(entry.class_names)) for entry in list_caches()]
    assert listed == [("flowers", 8, 7, 2), ("pets", 8, 7, 2), ("pets", 16, 7, 2)]
    assert all(entry.size_mib > 0 for entry in list_caches())
    with pytest.raises(NotFoundError, match="holds flowers, pets"):
        clear_caches(names=["trees"])
    assert [entry.img_size for entry in clear_caches(names=["pets"])] == [8, 16]
    assert [entry.name for entry in clear_caches(names=[hash_of_flowers[:10]])] == ["flowers"]
    assert list_caches() == []
    assert list((own_cache / "data" / "index").iterdir()) == []


def test_clearing_removes_damaged_sets_too(prepare, images, own_cache):
    entry = prepare(images.folder("pets", TWO))
    (Path(entry.path) / "meta.json").unlink()
    assert clear_caches() == []
    assert list((own_cache / "data" / "sets").iterdir()) == []


def test_without_a_cache_there_is_nothing_to_list_or_clear(tmp_path):
    assert list_caches(tmp_path / "none") == []
    assert clear_caches(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_the_default_folder_follows_the_environment(monkeypatch, tmp_path, own_cache):
    assert default_cache_dir() == own_cache
    monkeypatch.delenv("HILO_NAS_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir() == tmp_path / "xdg" / "hilo-nas"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path.home() / ".cache" / "hilo-nas"


def test_listing_and_a_prepared_source_do_without_torch(prepare, images, own_cache):
    folder = images.folder("pets", TWO)
    prepare(folder)
    script = """
        import sys
        from pathlib import Path
        from hilo_nas.data import list_caches, prepare_data
        assert len(list_caches(Path(sys.argv[2]))) == 1
        prepare_data(sys.argv[1], 8, cache_dir=Path(sys.argv[2]), emit=lambda event: None)
        assert not {"torch", "timm", "sklearn"} & set(sys.modules)
    """
    assert start(script, folder, own_cache).communicate()[0] == ""


# Damage and change.


@pytest.mark.parametrize("place", [6, 8, 12, 30, 60, 90])
def test_a_changed_byte_of_a_header_is_noticed_and_rebuilt(prepare, images, place):
    folder = images.folder("pets", TWO)
    first = prepare(folder)
    with open(Path(first.path) / "images.npy", "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 0x15]))
    with pytest.raises(StorageError, match="missing or damaged"):
        load_arrays(Path(first.path))
    assert prepare(folder) == first
    load_arrays(Path(first.path))


@pytest.mark.parametrize("part", ["images", "labels", "digests", "members"])
def test_a_changed_value_is_noticed_and_rebuilt_even_with_the_old_time(prepare, images, events, part):
    folder = images.folder("pets", TWO)
    first = prepare(folder)
    file = Path(first.path) / f"{part}.npy"
    status, whole = file.stat(), file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(StorageError, match="is missing or damaged"):
        load_arrays(Path(first.path))
    events.clear()
    assert prepare(folder) == first
    assert any(isinstance(event, Notice) and "was changed on disk" in event.text for event in events)
    assert file.read_bytes() == whole


def test_a_copied_cache_is_compared_with_its_digests_once(prepare, images):
    path = Path(prepare(images.folder("pets", TWO)).path)
    stamp, inodes = path / "stamp.json", []
    inodes.append(stamp.stat().st_ino)
    os.utime(path / "images.npy")
    script = """
        import sys
        from pathlib import Path
        from hilo_nas.data.cache import load_arrays
        load_arrays(Path(sys.argv[1]))
    """
    for _ in range(2):
        assert start(script, path).communicate()[0] == ""
        inodes.append(stamp.stat().st_ino)
    assert inodes[0] != inodes[1] == inodes[2]  # each comparison writes a new stamp


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES])
def test_what_cannot_be_opened_is_not_taken_for_damaged(prepare, images, monkeypatch, number):
    folder = images.folder("pets", TWO)
    path = Path(prepare(folder).path)
    before = sorted(file.name for file in path.iterdir())
    load = np.load

    def refuse(file, *args, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(np, "load", refuse)
    for act in (lambda: prepare(folder), lambda: load_arrays(path), list_caches, clear_caches):
        with pytest.raises(StorageError, match=os.strerror(number)):
            act()
    monkeypatch.setattr(np, "load", load)
    assert sorted(file.name for file in path.iterdir()) == before


@pytest.mark.parametrize("part", ["images.npy", "meta.json", "stamp.json"])
def test_a_pipe_in_the_place_of_a_file_does_not_hang(prepare, images, part):
    folder = images.folder("pets", TWO)
    path = Path(prepare(folder).path)
    os.truncate(path / "labels.npy", 0)  # so that it is looked at again
    (path / part).unlink()
    os.mkfifo(path / part)
    assert load_entry(path) is None
    assert load_entry(Path(prepare(folder).path)) is not None


def test_other_content_of_the_same_size_and_time_is_noticed(prepare, images, events):
    folder = images.folder("pets", TWO)
    for file in list(folder.rglob("*.png")):
        Image.open(file).save(file.with_suffix(".bmp"))
        file.unlink()
    first = prepare(folder)
    assert prepare(folder) == first
    file = folder / "dogs" / "1.bmp"
    status = file.stat()
    Image.open(file).transpose(Image.Transpose.ROTATE_180).save(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert prepare(folder).content_hash != first.content_hash
    texts = [event.text for event in events if isinstance(event, Notice)]
    assert any(f"{file} changed" in text for text in texts)


# What is not of hilo-nas.


def foreign_cache(root: Path) -> list[Path]:
    """Makes a folder of another program that uses names of the cache."""
    files = [root / "data" / "sets" / "house" / "plan.txt", root / "data" / "building" / "shed" / "images.npy"]
    files += [
        root / "data" / "sets" / f"{'a' * 16}-{'b' * 8}-8px" / "thesis.tex",
        root / "data" / "index" / "book.json",
    ]
    files += [root / "data" / "sets" / f"{'c' * 16}-{'d' * 8}-8px" / "images.npy", root / "notes.txt"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("precious")
    return files


def test_a_foreign_folder_is_never_cleared(own_cache):
    files = foreign_cache(own_cache)
    with pytest.raises(StorageError, match="no marker"):
        clear_caches()
    assert all(file.read_text() == "precious" for file in files)


def test_a_search_in_a_foreign_folder_removes_nothing_there_and_does_not_mark_it(prepare, images, own_cache):
    files = foreign_cache(own_cache)
    prepare(images.folder("pets", TWO))
    prepare(images.folder("pets", TWO), img_size=16)
    assert all(file.read_text() == "precious" for file in files)
    assert not (own_cache / "CACHEDIR.TAG").exists()
    with pytest.raises(StorageError, match="no marker"):
        clear_caches()
    assert len(list_caches()) == 2


def test_what_strangers_put_into_a_marked_cache_is_left_alone_and_named(prepare, images, own_cache, events):
    prepare(images.folder("pets", TWO))
    assert (own_cache / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    alien = own_cache / "data" / "sets" / "house"
    alien.mkdir()
    (alien / "plan.txt").write_text("precious")
    events.clear()
    assert len(clear_caches(emit=events.append)) == 1
    assert (alien / "plan.txt").read_text() == "precious"
    assert [str(alien) in event.text for event in events] == [True]


def test_a_cache_without_a_marker_is_recognized_by_its_form(prepare, images, own_cache):
    prepare(images.folder("pets", TWO))
    (own_cache / "CACHEDIR.TAG").unlink()
    assert len(clear_caches()) == 1


@pytest.mark.parametrize("link", ["data", "data/sets", "data/building", "data/index"])
def test_links_in_the_place_of_the_caches_folders_are_refused(prepare, images, own_cache, tmp_path, link):
    folder = images.folder("pets", TWO)
    prepare(folder)
    elsewhere = tmp_path / "elsewhere"
    (own_cache / link).rename(elsewhere)
    (own_cache / link).symlink_to(elsewhere)
    before = sorted(map(str, elsewhere.rglob("*")))
    for act in (lambda: prepare(folder), list_caches, clear_caches):
        with pytest.raises(StorageError, match="but is a link"):
            act()
    assert sorted(map(str, elsewhere.rglob("*"))) == before


def test_a_link_in_the_place_of_a_set_is_not_followed(prepare, images, own_cache, tmp_path):
    path = Path(prepare(images.folder("pets", TWO)).path)
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")
    clear_caches()
    assert (tmp_path / "moved" / "images.npy").is_file()


def test_torn_entries_of_the_index_are_removed_by_the_next_run(prepare, images, own_cache):
    folder = images.folder("pets", TWO)
    prepare(folder)
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    torn = own_cache / "data" / "index" / f"{'e' * 64}.{int(dead.stdout)}.tmp"
    torn.write_text("{")
    prepare(folder)
    assert not torn.exists()


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_trap_in_the_place_of_a_lock_is_refused_and_what_it_leads_to_stays(
    prepare, images, own_cache, tmp_path, kind
):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    prepare(images.folder("pets", TWO))
    job = f"{'e' * 16}-8px"
    lock = own_cache / "data" / "locks" / f"{job}.lock"
    if kind == "link":
        lock.symlink_to(precious)
    else:
        os.mkfifo(lock)
    with pytest.raises(StorageError, match=rf"the lock .*{job}\.lock must be a regular file, but is a {kind}"):
        find_or_build(own_cache, "e" * 64, 8, lambda folder: pytest.fail("built"), print)
    assert precious.read_text() == "mine"


def test_a_refused_lock_leaves_its_work_alone_and_all_else_is_cleared(prepare, images, own_cache, tmp_path, events):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    prepare(images.folder("pets", TWO))
    left = own_cache / "data" / "building" / f"{'e' * 16}-8px"
    left.mkdir()
    lock = own_cache / "data" / "locks" / f"{left.name}.lock"
    lock.symlink_to(precious)
    report = own_cache / "data" / "reports" / "pets-broken.txt"
    report.write_text("")
    events.clear()
    assert len(clear_caches(emit=events.append)) == 1
    assert [str(lock) in event.text for event in events] == [True]
    assert precious.read_text() == "mine"
    assert left.is_dir()
    assert not report.exists()
    assert not list((own_cache / "data" / "index").iterdir())


@pytest.mark.parametrize("kind", ["pipe", "huge", "nested"])
def test_an_index_that_is_no_index_counts_as_absent(prepare, images, own_cache, kind):
    folder = images.folder("pets", TWO)
    first = prepare(folder)
    (index,) = (own_cache / "data" / "index").iterdir()
    index.unlink()
    if kind == "pipe":
        os.mkfifo(index)
    elif kind == "huge":
        with open(index, "wb") as file:
            file.truncate(2**40)  # a file with a hole, of no size on the disk
    else:
        index.write_text("[" * 100_000)
    assert prepare(folder) == first
