"""Device locks: one lock per physical device, shared by all users of a host.

A timing holds the device lock exclusively. Trainings share it with each other, but not with a timing. The kernel keeps
the locks, so it releases them when their process ends, even after a crash (`hilo_nas.files.file_lock`).

Each device has two lock files. A process holds `queue` while it waits for `lock`. If a process releases a device and
requests it again at once, as a search does, it therefore waits behind the others. No training starts before a timing
that already waits. Each holder writes a small file with its purpose, which waiting processes show.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hilo_nas.clock import utc_now
from hilo_nas.errors import StorageError
from hilo_nas.events import DeviceAwaited, Emit
from hilo_nas.files.file_lock import LockSystem, load_lock_system
from hilo_nas.files.open_folders import OpenFolder
from hilo_nas.measurement import DeviceIdentity
from hilo_nas.processes import is_running
from hilo_nas.timing import shared_files

__all__ = ["LOCAL_LOCKS", "LOCKS_VARIABLE", "Claim", "claims_of", "hold", "locks_folder"]

LOCKS_VARIABLE = "HILO_NAS_LOCKS_DIR"
"""Environment variable for the folder of the locks. All processes of a host must use the same folder."""

LOCAL_LOCKS = f"export {LOCKS_VARIABLE}=/dev/shm/hilo-nas-devices"
"""Command that moves the locks to a file system of this host."""

_POLL_S = 0.1
_REPORT_EVERY_S = 30.0


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Claim:
    """Request for the lock of one device."""

    device: str
    """`cpu`, or a GPU's UUID."""
    alone: bool
    """True for an exclusive lock."""


def claims_of(identity: DeviceIdentity, *, timing: bool) -> list[Claim]:
    """Returns the device locks that a timing or a training needs, in the order in which `hold` takes them.

    Work on a GPU also shares the lock of the CPU because the CPU drives the GPU. This excludes CPU timings.
    """
    if identity.kind == "cpu":
        return [Claim(device="cpu", alone=timing)]
    name = identity.serial if identity.kind == "cuda" else identity.kind
    return [Claim(device="cpu", alone=False), Claim(device=name, alone=timing)]


@contextlib.contextmanager
def hold(
    claims: list[Claim],
    purpose: str,
    emit: Emit,
    *,
    sleep: Callable[[float], None] = time.sleep,
    system: LockSystem | None = None,
) -> Iterator[None]:
    """Holds device locks during a `with` block, and waits until they are free.

    Args:
        claims: Locks in the order of `claims_of`. A fixed order prevents deadlocks.
        purpose: Text that other processes show while they wait for this one.
        emit: Receives a `DeviceAwaited` event when the wait begins, and then every 30 seconds.
        sleep: Function that waits for a number of seconds.
        system: Locks of the operating system. Defaults to those of this one.

    Raises:
        StorageError: The folder of the locks is not writable.
    """
    system = system or load_lock_system()
    with contextlib.ExitStack() as stack:
        for claim in claims:
            stack.enter_context(_held(claim, purpose, emit, sleep, system))
        yield


@contextlib.contextmanager
def _held(claim: Claim, purpose: str, emit: Emit, sleep: Callable[[float], None], system: LockSystem) -> Iterator[None]:
    name = _card_name()
    path = locks_folder() / "".join(sign if sign.isalnum() or sign == "-" else "_" for sign in claim.device)
    with _opened(path) as folder:
        report_wait = _wait_reporter(claim.device, folder, emit)

        def acquire(handle: int, *, alone: bool) -> Callable[[], None]:
            while (release := _try_lock(system, handle, alone, path)) is None:
                sleep(_POLL_S)
                report_wait()
            return release

        with _opened_file(path, folder, "lock") as lock:
            with _opened_file(path, folder, "queue") as queue:
                release_queue = acquire(queue, alone=True)
                try:
                    release = acquire(lock, alone=claim.alone)
                finally:
                    release_queue()
            try:
                with contextlib.suppress(OSError):  # the file only informs other processes
                    card = {"pid": os.getpid(), "purpose": purpose, "since": utc_now()}
                    shared_files.write_new(folder, name, json.dumps(card))
                yield
            finally:
                shared_files.discard(folder, name)
                release()


def _card_name() -> str:
    """Returns the name of the file with the purpose of this holder. Threads of a process may share a lock."""
    is_main = threading.current_thread() is threading.main_thread()
    return f"{os.getpid()}.json" if is_main else f"{os.getpid()}-{threading.get_native_id()}.json"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[OpenFolder]:
    """Opens the folder of one device, inside the folder of the locks."""
    named = bool(os.environ.get(LOCKS_VARIABLE))
    with contextlib.ExitStack() as stack:
        try:
            top = path.parent.resolve() if named else path.parent  # a folder that the user names may be a link
            top.parent.mkdir(parents=True, exist_ok=True)
            handle = stack.enter_context(shared_files.open_folder(top, named=named))
            folder = stack.enter_context(shared_files.open_folder(Path(path.name), below=handle, named=named))
        except OSError as error:
            raise _refused(path, error) from error
        yield folder


@contextlib.contextmanager
def _opened_file(path: Path, folder: OpenFolder, name: str) -> Iterator[int]:
    """Opens a lock file. Closing it also releases the lock."""
    try:
        handle = shared_files.open_file(folder, name)
    except OSError as error:
        raise _refused(path / name, error) from error
    try:
        yield handle
    finally:
        os.close(handle)


def _try_lock(system: LockSystem, handle: int, alone: bool, folder: Path) -> Callable[[], None] | None:
    try:
        return system.try_lock(handle, alone=alone)
    except OSError as error:  # a file system without locks
        raise _refused(folder, error) from error


def _wait_reporter(device: str, folder: OpenFolder, emit: Emit) -> Callable[[], None]:
    """Returns a function that emits the holders of a device at its second call, and then every 30 seconds.

    The first call emits nothing because each process holds the queue for a moment, even if none waits.
    """
    reported_s = [-math.inf]
    calls = itertools.count()

    def report_wait() -> None:
        now = time.monotonic()
        if next(calls) and now - reported_s[-1] >= _REPORT_EVERY_S:
            reported_s.append(now)
            emit(DeviceAwaited(device=device, holders=tuple(_holders(folder))))

    return report_wait


def _holders(folder: OpenFolder) -> list[str]:
    """Returns one text per holder of the device, and removes the files of ended processes."""
    found = []
    for name in sorted(name for name in folder.names() if name.endswith(".json")):
        try:
            card = json.loads(shared_files.read_text(folder, name))
            text = f"{card['purpose']} (process {card['pid']}, since {card['since'][11:19]} UTC)"
            is_held = is_running(int(card["pid"]))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue  # half written, or not a file of this tool
        if is_held:
            found.append(text)
        else:
            shared_files.discard(folder, name)
    return found


def locks_folder() -> Path:
    """Returns the folder of the device locks: `$HILO_NAS_LOCKS_DIR`, or a folder that all users of the host share.

    Raises:
        StorageError: The variable holds a relative path.
    """
    given = os.environ.get(LOCKS_VARIABLE)
    shared = Path("/tmp")  # not TMPDIR, which can differ between users and jobs
    if not given:
        return (shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())) / "hilo-nas-devices"
    path = Path(given).expanduser()
    if not path.is_absolute():
        raise StorageError(
            f"{LOCKS_VARIABLE} must be an absolute path, so that all processes use the same folder, but got {given!r}"
        )
    return path


def _refused(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"the device locks in {path} must be writable, but {error.strerror or error}. "
        f"Set {LOCKS_VARIABLE} to another folder, the same one for all users."
    )
