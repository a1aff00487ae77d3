"""One timing at a time: a lock per physical device, for the whole host and all users of this tool on it.

A timing holds its device alone; a training shares it with other trainings, and so waits for timings and they for it.
The kernel keeps the locks (flock), so they end with their process, however it ends. Each device has two: `lock` is the
device itself, `queue` is held by the one who is next. Whoever lets a device go and wants it back at once, as a search
does, stands behind those who wait; and no training joins others past a timing that waits for them to end. Who holds a
device is written beside it for those who wait.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hilo_nas.clock import utc_now
from hilo_nas.errors import StorageError
from hilo_nas.events import DeviceAwaited, Emit
from hilo_nas.measurement import DeviceIdentity
from hilo_nas.timing import shared_files

__all__ = ["LOCKS_VARIABLE", "Claim", "claims_of", "hold"]

LOCKS_VARIABLE = "HILO_NAS_LOCKS_DIR"
"""Names the folder of the locks; one folder for all, or the locks keep nobody out."""

_POLL_S = 0.1
_TELL_AGAIN_S = 30.0


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Claim:
    """A device, and whether it is wanted alone."""

    device: str
    """`cpu`, or a GPU's UUID."""
    alone: bool


def claims_of(identity: DeviceIdentity, *, timing: bool) -> list[Claim]:
    """Returns what a timing or a training on a device claims, in the order in which all take their locks.

    What runs on a GPU is driven by the CPU, and so keeps timings off it.
    """
    if identity.kind == "cpu":
        return [Claim(device="cpu", alone=timing)]
    name = identity.serial if identity.kind == "cuda" else identity.kind
    return [Claim(device="cpu", alone=False), Claim(device=name, alone=timing)]


@contextlib.contextmanager
def hold(
    claims: list[Claim], purpose: str, emit: Emit, *, sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Holds the devices claimed; waits for those who hold them, and tells for whom.

    Args:
        claims: In the order of `claims_of`: all take their locks in one order, so that none waits in a circle.
        purpose: What the device is wanted for, as others will read it.
        emit: Told of the waiting, at once and then every half minute.
        sleep: Waits.

    Raises:
        StorageError: The folder of the locks cannot be written.
    """
    with contextlib.ExitStack() as stack:
        for claim in claims:
            stack.enter_context(_held(claim, purpose, emit, sleep))
        yield


@contextlib.contextmanager
def _held(claim: Claim, purpose: str, emit: Emit, sleep: Callable[[float], None]) -> Iterator[None]:
    kind = fcntl.LOCK_EX if claim.alone else fcntl.LOCK_SH
    name = f"{os.getpid()}.json"
    path = _folder() / "".join(sign if sign.isalnum() or sign == "-" else "_" for sign in claim.device)
    with _opened(path) as folder:
        tell = _teller(claim.device, folder, emit)
        with _opened_file(path, folder, "lock") as lock:
            with _opened_file(path, folder, "queue") as queue:
                for handle, how in ((queue, fcntl.LOCK_EX), (lock, kind)):
                    while not _has_locked(handle, how, path):
                        sleep(_POLL_S)
                        tell()
            try:
                with contextlib.suppress(OSError):  # who holds it is only told
                    card = {"pid": os.getpid(), "purpose": purpose, "since": utc_now()}
                    shared_files.write_new(folder, name, json.dumps(card))
                yield
            finally:
                shared_files.discard(folder, name)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Opens a device's folder, below that of all locks."""
    named = bool(os.environ.get(LOCKS_VARIABLE))
    with contextlib.ExitStack() as stack:
        try:
            top = path.parent.resolve() if named else path.parent  # a folder that the user names may be a link
            top.parent.mkdir(parents=True, exist_ok=True)
            handle = stack.enter_context(shared_files.open_folder(top, named=named))
            folder = stack.enter_context(shared_files.open_folder(path.name, below=handle, named=named))
        except OSError as error:
            raise _refused(path, error) from error
        yield folder


@contextlib.contextmanager
def _opened_file(path: Path, folder: int, name: str) -> Iterator[int]:
    """Opens a file that is locked; closing it lets the lock go."""
    try:
        handle = shared_files.open_file(folder, name)
    except OSError as error:
        raise _refused(path / name, error) from error
    try:
        yield handle
    finally:
        os.close(handle)


def _has_locked(handle: int, how: int, folder: Path) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # a file system without locks
        raise _refused(folder, error) from error
    return True


def _teller(device: str, folder: int, emit: Emit) -> Callable[[], None]:
    """Returns what tells for whom this process waits: from the second call on, and then every half minute.

    The first call is passed over, for whoever is next holds the queue for a moment even where nobody waits.
    """
    told_s = [-math.inf]
    calls = itertools.count()

    def tell() -> None:
        now = time.monotonic()
        if next(calls) and now - told_s[-1] >= _TELL_AGAIN_S:
            told_s.append(now)
            emit(DeviceAwaited(device=device, holders=tuple(_holders(folder))))

    return tell


def _holders(folder: int) -> list[str]:
    """Who holds the device, in words; cards of processes that are gone are removed."""
    found = []
    for name in sorted(name for name in os.listdir(folder) if name.endswith(".json")):
        try:
            said = json.loads(shared_files.read_text(folder, name))
            words = f"{said['purpose']} (process {said['pid']}, since {said['since'][11:19]} UTC)"
            is_there = _is_there(int(said["pid"]))
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue  # half written, or somebody else's
        if is_there:
            found.append(words)
        else:
            shared_files.discard(folder, name)
    return found


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _folder() -> Path:
    given = os.environ.get(LOCKS_VARIABLE)
    shared = Path("/tmp")  # and not TMPDIR, which may be one user's or one job's
    if not given:
        return (shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())) / "hilo-nas-devices"
    path = Path(given).expanduser()
    if not path.is_absolute():
        raise StorageError(
            f"{LOCKS_VARIABLE} must be an absolute path, so that it is one folder for all, but got {given!r}"
        )
    return path


def _refused(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"the device locks in {path} must be writable, but {error.strerror or error}. "
        f"Name another folder, the same for everyone, in {LOCKS_VARIABLE}."
    )
