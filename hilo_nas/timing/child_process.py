"""Start and end of a worker's process, on Unix and on Windows. The two ends share a pipe.

A process is always started as a new Python interpreter and never forked, because a fork copies the locks and threads
of torch. Ctrl-C reaches the parent alone. A child gets its end of the pipe by the number of an inherited handle.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import IO, Any

from hilo_nas.processes import ProcessWatch

__all__ = ["KILLED", "end_with_parent", "kill_child", "open_connection", "start_child"]

KILLED = -int(getattr(signal, "SIGKILL", 9))
"""Return code of a process that was killed. Windows has no such code."""

_CHECK_EVERY_S = 0.5


def start_child(
    program: str, connection: Connection[Any, Any], environment: Mapping[str, str], log: IO[bytes]
) -> subprocess.Popen[bytes]:
    """Starts a Python process and passes one end of a pipe to it.

    Args:
        program: Python source. Its arguments are the handle for `open_connection` and the process ID of this process.
        connection: The child's end. The caller closes it afterwards.
        environment: All environment variables of the child.
        log: File for its output.

    Raises:
        OSError: The process cannot be started.
    """
    handle = connection.fileno()
    arguments = [sys.executable, "-P", "-c", program, str(handle), str(os.getpid())]
    if sys.platform == "win32":
        os.set_handle_inheritable(handle, True)
        return subprocess.Popen(
            arguments,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            startupinfo=subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle]}),
            creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,
        )
    return subprocess.Popen(
        arguments,
        env=dict(environment),
        pass_fds=[handle],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def open_connection(handle: int) -> Connection[Any, Any]:
    """Returns the child's end of the pipe.

    Args:
        handle: First argument of the child.
    """
    if sys.platform == "win32":
        from multiprocessing.connection import PipeConnection

        return PipeConnection(handle)
    return Connection(handle)


def kill_child(process: subprocess.Popen[bytes]) -> None:
    """Kills a process of `start_child` and all processes that it started, and waits for its end."""
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True, check=False)
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def end_with_parent(parent: int) -> None:
    """Ends this process when the parent ends. On Linux the kernel does this; a thread also checks on all systems.

    Args:
        parent: Process ID of the parent.
    """
    if sys.platform == "linux":
        set_death_signal = 1  # PR_SET_PDEATHSIG
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    has_parent = _parent_check(parent)

    def watch() -> None:
        pause = threading.Event()
        while has_parent():
            pause.wait(_CHECK_EVERY_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _parent_check(parent: int) -> Callable[[], bool]:
    """Returns a function that returns True until the parent ends. Windows keeps the ID of a parent that has ended."""
    if sys.platform == "win32":
        return ProcessWatch(parent).is_running
    return lambda: os.getppid() == parent
