"""Artificial load: a process that works in bursts on the CPU or GPU, as other users of a shared machine do.

On the CPU, the load runs one thread per two cores. On a GPU, it multiplies matrices. The length of each burst and each
pause is drawn from 0.1 to 1 s. The load is a separate process. It ends when its standard input ends, because the kernel
closes the pipe when the parent process ends for any reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from random import Random

from hilo_nas.errors import MeasurementError

__all__ = ["bursty_load", "run_load"]

_BURST_S = (0.1, 1.0)
_BLOCK_BYTES = 2**18
"""Bytes per hash. One hash takes less than a millisecond and releases Python's global interpreter lock."""
_SIDE = 2048
"""Side of the matrices that a GPU multiplies."""
_READY = "ready"
_CHILD = "import sys; from hilo_nas.bench.ruler.bursty_load import run_load; run_load(sys.argv[1], int(sys.argv[2]))"


@contextlib.contextmanager
def bursty_load(device: str, *, seed: int = 0) -> Iterator[int]:
    """Loads a device in bursts until the block ends, and yields the id of the load's process.

    Args:
        device: `cpu`, `cuda`, `cuda:N` or `mps`.
        seed: Seed for the lengths of bursts and pauses.

    Raises:
        MeasurementError: The load could not be started, or ended before the block.
    """
    search_path = os.pathsep.join(entry for entry in sys.path if entry)
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _CHILD, device, str(seed)],
        env={**os.environ, "PYTHONPATH": search_path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # only the parent handles Ctrl-C
    )
    try:
        _await_ready(process, device)
        yield process.pid
        if process.poll() is not None:
            raise MeasurementError(
                f"the load on {device} must run until all timings end, but ended early: they are not valid. Try again."
            )
    finally:
        process.kill()
        process.communicate()


def _await_ready(process: subprocess.Popen[str], device: str) -> None:
    assert process.stdout is not None
    output = []
    for line in process.stdout:
        if line.strip() == _READY:
            return
        output.append(line.strip())
    raise MeasurementError(f"the load on {device} could not be started: {' | '.join(output[-3:]) or 'no output'}")


def run_load(device: str, seed: int) -> None:
    """Works in bursts until standard input ends. The child process of `bursty_load` calls it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work, threads = (_hash, _half_of_the_cores()) if device == "cpu" else (_multiplication(device), 1)
    for i in range(threads):
        threading.Thread(target=_burst, args=(work, Random(f"{seed} {i}")), daemon=True).start()
    sys.stdout.write(f"{_READY}\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)


def _burst(work: Callable[[], object], random: Random) -> None:
    while True:
        until = time.monotonic() + random.uniform(*_BURST_S)
        while time.monotonic() < until:
            work()
        time.sleep(random.uniform(*_BURST_S))


def _half_of_the_cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // 2)


def _hash() -> None:
    hashlib.sha256(bytes(_BLOCK_BYTES))


def _multiplication(device: str) -> Callable[[], object]:
    """Returns a function that multiplies two matrices on the device and waits for the result."""
    import torch

    left, right = torch.randn(2, _SIDE, _SIDE, device=device).unbind(0)
    return lambda: float((left @ right)[0, 0])
