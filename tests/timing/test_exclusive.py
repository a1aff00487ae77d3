"""Locks between real processes: who waits for whom, what the waiting are told, what a killed holder leaves behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest
from windows import FakeMsvcrt

from hilo_nas.errors import StorageError
from hilo_nas.events import DeviceAwaited
from hilo_nas.files.file_lock import WindowsLocks
from hilo_nas.measurement import DeviceIdentity
from hilo_nas.timing import exclusive, shared_files
from hilo_nas.timing.exclusive import LOCKS_VARIABLE, Claim, claims_of, hold

HOLDER = textwrap.dedent("""
    import json, sys, time
    from hilo_nas.timing.exclusive import Claim, hold

    def tell(event):
        print(f"{event.device}: {event.holders}", flush=True)

    claims = [Claim(device=device, alone=alone) for device, alone in json.loads(sys.argv[1])]
    with hold(claims, sys.argv[2], tell, sleep=lambda seconds: time.sleep(seconds / 5)):
        print("holds", flush=True)
        sys.stdin.readline()
    print("free", flush=True)
""")


def device(kind, serial="host-1"):
    return DeviceIdentity(kind=kind, model="a model", driver="1", torch="2", serial=serial)


CPU_TIMING = claims_of(device("cpu"), timing=True)
CPU_TRAINING = claims_of(device("cpu"), timing=False)
GPU_TIMING = claims_of(device("cuda", "GPU-1"), timing=True)
GPU_TRAINING = claims_of(device("cuda", "GPU-1"), timing=False)
OTHER_GPU_TIMING = claims_of(device("cuda", "GPU-2"), timing=True)


class Process:
    """Another process, which claims devices and holds them until it is let go."""

    def __init__(self, claims, purpose="timing for another study", cwd=None):
        pairs = json.dumps([(claim.device, claim.alone) for claim in claims])
        self._process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, pairs, purpose],
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def says(self):
        """The next line that it prints; `holds`, or whom it waits for."""
        return self._process.stdout.readline().strip()

    def let_go(self):
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        assert self.says() == "free"

    def end(self, how):
        self._process.send_signal(how)
        return self._process.wait()

    def close(self):
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.communicate()


@pytest.fixture(autouse=True)
def locks(tmp_path, monkeypatch):
    folder = tmp_path / "locks"
    monkeypatch.setenv(LOCKS_VARIABLE, str(folder))
    return folder


@pytest.fixture
def unnamed(tmp_path, monkeypatch):
    """The default folder of the locks, in a temporary place."""
    monkeypatch.delenv(LOCKS_VARIABLE)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / "hilo-nas-devices"


@pytest.fixture
def start():
    """Starts processes, and ends those that are left."""
    with contextlib.ExitStack() as stack:

        def start(*arguments, **options):
            process = Process(*arguments, **options)
            stack.callback(process.close)
            return process

        yield start


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (CPU_TIMING, CPU_TIMING),
        (CPU_TIMING, CPU_TRAINING),
        (CPU_TRAINING, CPU_TIMING),
        (GPU_TIMING, GPU_TIMING),
        (GPU_TRAINING, GPU_TIMING),
        (GPU_TRAINING, CPU_TIMING),  # a GPU is driven by the CPU, which is not quiet then
        (CPU_TIMING, GPU_TRAINING),
    ],
    ids=lambda claims: " ".join(f"{claim.device}{'!' * claim.alone}" for claim in claims),
)
def test_a_timing_has_its_device_alone_and_those_who_wait_are_told_for_whom(start, first, second):
    holder = start(first, "timing for study demo")
    assert holder.says() == "holds"
    waiting = start(second)
    told = waiting.says()
    assert "timing for study demo" in told
    assert f"process {holder.pid}, since " in told
    holder.let_go()
    assert waiting.says() == "holds"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (CPU_TRAINING, CPU_TRAINING),
        (GPU_TRAINING, GPU_TRAINING),
        (GPU_TIMING, CPU_TRAINING),
        (GPU_TIMING, OTHER_GPU_TIMING),
    ],
    ids=lambda claims: " ".join(f"{claim.device}{'!' * claim.alone}" for claim in claims),
)
def test_trainings_share_and_so_do_different_devices(start, first, second):
    holder, other = start(first), start(second)
    assert (holder.says(), other.says()) == ("holds", "holds")


def test_those_who_wait_are_told_of_every_holder(start):
    trainings = [start(CPU_TRAINING, f"training for study {name}") for name in ("one", "two")]
    assert [training.says() for training in trainings] == ["holds", "holds"]
    waiting = start(CPU_TIMING)
    told = waiting.says()
    assert told.startswith("cpu: ")
    for training, name in zip(trainings, ("one", "two"), strict=True):
        assert f"training for study {name} (process {training.pid}, " in told
    for training in trainings:
        training.let_go()
    assert waiting.says() == "holds"


def test_a_holder_killed_frees_its_device_and_is_shown_no_more(start, locks):
    first = start(CPU_TIMING, "timing for the killed")
    assert first.says() == "holds"
    second = start(CPU_TIMING, "timing for the living")
    assert "the killed" in second.says()
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    assert second.says() == "holds"
    assert (locks / "cpu" / f"{first.pid}.json").exists()  # nobody could clear it away
    third = start(CPU_TIMING)
    told = third.says()
    assert f"timing for the living (process {second.pid}" in told
    assert "the killed" not in told
    assert [card.name for card in locks.glob("cpu/*.json")] == [f"{second.pid}.json"]


def test_all_take_their_locks_in_one_order():
    for claims in (GPU_TIMING, GPU_TRAINING, OTHER_GPU_TIMING, claims_of(device("mps"), timing=True)):
        assert claims[0] == Claim(device="cpu", alone=False)
        assert len(claims) == 2


def test_who_waits_for_the_second_of_two_devices_holds_up_nobody_in_a_circle(start):
    training = start(GPU_TRAINING, "training")
    assert training.says() == "holds"
    gpu_timing = start(GPU_TIMING, "timing on the GPU")
    assert gpu_timing.says().startswith("GPU-1: ")
    cpu_timing = start(CPU_TIMING, "timing on the CPU")
    assert cpu_timing.says().startswith("cpu: ")
    training.let_go()
    assert gpu_timing.says() == "holds"
    gpu_timing.let_go()
    assert cpu_timing.says() == "holds"


def test_who_lets_a_device_go_and_wants_it_back_at_once_stands_behind_those_who_wait(start):
    with hold(CPU_TIMING, "the first", print):
        waiting = start(CPU_TIMING, "the second")
        assert "the first" in waiting.says()
    seen = []

    def sleep(seconds):
        if not seen:
            seen.append(waiting.says())
            waiting.let_go()

    with hold(CPU_TIMING, "the first again", print, sleep=sleep):
        assert seen == ["holds"]


def test_no_training_joins_others_past_a_timing_that_waits(start):
    training = start(CPU_TRAINING, "the first training")
    assert training.says() == "holds"
    timing = start(CPU_TIMING, "the timing")
    assert "the first training" in timing.says()
    later = start(CPU_TRAINING, "the second training")
    assert "the first training" in later.says()
    training.let_go()
    assert timing.says() == "holds"
    timing.let_go()
    assert later.says() == "holds"


def test_where_a_process_runs_makes_no_difference(start, tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    holder = start(CPU_TIMING, cwd=tmp_path / "here")
    assert holder.says() == "holds"
    assert f"process {holder.pid}" in start(CPU_TIMING, cwd=tmp_path / "there").says()


def test_ctrl_c_ends_the_waiting_and_leaves_the_holder_alone(start, locks):
    holder = start(CPU_TIMING)
    assert holder.says() == "holds"
    waiting = start(CPU_TIMING)
    assert f"process {holder.pid}" in waiting.says()
    assert waiting.end(signal.SIGINT) == -signal.SIGINT
    assert [card.name for card in locks.glob("cpu/*.json")] == [f"{holder.pid}.json"]
    assert f"process {holder.pid}" in start(CPU_TIMING).says()


def test_threads_of_a_process_that_share_a_lock_are_told_of_until_each_lets_it_go(locks):
    inside, done = threading.Event(), threading.Event()

    def train():
        with hold(GPU_TRAINING, "training on a GPU", lambda event: None):
            inside.set()
            done.wait(30)

    thread = threading.Thread(target=train)
    thread.start()
    assert inside.wait(30)
    with hold(OTHER_GPU_TIMING, "timing on another GPU", lambda event: None):
        assert len(list(locks.glob("cpu/*.json"))) == 2
    (card,) = locks.glob("cpu/*.json")
    assert json.loads(card.read_text())["purpose"] == "training on a GPU"
    done.set()
    thread.join(30)
    assert list(locks.glob("cpu/*.json")) == []


def test_ctrl_c_while_timing_lets_the_device_go(start, locks):
    holder = start(CPU_TIMING)
    assert holder.says() == "holds"
    assert holder.end(signal.SIGINT) == -signal.SIGINT
    assert list(locks.glob("cpu/*.json")) == []
    assert start(CPU_TIMING).says() == "holds"


def test_a_long_waiting_is_told_again(start, monkeypatch):
    holder = start(CPU_TIMING, "a long timing")
    assert holder.says() == "holds"
    now, events = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def sleep(seconds):
        now[0] += seconds
        if now[0] >= 70:
            holder.let_go()

    with hold(CPU_TIMING, "mine", events.append, sleep=sleep):
        pass
    assert len(events) == 3  # at once, and twice in 70 seconds
    assert all(isinstance(event, DeviceAwaited) and "a long timing" in event.holders[0] for event in events)


def test_an_error_while_the_device_is_held_lets_it_go(start):
    with pytest.raises(RuntimeError, match="timing went wrong"), hold(CPU_TIMING, "mine", print):
        raise RuntimeError("timing went wrong")
    assert start(CPU_TIMING).says() == "holds"


@pytest.mark.parametrize(("first", "second"), [(CPU_TIMING, CPU_TRAINING), (CPU_TRAINING, CPU_TIMING)])
def test_with_the_locks_of_windows_a_timing_has_its_device_alone_as_well(first, second):
    system, waits = WindowsLocks(FakeMsvcrt()), []
    with contextlib.ExitStack() as held:
        held.enter_context(hold(first, "the first", print, system=system))

        def sleep(seconds):
            waits.append(seconds)
            if len(waits) == 3:
                held.close()

        with hold(second, "the second", lambda event: None, sleep=sleep, system=system):
            assert len(waits) == 3


def test_with_the_locks_of_windows_trainings_share_a_device():
    module = FakeMsvcrt()
    system = WindowsLocks(module)
    with hold(CPU_TRAINING, "one", print, system=system), hold(CPU_TRAINING, "two", print, system=system):
        assert len(module.held) == 2
    assert module.held == []


def test_nobody_is_told_of_a_device_that_is_free():
    events = []
    with hold(GPU_TIMING, "mine", events.append):
        pass
    assert events == []


def test_cards_that_nobody_can_read_are_passed_over(start, locks):
    holder = start(CPU_TIMING, "the true holder")
    assert holder.says() == "holds"
    since = "2026-07-01T12:00:00+00:00"
    cards = ["", "{", "[]", "{}", f'{{"pid": {os.getpid()}}}', f'{{"pid": "x", "purpose": "no", "since": "{since}"}}']
    for i, text in enumerate(cards):
        (locks / "cpu" / f"0{i}.json").write_text(text)
    (locks / "cpu" / "0.json").mkdir()
    told = start(CPU_TIMING).says()
    assert told.startswith("cpu: ('the true holder (process ")
    assert told.count("process") == 1


def test_locks_are_open_to_every_user_of_the_host(locks):
    umask = os.umask(0o077)
    try:
        with hold(GPU_TIMING, "mine", print):
            (card,) = locks.glob("GPU-1/*.json")
            assert card.stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(umask)
    for name in ("cpu", "GPU-1"):
        assert (locks / name).stat().st_mode & 0o7777 == 0o1777
        for file in ("lock", "queue"):
            assert (locks / name / file).stat().st_mode & 0o777 == 0o666
    assert locks.stat().st_mode & 0o7777 == 0o1777


def test_folders_that_an_earlier_version_made_gain_the_sticky_bit(locks):
    for folder in (locks, locks / "cpu"):
        folder.mkdir()
        folder.chmod(0o777)
    with hold(CPU_TIMING, "mine", print):
        pass
    assert [folder.stat().st_mode & 0o7777 for folder in (locks, locks / "cpu")] == [0o1777, 0o1777]


@pytest.mark.parametrize("name", ["lock", "queue"])
@pytest.mark.parametrize("trap", ["link", "dangling link", "fifo", "folder"])
def test_a_lock_that_is_no_regular_file_is_refused_and_what_it_leads_to_is_left_alone(locks, tmp_path, trap, name):
    private = tmp_path / "private"
    if trap == "link":
        private.write_text("mine alone")
        private.chmod(0o600)
    (locks / "cpu").mkdir(parents=True)
    path = locks / "cpu" / name
    if trap == "fifo":
        os.mkfifo(path)
    elif trap == "folder":
        path.mkdir()
    else:
        path.symlink_to(private)
    with (
        pytest.raises(StorageError, match=rf"{path} must be writable, but .*{LOCKS_VARIABLE}"),
        hold(CPU_TIMING, "mine", print),
    ):
        pass
    assert private.exists() == (trap == "link")
    if trap == "link":
        assert (private.read_text(), private.stat().st_mode & 0o777) == ("mine alone", 0o600)


@pytest.mark.parametrize("below", [True, False])
def test_a_device_folder_that_is_a_link_is_refused_and_so_is_that_of_all_locks(request, tmp_path, below):
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    folder = request.getfixturevalue("locks" if below else "unnamed")
    if below:
        folder.mkdir()
        (folder / "cpu").symlink_to(private)
    else:
        folder.symlink_to(private)
    with pytest.raises(StorageError, match="must be writable"), hold(CPU_TIMING, "mine", print):
        pass
    assert list(private.iterdir()) == []
    assert private.stat().st_mode & 0o7777 == 0o700


def test_a_card_is_never_written_or_read_through_a_link(locks, tmp_path, start):
    private = tmp_path / "private"
    private.write_text("mine alone")
    (locks / "cpu").mkdir(parents=True)
    card = locks / "cpu" / f"{os.getpid()}.json"
    card.symlink_to(private)
    since = "2026-07-01T12:00:00+00:00"
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({"pid": os.getpid(), "purpose": "secret", "since": since}))
    (locks / "cpu" / "1.json").symlink_to(secret)
    os.mkfifo(locks / "cpu" / "2.json")
    with hold(CPU_TIMING, "mine", print):
        assert not card.is_symlink()
        told = start(CPU_TIMING).says()
    assert "mine" in told
    assert "secret" not in told
    assert private.read_text() == "mine alone"


@pytest.mark.parametrize(
    ("owner", "mode", "safe"),
    [(0, 0o777, True), (7, 0o777, True), (8, 0o777, False), (8, 0o770, False), (8, 0o1777, True), (8, 0o755, True)],
)
def test_a_folder_of_another_user_is_safe_with_the_sticky_bit_or_if_only_they_write_it(tmp_path, owner, mode, safe):
    tmp_path.chmod(mode)
    found = list(tmp_path.stat())
    found[4] = owner
    tmp_path.chmod(0o755)
    assert shared_files.is_safe(os.stat_result(found), user=7) == safe


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_an_unsafe_folder_of_another_user_is_refused_with_the_way_out_and_its_mode_stays(unnamed):
    unnamed.mkdir()
    os.chown(unnamed, 4321, -1)
    unnamed.chmod(0o777)
    with (
        pytest.raises(StorageError, match=rf"user 4321 .*{LOCKS_VARIABLE}"),
        hold(CPU_TIMING, "mine", print),
    ):
        pass
    assert unnamed.stat().st_mode & 0o7777 == 0o777


def test_a_tilde_in_the_variable_is_the_users_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(LOCKS_VARIABLE, "~/locks")
    with hold(CPU_TIMING, "mine", print):
        assert (tmp_path / "locks" / "cpu" / "lock").is_file()


def test_a_devices_name_makes_no_way_out_of_the_folder(locks):
    with hold([Claim(device="../../etc/GPU 0", alone=True)], "mine", print):
        assert [folder.name for folder in locks.iterdir()] == ["______etc_GPU_0"]


@pytest.mark.parametrize("below", ["", "locks", "far/away/locks"])
def test_a_folder_that_cannot_be_written_is_named_with_the_way_out(tmp_path, monkeypatch, below):
    (tmp_path / "file").write_text("no folder")
    folder = tmp_path / "file" / below
    monkeypatch.setenv(LOCKS_VARIABLE, str(folder))
    with (
        pytest.raises(StorageError, match=rf"the device locks in {folder}.* must be writable, but .*{LOCKS_VARIABLE}"),
        hold(CPU_TIMING, "mine", print),
    ):
        pass


def test_a_folder_that_depends_on_where_one_stands_is_refused(monkeypatch):
    monkeypatch.setenv(LOCKS_VARIABLE, "locks")
    with (
        pytest.raises(StorageError, match=r"must be an absolute path, .* but got 'locks'"),
        hold(CPU_TIMING, "mine", print),
    ):
        pass


def test_everyones_folder_is_one_whatever_their_own_temporary_one(tmp_path, monkeypatch):
    monkeypatch.delenv(LOCKS_VARIABLE)
    found = set()
    for name in ("mine", "yours"):
        monkeypatch.setenv("TMPDIR", str(tmp_path / name))
        found.add(exclusive.locks_folder())
    assert found == {Path("/tmp/hilo-nas-devices")}
