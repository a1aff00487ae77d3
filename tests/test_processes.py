import os
import subprocess
import sys

import pytest
from windows import FakeWinapi

from hilo_nas.processes import ProcessWatch, is_running


def test_a_process_runs_until_it_has_ended():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert is_running(process.pid)
    process.communicate(b"\n")
    assert not is_running(process.pid)
    assert is_running(os.getpid())


def test_a_number_that_no_process_can_have_is_not_running():
    assert not is_running(2**80)


@pytest.mark.parametrize(("pid", "runs"), [(1, True), (2, False), (3, True), (4, False)])
def test_on_windows_a_process_is_opened_and_closed_again(pid, runs):
    windows = FakeWinapi(running={1}, ended={2}, foreign={3})
    assert is_running(pid, windows=windows) == runs
    assert windows.handles == []


def test_on_windows_a_watched_process_is_seen_to_end():
    windows = FakeWinapi(running={1})
    watch = ProcessWatch(1, windows=windows)
    assert watch.is_running()
    windows.running, windows.ended = set(), {1}
    assert not watch.is_running()
    watch.close()
    assert windows.handles == []
