"""Image sets on their way to another machine: they arrive whole, or not at all."""

import shutil
import threading
from pathlib import Path

import pytest

from hilo_nas.data.cache import list_caches, load_arrays
from hilo_nas.data.ownership import find_foreign
from hilo_nas.data.set_transfer import IncomingSet, describe_set, find_copy, read_pieces
from hilo_nas.errors import StorageError


@pytest.fixture
def path(digits16):
    return Path(digits16.path)


def send(path, cache, pieces=None):
    incoming = IncomingSet(describe_set(path), cache)
    for file, piece in pieces or read_pieces(path):
        incoming.write(file, piece)
    return incoming.finish()


def test_a_set_arrives_with_equal_files(path, tmp_path):
    arrived = send(path, tmp_path / "there")
    assert arrived == tmp_path / "there/data/sets" / path.name
    assert (load_arrays(arrived)[1] == load_arrays(path)[1]).all()
    assert [entry.path for entry in list_caches(tmp_path / "there")] == [arrived]
    assert find_foreign(tmp_path / "there") == []


def test_a_set_is_found_under_a_shared_path_or_in_the_own_cache(path, tmp_path):
    described, there = describe_set(path), tmp_path / "there"
    assert find_copy(described, path, there) == path
    assert find_copy(described, Path("/nowhere"), there) is None
    arrived = send(path, there)
    assert find_copy(described, Path("/nowhere"), there) == arrived
    assert find_copy({**described, "digest": "0" * 64}, path, there) is None
    assert find_copy({**described, "name": "../sets/x"}, Path("/nowhere"), there) is None


def test_a_set_that_was_changed_is_no_copy(path, tmp_path):
    described, changed = describe_set(path), shutil.copytree(path, tmp_path / path.name)
    with open(changed / "images.npy", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    assert find_copy(described, changed, tmp_path / "there") is None


@pytest.mark.parametrize("fault", ["changed", "missing", "other description"])
def test_a_set_that_does_not_arrive_whole_is_not_added(path, tmp_path, fault):
    pieces = list(read_pieces(path))
    if fault == "changed":
        pieces[0] = (pieces[0][0], pieces[0][1][:-1] + b"\x7f")
    if fault == "missing":
        del pieces[0]
    if fault == "other description":
        pieces[-1] = (pieces[-1][0], pieces[-1][1] + b" ")
    with pytest.raises(StorageError):
        send(path, tmp_path / "there", pieces)
    assert list_caches(tmp_path / "there") == []
    assert list((tmp_path / "there/data/building").iterdir()) == []


def test_a_set_that_is_given_up_leaves_nothing(path, tmp_path):
    incoming = IncomingSet(describe_set(path), tmp_path / "there")
    incoming.write(*next(read_pieces(path)))
    incoming.give_up()
    assert list_caches(tmp_path / "there") == []
    assert list((tmp_path / "there/data/building").iterdir()) == []


def test_a_sender_that_ends_in_the_middle_does_not_block_the_next_one(path, tmp_path):
    abandoned = IncomingSet(describe_set(path), tmp_path / "there", idle_timeout_s=0.05)
    abandoned.write(*next(read_pieces(path)))
    assert send(path, tmp_path / "there").is_dir()
    with pytest.raises(StorageError, match=r"its sender was silent"):
        abandoned.finish()


def test_a_file_outside_the_set_is_refused(path, tmp_path):
    incoming = IncomingSet(describe_set(path), tmp_path / "there")
    with pytest.raises(StorageError, match=r"must be one of images\.npy"):
        incoming.write("../evil.npy", b"x")
    incoming.give_up()


@pytest.mark.parametrize("name", ["../../evil", "evil", "0123456789abcdef-16px/.."])
def test_a_set_with_another_name_is_refused(tmp_path, name):
    incoming = IncomingSet({"name": name, "digest": "0" * 64}, tmp_path / "there")
    with pytest.raises(StorageError, match="must have the name of its hash"):
        incoming.finish()


def test_of_two_senders_of_a_set_both_succeed(path, tmp_path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(send(path, tmp_path / "there"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 2
    assert len(list_caches(tmp_path / "there")) == 1


def test_a_damaged_set_is_not_described(path, tmp_path):
    damaged = shutil.copytree(path, tmp_path / path.name)
    (damaged / "meta.json").unlink()
    with pytest.raises(StorageError, match="missing or damaged"):
        describe_set(damaged)
