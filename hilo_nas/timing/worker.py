"""Worker processes: child processes that run timings and trainings, and return results and events.

A task is `module:function` with plain arguments. The two processes exchange only JSON. The parent survives if a child
crashes, hangs or is killed. The child ends when its parent ends, for any reason. A child starts with fixed environment
variables because thread and allocator settings must be set before Python starts.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
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
from hilo_nas.timing.child_process import KILLED, end_with_parent, kill_child, open_connection, start_child

__all__ = ["RECORDED_VARIABLES", "TUNED_ENVIRONMENT", "Worker", "call_twice"]

TUNED_ENVIRONMENT = {
    # Spinning threads become very slow as soon as another process uses the core.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Keep freed activations in the process. Otherwise page faults take 3-12 % of a CPU timing.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}
"""Environment variables of timing processes. Each measurement records them, so a deployment can use the same values."""

RECORDED_VARIABLES = (
    *TUNED_ENVIRONMENT,
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "PYTORCH_CUDA_ALLOC_CONF",
    "NVIDIA_TF32_OVERRIDE",
    "TORCHINDUCTOR_FREEZING",
)
"""Environment variables that affect speed. Each measurement records them, whether set here or by the user.

An export writes no other variables because a record can come from an untrusted source. A variable such as LD_PRELOAD
could run code or write files.
"""

_DUMP_S = 0.2
"""Seconds in which a hung child writes the stack of its threads to its log."""
_LOG_BYTES = 2**16
"""Maximum number of bytes of a log that are read for a message."""
_MOST_LINES, _MOST_SIGNS = 3, 300
"""Maximum number of lines and characters of a child's output in a message."""
_FOLDER = re.compile(r'(?<=^File ")[^"]*/')
"""Folder of a source file in a line of a stack."""

_CHILD = "import sys; from hilo_nas.timing.worker import run_child; run_child(int(sys.argv[1]), int(sys.argv[2]))"


class Worker:
    """A persistent child process. It starts at the first call, and again at the next call after it ended.

    Args:
        name: Name of the work for messages, `timing` or `training`.
        log: File for the output of the child and its libraries.
        idle_timeout_s: Seconds without an event or a result after which a call counts as hung. They are counted from
            the moment when the child has imported the function.
        environment: Variables that the child gets in addition to those of this process.
        start_up_s: Maximum seconds for the start of the child and its imports, which can take minutes on a network
            disk.
        count_oom_kills: Function that returns the kernel's count of out-of-memory kills. None if it is not available.
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
        self._log_start = 0
        """Size of the log when the current call began."""
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None
        self._imported: set[str] = set()
        """Modules that the child has imported for earlier calls."""

    def call(self, function: str, arguments: Mapping[str, Any], emit: Emit) -> Any:
        """Runs `module:function` in the child and returns its result as plain data. Its events go to `emit`.

        The function receives the arguments as keyword arguments, and `emit`. Any exception during the call, also one
        from `emit`, ends the child. The child is started once more if it dies before the function starts, or if it
        hangs and had nothing to import.

        Raises:
            OutOfMemoryError: The function ran out of memory, or the kernel killed the child because of it.
            WorkerFailedError: The function raised an exception that is no `HiloNasError`.
            WorkerDiedError: The child ended without a result.
            WorkerHungError: The child sent nothing within `idle_timeout_s` and was killed.
            HiloNasError: The function raised this error.
        """
        task = {"function": function, "arguments": dict(arguments)}
        kills_before = self._count_oom_kills()
        self._log_start = _size_of(self._log)
        try:
            try:
                self._begin(task, kills_before)
            except WorkerDiedError as error:
                emit(Notice(level="warning", text=f"{error}; restarting it"))
                self._begin(task, kills_before)
            while "event" in (message := self._receive(self._idle_timeout_s, kills_before)):
                emit(event_from_dict(message))
        except BaseException:
            self.close()  # the child is still busy with the task
            raise
        if "error" in message:
            self._raise(message["error"])
        return message["result"]

    def _begin(self, task: Mapping[str, Any], kills_before: int | None) -> None:
        """Sends the task to the child and waits until it begins. Starts the child if it is not running.

        Only a child that must import the module has time for it.
        """
        connection, module = self._start(), task["function"].partition(":")[0]
        try:
            connection.send_bytes(json.dumps(task).encode())
        except ConnectionError as error:
            raise self._death_error(kills_before) from error
        if module not in self._imported:
            self._receive(max(self._idle_timeout_s, self._start_up_s), kills_before)
            self._imported.add(module)
            return
        try:
            self._receive(self._idle_timeout_s, kills_before)
        except WorkerHungError as error:  # it hung without work, so the task is not to blame
            self.close()
            text = f"{self._name} hung without work and did not answer for {self._idle_timeout_s:g} s"
            raise WorkerDiedError(text) from error

    def _receive(self, timeout_s: float, kills_before: int | None) -> dict[str, Any]:
        """Returns the child's next message."""
        assert self._connection is not None
        try:
            if not self._connection.poll(timeout_s):
                self._dump_stack()
                raise WorkerHungError(
                    f"{self._name} sent no message for {timeout_s:g} s and was stopped{self._last_output()}. "
                    f"See {self._log.name} for its output, or raise study.idle_timeout_s."
                )
            message: dict[str, Any] = json.loads(self._connection.recv_bytes())
        except (EOFError, ConnectionError) as error:
            raise self._death_error(kills_before) from error
        return message

    def close(self) -> None:
        """Kills the child and all processes that it started."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            kill_child(self._process)
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
        self._imported.clear()
        ours, theirs = Pipe()
        search_path = os.pathsep.join(entry for entry in sys.path if entry)
        environment = {**os.environ, **self._environment, "PYTHONPATH": search_path}
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with open(self._log, "ab") as log:
            self._process = start_child(_CHILD, theirs, environment, log)
        theirs.close()
        self._connection = ours
        return ours

    def _raise(self, error: Mapping[str, Any]) -> NoReturn:
        kind = getattr(errors, error["kind"], None)
        if kind is OutOfMemoryError or error["is_device_fault"]:
            self.close()  # a process is unreliable after it ran out of memory or lost its GPU
        if isinstance(kind, type) and issubclass(kind, HiloNasError) and kind is not errors.FileFaultsError:
            raise kind(error["message"])
        self.close()
        raise WorkerFailedError(f"{self._name} failed: {error['kind']}: {error['message']}")

    def _death_error(self, kills_before: int | None) -> HiloNasError:
        """Returns the error for a child that ended without a result."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        code = self._process.returncode
        self.close()
        if code == KILLED:
            kills = self._count_oom_kills()
            if kills is None or kills_before is None or kills > kills_before:
                return OutOfMemoryError(f"{self._name} was killed by the kernel, out of memory{self._last_output()}")
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        return WorkerDiedError(f"{self._name} {how}{self._last_output()}")

    def _dump_stack(self) -> None:
        """Lets a hung child write the stack of its threads to its log."""
        if self._process is not None and hasattr(signal, "SIGUSR1"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGUSR1)
            time.sleep(_DUMP_S)

    def _last_output(self) -> str:
        """Returns the end of the child's output since the call began, as the end of a sentence."""
        text = _tail(self._log, self._log_start)
        return f"; its last output: {text}" if text else ""


def call_twice(worker: Worker, function: str, arguments: Mapping[str, Any], emit: Emit) -> Any:
    """Runs `Worker.call`. If the child dies, restarts it and repeats the call once.

    Use it only for calls that can be repeated, such as set-up and timings.
    """
    try:
        return worker.call(function, arguments, emit)
    except WorkerDiedError as error:
        emit(Notice(level="warning", text=f"{error}; restarting it and repeating its work"))
        return worker.call(function, arguments, emit)


def _count_oom_kills() -> int | None:
    """Returns the kernel's count of out-of-memory kills. None if it is not available."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None


def _size_of(log: Path) -> int:
    with contextlib.suppress(OSError):
        return log.stat().st_size
    return 0


def _tail(log: Path, start: int) -> str:
    """Returns the last lines of a log after a position, or the top of the stack if the process wrote one."""
    try:
        with open(log, "rb") as file:
            file.seek(max(start, _size_of(log) - _LOG_BYTES))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    stacks = [i for i, line in enumerate(lines) if line.startswith("Current thread ")]
    if not stacks:
        return " | ".join(lines[-_MOST_LINES:])[-_MOST_SIGNS:]
    faults = [line for line in lines if line.startswith("Fatal Python error: ")]
    frames = [_FOLDER.sub("", line) for line in lines[stacks[-1] :] if line.startswith("File ")]
    return " | ".join([*faults[-1:], *frames[:_MOST_LINES]])[:_MOST_SIGNS]


def run_child(handle: int, parent: int) -> None:
    """Runs the parent's calls until the parent closes the connection or dies. This is the child's side of `Worker`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError):  # if memory runs out, the kernel should kill the worker, not the search
        Path("/proc/self/oom_score_adj").write_text("500")
    sys.stdout, sys.stderr = _forgiving(1), _forgiving(2)
    faulthandler.enable(2)  # a crash leaves its stack in the log
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1, 2)
    connection = open_connection(handle)
    end_with_parent(parent)
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
                    send({"begun": True})  # import time does not count towards the idle timeout
                message = {"result": function(**task["arguments"], emit=emit)}
            except Exception as error:
                traceback.print_exc()  # to the log
                kind = "OutOfMemoryError" if errors.is_out_of_memory(error) else type(error).__name__
                is_fault = errors.is_device_fault(error)
                message = {"error": {"kind": kind, "message": str(error) or kind, "is_device_fault": is_fault}}
            sys.stdout.flush()
            sys.stderr.flush()
            send(message)
    except (EOFError, ConnectionError):
        os._exit(0)


class _Forgiving(io.FileIO):
    """A log file that ignores write errors, such as a full disk, because log output must not end the work."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _forgiving(handle: int) -> io.TextIOWrapper:
    raw = io.BufferedWriter(_Forgiving(handle, "w", closefd=False))
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)
