"""Locks of files: the same laws on Unix and, with a replacement of its module, on Windows."""

import contextlib
import errno
import fcntl
import os
import sys
from types import SimpleNamespace

import pytest
from windows import FakeMsvcrt

from hilo_nas.files.file_lock import UnixLocks, WindowsLocks, load_lock_system


@pytest.fixture(params=["Unix", "Windows"])
def system(request):
    return UnixLocks(fcntl) if request.param == "Unix" else WindowsLocks(FakeMsvcrt())


@pytest.fixture
def opened(tmp_path):
    """Opens the same file once more with each call."""
    with contextlib.ExitStack() as stack:

        def opened(name="lock"):
            handle = os.open(tmp_path / name, os.O_RDWR | os.O_CREAT)
            stack.callback(os.close, handle)
            return handle

        yield opened


@pytest.mark.parametrize(("first", "second"), [(True, True), (True, False), (False, True)])
def test_a_lock_for_one_alone_excludes_all_others(system, opened, first, second):
    holder, other = opened(), opened()
    release = system.try_lock(holder, alone=first)
    assert system.try_lock(other, alone=second) is None
    release()
    assert system.try_lock(other, alone=second) is not None


def test_shared_locks_exclude_one_alone_until_the_last_is_released(system, opened):
    sharers, other = [opened() for _ in range(3)], opened()
    releases = [system.try_lock(handle, alone=False) for handle in sharers]
    for release in releases:
        assert system.try_lock(other, alone=True) is None
        release()
    assert system.try_lock(other, alone=True) is not None


def test_locks_of_different_files_do_not_exclude_each_other(system, opened):
    assert system.try_lock(opened("lock"), alone=True) is not None
    assert system.try_lock(opened("queue"), alone=True) is not None


def test_a_lock_that_was_refused_leaves_nothing_behind(system, opened):
    release = system.try_lock(opened(), alone=False)
    assert system.try_lock(opened(), alone=True) is None
    assert system.try_lock(opened(), alone=False) is not None
    release()


def test_a_closed_file_cannot_be_locked(system, opened, tmp_path):
    handle = os.open(tmp_path / "closed", os.O_RDWR | os.O_CREAT)
    os.close(handle)
    with pytest.raises(OSError, match="Bad file descriptor"):
        system.try_lock(handle, alone=True)


def test_on_windows_a_lock_has_room_for_64_that_share_it(opened):
    system, handles = WindowsLocks(FakeMsvcrt()), [opened() for _ in range(65)]
    releases = [system.try_lock(handle, alone=False) for handle in handles]
    assert [index for index, release in enumerate(releases) if release is None] == [64]
    releases[7]()
    assert system.try_lock(handles[64], alone=False) is not None


@pytest.mark.parametrize("build", [UnixLocks, WindowsLocks])
def test_a_file_system_without_locks_is_an_error_and_no_wait(opened, build):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    module = SimpleNamespace(LOCK_EX=2, LOCK_SH=1, LOCK_NB=4, LOCK_UN=8, LK_NBLCK=2, flock=refuse, locking=refuse)
    with pytest.raises(OSError, match="No locks available"):
        build(module).try_lock(opened(), alone=False)


def test_each_system_loads_its_own_module(monkeypatch):
    monkeypatch.setitem(sys.modules, "msvcrt", FakeMsvcrt())
    assert isinstance(load_lock_system("win32"), WindowsLocks)
    assert isinstance(load_lock_system("linux"), UnixLocks)
    assert isinstance(load_lock_system("darwin"), UnixLocks)
