"""What tests let a worker process do: succeed, raise, die, hang."""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from hilo_nas.errors import DataError, ProxyError
from hilo_nas.events import Notice


def echo(*, emit, **arguments):
    return arguments


def tell(*, emit, times):
    for i in range(times):
        emit(Notice(text=f"step {i}"))
    return times


def who(*, emit):
    names = ("OMP_WAIT_POLICY", "MALLOC_MMAP_MAX_")
    return {"pid": os.getpid(), **{name: os.environ.get(name) for name in names}}


def shout(*, emit, times=1):
    for _ in range(times):
        print("a line that must not reach the user's screen")
    return True


def refuse(*, emit):
    raise DataError("the data is not there")


def stumble(*, emit):
    raise ValueError("a fault of somebody's library")


def lose_gpu(*, emit):
    try:
        raise RuntimeError("CUDA error: device-side assert triggered")
    except RuntimeError as error:
        raise ProxyError("mine.py:score raised RuntimeError") from error


def run_out(*, emit):
    raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")


def exhaust_address_space(*, emit):
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
    return len(bytearray(2**34))


def leave(*, emit, code):
    print("these are my last words", file=sys.stderr, flush=True)
    os._exit(code)


def kill_self(*, emit, words=""):
    print(words, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def read_null(*, emit):
    ctypes.string_at(0)


def hang(*, emit, pid_file=None):
    if pid_file:
        Path(pid_file).write_text(str(os.getpid()))
    while True:
        time.sleep(60)


def start_grandchild(*, emit):
    import subprocess

    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid


def die_once(*, emit, mark):
    """Dies by SIGKILL the first time, and brings a result the second."""
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"
