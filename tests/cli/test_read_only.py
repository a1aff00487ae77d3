"""Studies on a read-only file system are read, reported and timed into another study; what would write is refused.

The file system is a mount in a namespace of its own, because modes of files do not hold for root.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from builders import demo_records, write_study

UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
MOUNT = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
CHILD = """
import contextlib, io, json, sys
from fakes import FakeMachine
from builders import build_device
from hilo_nas.cli import main
from hilo_nas.testing import use_evaluator

found = []
for command in json.loads(sys.argv[1]):
    said, err = io.StringIO(), io.StringIO()
    machine = FakeMachine(devices={"cpu": build_device(), "cuda": build_device(kind="cuda", model="Test GPU")})
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(err), use_evaluator(machine):
        code = main(command)
    found.append([code, said.getvalue(), err.getvalue()])
print(json.dumps(found))
"""


@pytest.fixture
def run(tmp_path):
    """Runs commands where the folder of studies is read-only, and returns the codes and outputs."""
    write_study(tmp_path / "studies", "demo", demo_records())
    (tmp_path / "probe").mkdir()
    probe = [*UNSHARE, "sh", "-c", MOUNT, "sh", str(tmp_path / "probe"), "true"]
    try:
        if subprocess.run(probe, capture_output=True).returncode:
            pytest.skip("this user cannot mount a read-only file system")
    except FileNotFoundError:
        pytest.skip("this system has no unshare")

    def call(*commands):
        environment = {
            **os.environ,
            "HILO_NAS_STUDIES_DIR": str(tmp_path / "studies"),
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)]),
        }
        child = [sys.executable, "-c", CHILD, json.dumps(commands)]
        done = subprocess.run(
            [*UNSHARE, "sh", "-c", MOUNT, "sh", str(tmp_path / "studies"), *child],
            capture_output=True,
            text=True,
            env=environment,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return call


def test_a_read_only_study_is_read_in_every_way(run, tmp_path):
    commands = [
        ["status"],
        ["status", "demo"],
        ["front", "demo"],
        ["show", "demo:1"],
        ["compare", "demo:1", "demo:2"],
        ["report", "demo", "-o", "report.html"],
        ["export", "demo", "--knee", "-o", "out"],
        ["repair", "demo", "--dry-run"],
        ["remeasure", "demo", "--device", "cuda", "--study", str(tmp_path / "elsewhere")],
    ]
    for command, (code, _, err) in zip(commands, run(*commands), strict=True):
        assert (command[0], code) == (command[0], 0), err
    assert (tmp_path / "elsewhere" / "manifest.yaml").is_file()
    assert (tmp_path / "report.html").is_file()


def test_what_would_write_into_a_read_only_study_is_refused_with_the_way_out(run):
    commands = [
        ["search", "--study", "demo"],
        ["remeasure", "demo"],
        ["repair", "demo"],
        ["search", "litv2_digits", "--study", "new"],
    ]
    for command, (code, _, err) in zip(commands, run(*commands), strict=True):
        assert (command, code) == (command, 1)
        assert err.count("error: ") == 1
        assert "cannot write the study's folder" in err
        assert "Read-only file system. Make it writable, or " in err
        assert ("use another folder" if command[-1] == "new" else "resume a copy of it") in err
