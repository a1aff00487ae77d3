"""The check of a machine: on planted files of a system, and with a machine that times nothing."""

import shutil

import pytest
from fakes import FakeMachine

from hilo_nas.bench.doctor import check_host, check_timing
from hilo_nas.errors import DeviceError


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path / "home" / "studies"))
    monkeypatch.setenv("HILO_NAS_CACHE_DIR", str(tmp_path / "home" / "cache"))
    (tmp_path / "home").mkdir()
    found = tmp_path / "root"
    (found / "proc").mkdir(parents=True)
    (found / "sys/fs/cgroup").mkdir(parents=True)
    (found / "proc/meminfo").write_text("MemTotal:  8388608 kB\nMemFree: 5 kB\nMemAvailable:  4194304 kB\n")
    (found / "proc/self").mkdir()
    mount = "{} 1 0:{} / {} rw - {} source rw\n".format
    mounts = mount(20, 1, "/", "ext4") + mount(21, 2, tmp_path / "home", "nfs4")
    (found / "proc/self/mountinfo").write_text(mounts)
    return found


def find(root):
    return {own.name: own for own in check_host(root=root, cores=4, sleep=lambda seconds: None)}


def test_memory_disks_and_their_file_systems_are_read(root):
    found = find(root)
    assert found["memory"].text == "8.0 GiB, of which 4.0 GiB are available"
    assert "nfs4" in found["studies"].text
    assert "locks" in found["studies"].problem
    assert found["locks"].problem is None
    assert "hilo-nas 0.1.0" in found["system"].text
    assert found["load"].problem is None  # this system counts nothing


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"cpu.max": "150000 100000"}, "1.5"),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "120000 100000"}, "1.2"),  # of a parent
        ({"cpu/a/b/cpu.cfs_quota_us": "120000", "cpu/a/b/cpu.cfs_period_us": "100000"}, "1.2"),
    ],
)
def test_a_cpu_limit_is_a_problem(root, files, limit):
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "cpu.stat").touch()
    is_old = any(name.startswith("cpu/") for name in files)
    (root / "proc/self/cgroup").write_text("1:cpu:/a/b\n" if is_old else "0::/a/b\n")
    cores = find(root)["cores"]
    assert f"limited to {limit} cores" in cores.text
    assert "timing.threads=1" in cores.advice


def test_no_limit_is_no_problem(root):
    (root / "sys/fs/cgroup/cpu.max").write_text("max 100000")
    (root / "sys/fs/cgroup/cpu.stat").touch()
    (root / "proc/self/cgroup").write_text("0::/\n")
    assert find(root)["cores"].problem is None


def test_a_full_disk_is_a_problem(root, monkeypatch):
    (root / "proc/self/mountinfo").write_text("20 1 8:1 / / rw - ext4 /dev/sda rw\n")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 10**12 - 2**30, 2**30))
    found = find(root)["cache"]
    assert "1.0 GiB free, ext4" in found.text
    assert found.advice == "clear cached images: hilo-nas cache clear"


def test_a_steady_machine_has_no_problem(tmp_path):
    device, noise = check_timing(None, lambda event: None, logs=tmp_path, evaluator=FakeMachine())
    assert "Test CPU" in device.text
    assert "images/s vary by 0.0 %" in noise.text
    assert noise.problem is None


def test_a_noisy_machine_is_a_problem(tmp_path):
    machine, calls = FakeMachine(), iter(range(1000))

    def jump(task):
        machine.factors = {key: 1 + 0.3 * ((next(calls) * 7) % 3) for key in getattr(task, "entries", None) or {}}

    machine.before = jump
    _, noise = check_timing("cpu", lambda event: None, logs=tmp_path, evaluator=machine)
    assert "cannot be ranked" in noise.problem
    assert "timing.seconds=10" in noise.advice


def test_an_unknown_device_is_refused(tmp_path):
    with pytest.raises(DeviceError):
        check_timing("cuda:7", lambda event: None, logs=tmp_path, evaluator=FakeMachine())
