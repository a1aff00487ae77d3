"""A search warns where a lock may not exclude other hosts, and says what to type."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hilo_nas.searching.opening.network_disks import warn_of_network_disks
from hilo_nas.study.stored_study import StoredStudy

LOCAL = "20 1 8:1 / / rw - ext4 /dev/sda rw\n"


def warnings(folder, mounts, locks="/tmp/locks"):
    events = []
    warn_of_network_disks(StoredStudy(Path(folder)), events.append, locks=Path(locks), mounts=LOCAL + mounts)
    assert all(event.level == "warning" for event in events)
    return [event.text for event in events]


def test_local_disks_are_no_matter():
    assert warnings("/data/demo", "21 20 0:2 / /shared rw - nfs4 server:/x rw\n") == []


def test_a_study_on_a_network_file_system_is_told_with_the_way_out():
    (text,) = warnings("/shared/demo", "21 20 0:2 / /shared rw - nfs4 server:/x rw\n")
    assert text.startswith("study demo is on a network file system (nfs4), whose lock may not exclude other hosts")
    assert "--study PATH" in text


def test_locks_on_a_network_file_system_are_told_with_the_command():
    (text,) = warnings("/data/demo", "21 20 0:2 / /home rw - lustre host:/x rw\n", locks="/home/me/locks")
    assert "the device locks in /home/me/locks are on a network file system (lustre)" in text
    assert text.endswith("export HILO_NAS_LOCKS_DIR=/dev/shm/hilo-nas-devices")


SEARCH = """
from fakes import FakeMachine
from hilo_nas.searching import SearchConfig, run_search
request = SearchConfig.of(space="litv2_digits", study="demo", trials=1, sampler="random", remeasure=False)
run_search(request, lambda event: print(event), evaluator=FakeMachine())
"""


def test_a_search_reads_the_mounts_of_its_process(tmp_path):
    """The list of mounts that the search reads is covered by another one, in a namespace of its own."""
    (tmp_path / "mounts").write_text(f"{LOCAL}21 20 0:2 / {tmp_path} rw - nfs4 server:/x rw\n")
    script = 'mount --bind "$1" /proc/$$/mountinfo || exit 77; shift; exec "$@"'
    command = ["unshare", "--mount", *["--map-root-user"] * (os.geteuid() != 0), "sh", "-c", script, "sh"]
    environment = {
        **os.environ,
        "HILO_NAS_STUDIES_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)]),
    }
    child = [str(tmp_path / "mounts"), sys.executable, "-c", SEARCH]
    try:
        done = subprocess.run([*command, *child], capture_output=True, text=True, env=environment)
    except FileNotFoundError:
        pytest.skip("this system has no unshare")
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip("this user cannot mount")
    assert done.returncode == 0, done.stderr
    assert "study demo is on a network file system (nfs4)" in done.stdout
