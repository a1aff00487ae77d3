"""Worker processes: whatever times or trains runs in a child that gets a spec and sends back data and events.

A spec is `module:function` and plain arguments; nothing but JSON crosses the border. A child may crash, hang or be
killed without taking its parent along, and it ends when its parent dies, however that happens. It is started with a
fixed environment, since thread and allocator settings must be there before Python starts.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from hilo_nas import errors
from hilo_nas.errors import HiloNasError, OutOfMemoryError, WorkerDiedError, WorkerFailedError, WorkerHungError
from hilo_nas.events import Emit, Event, Notice, event_from_dict, event_to_dict

__all__ = ["RECORDED_VARIABLES", "TUNED_ENVIRONMENT", "Worker", "call_twice"]

TUNED_ENVIRONMENT = {
    # Spinning threads collapse as soon as another process wants the core.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Freed activations stay with the process: without this, page faults cost 3-12 % of a CPU timing.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}
"""What timing processes are started with; recorded with each measurement, so that a deployment can match it."""

RECORDED_VARIABLES = (
    *TUNED_ENVIRONMENT,
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "PYTORCH_CUDA_ALLOC_CONF",
    "NVIDIA_TF32_OVERRIDE",
)
"""Variables that change speed and are recorded with each measurement: those set here, and the user's own.

An export names no others: a variable of a stranger's record, such as LD_PRELOAD, could run code or write files."""

_CHILD = "import sys; from hilo_nas.timing.worker import run_child; run_child(int(sys.argv[1]), int(sys.argv[2]))"


class Worker:
    """A persistent child process; started at the first call and again after it ended.

    Args:
        name: What it does, for messages: `timing`, `training`.
        log: File that takes what the child and its libraries print.
        idle_timeout_s: Seconds of silence (no event, no result) after which a call counts as hung; they begin once the
            child has started and has imported the function.
        environment: Variables set on top of this process's own before the child starts.
        start_up_s: Seconds that a child may take to start and to import what it runs: minutes where a network disk is
            cold.
        count_oom_kills: Returns the kernel's count of processes killed for memory so far, or None where it does not
            tell.
    """

    def __init__(
        self,
        name: str,
        log: Path,
        *,
        idle_timeout_s: float = 600.0,
        environment: Mapping[str, str] = TUNED_ENVIRONMENT,
        start_up_s: float = 900.0,
        count_oom_kills: Callable[[], int | None] | None = None,
    ) -> None:
        self._name = name
        self._log = log
        self._idle_timeout_s = idle_timeout_s
        self._environment = dict(environment)
        self._start_up_s = start_up_s
        self._count_oom_kills = count_oom_kills or _count_oom_kills
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None

    def call(self, function: str, arguments: Mapping[str, Any], emit: Emit) -> Any:
        """Runs `module:function` in the child and returns its result, plain data; its events go to `emit`.

        The function is called with the arguments as keywords and `emit`. Whatever interrupts the call, an exception of
        `emit` included, ends the child. A child that dies before it begins is started once more.

        Raises:
            OutOfMemoryError: The function ran out of memory, or the kernel killed the child for it.
            WorkerFailedError: The function raised something that is not ours.
            WorkerDiedError: The child ended without a result.
            WorkerHungError: The child was silent for too long and was killed.
            HiloNasError: What the function raised on purpose, as it raised it.
        """
        task = {"function": function, "arguments": dict(arguments)}
        kills_before = self._count_oom_kills()
        try:
            try:
                self._begin(task, kills_before)
            except WorkerDiedError as error:
                emit(Notice(level="warning", text=f"{error}; it is started again"))
                self._begin(task, kills_before)
            while "event" in (message := self._receive(self._idle_timeout_s, kills_before)):
                emit(event_from_dict(message))
        except BaseException:
            self.close()  # the child is in the middle of something
            raise
        if "error" in message:
            self._raise(message["error"])
        return message["result"]

    def _begin(self, task: Mapping[str, Any], kills_before: int | None) -> None:
        """Sends the task to the child, which is started where it is not there, and waits until it has begun."""
        connection = self._start()
        try:
            connection.send_bytes(json.dumps(task).encode())
        except ConnectionError as error:
            raise self._obituary(kills_before) from error
        self._receive(max(self._idle_timeout_s, self._start_up_s), kills_before)

    def _receive(self, timeout_s: float, kills_before: int | None) -> dict[str, Any]:
        """Returns the child's next message."""
        assert self._connection is not None
        try:
            if not self._connection.poll(timeout_s):
                raise WorkerHungError(
                    f"{self._name} was silent for {timeout_s:g} s and was ended. "
                    f"See {self._log.name} for what it printed, or raise study.idle_timeout_s."
                )
            message: dict[str, Any] = json.loads(self._connection.recv_bytes())
        except (EOFError, ConnectionError) as error:
            raise self._obituary(kills_before) from error
        return message

    def close(self) -> None:
        """Ends the child, if there is one, with everything it started."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> Connection[Any, Any]:
        if self._process is not None and self._process.poll() is None and self._connection is not None:
            return self._connection
        self.close()
        ours, theirs = Pipe()
        search_path = os.pathsep.join(entry for entry in sys.path if entry)
        environment = {**os.environ, **self._environment, "PYTHONPATH": search_path}
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _CHILD, str(theirs.fileno()), str(os.getpid())],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )
        theirs.close()
        self._connection = ours
        return ours

    def _raise(self, error: Mapping[str, str]) -> NoReturn:
        kind = getattr(errors, error["kind"], None)
        if kind is OutOfMemoryError:
            self.close()  # what a process does after running out of memory is nobody's guess
        if isinstance(kind, type) and issubclass(kind, HiloNasError) and kind is not errors.FileFaultsError:
            raise kind(error["message"])
        self.close()
        raise WorkerFailedError(f"{self._name} failed: {error['kind']}: {error['message']}")

    def _obituary(self, kills_before: int | None) -> HiloNasError:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        code = self._process.returncode
        self.close()
        if code == -signal.SIGKILL:
            kills = self._count_oom_kills()
            if kills is None or kills_before is None or kills > kills_before:
                return OutOfMemoryError(f"{self._name} was killed by the kernel, out of memory")
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        tail = _tail(self._log)
        return WorkerDiedError(f"{self._name} {how}" + (f"; its last words: {tail}" if tail and code != -9 else ""))


def call_twice(worker: Worker, function: str, arguments: Mapping[str, Any], emit: Emit) -> Any:
    """As `Worker.call`, but where the child dies, it is started again and the call repeated, once.

    For calls that leave nothing half done behind: set-up and timings.
    """
    try:
        return worker.call(function, arguments, emit)
    except WorkerDiedError as error:
        emit(Notice(level="warning", text=f"{error}; it is started again and its work repeated"))
        return worker.call(function, arguments, emit)


def _count_oom_kills() -> int | None:
    """Returns the kernel's count of processes killed for memory so far, or None where it does not tell."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        lines = log.read_text(errors="replace").strip().splitlines()
        return " | ".join(line.strip() for line in lines[-3:])[-300:]
    return ""


def run_child(handle: int, parent: int) -> None:
    """Runs calls from the parent until it closes the connection or dies; the child's side of `Worker`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # where memory runs out, the kernel is to choose the worker, not the search
        Path("/proc/self/oom_score_adj").write_text("500")
    sys.stdout, sys.stderr = _forgiving(1), _forgiving(2)
    connection: Connection[Any, Any] = Connection(handle)
    _die_with_parent(parent)
    lock = threading.Lock()

    def send(message: Mapping[str, Any]) -> None:
        with lock:
            connection.send_bytes(json.dumps(message).encode())

    def emit(event: Event) -> None:
        send(event_to_dict(event))

    try:
        while True:
            task = json.loads(connection.recv_bytes())
            try:
                module, _, name = task["function"].partition(":")
                try:
                    function = getattr(importlib.import_module(module), name)
                finally:
                    send({"begun": True})  # the time of the import is no silence
                message = {"result": function(**task["arguments"], emit=emit)}
            except Exception as error:
                traceback.print_exc()  # to the log
                kind = "OutOfMemoryError" if errors.is_out_of_memory(error) else type(error).__name__
                message = {"error": {"kind": kind, "message": str(error) or kind}}
            sys.stdout.flush()
            sys.stderr.flush()
            send(message)
    except (EOFError, ConnectionError):
        os._exit(0)


class _Forgiving(io.FileIO):
    """A log that loses lines on a full disk: what a library prints must not end its work."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _forgiving(handle: int) -> io.TextIOWrapper:
    raw = io.BufferedWriter(_Forgiving(handle, "w", closefd=False))
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _die_with_parent(parent: int) -> None:
    """Ends this process as soon as the parent is gone: by the kernel on Linux, by watching everywhere."""
    if sys.platform == "linux":
        set_death_signal = 1  # PR_SET_PDEATHSIG
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)

    def watch() -> None:
        pause = threading.Event()
        while os.getppid() == parent:
            pause.wait(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
