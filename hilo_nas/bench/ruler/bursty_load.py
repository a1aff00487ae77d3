"""A noisy neighbour on purpose: a process that works in bursts on the CPU or the GPU, as others on a shared machine do.

On the CPU it keeps one thread per two cores busy, on a GPU it multiplies matrices there; each burst and each pause
takes 0.1 to 1 s, drawn anew. It is a process of its own that knows its end by the end of its standard input, which
the kernel closes when the parent goes, however that happens.
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
"""Hashing so many bytes takes well below a millisecond, and lets go of Python's lock meanwhile."""
_SIDE = 2048
"""Side of the matrices that are multiplied on a GPU."""
_READY = "ready"
_CHILD = "import sys; from hilo_nas.bench.ruler.bursty_load import run_load; run_load(sys.argv[1], int(sys.argv[2]))"


@contextlib.contextmanager
def bursty_load(device: str, *, seed: int = 0) -> Iterator[int]:
    """Loads a device in bursts until the block ends; yields the number of the process that does it.

    Args:
        device: `cpu`, `cuda`, `cuda:N` or `mps`.
        seed: Draws the bursts.

    Raises:
        MeasurementError: The load could not be started, or ended by itself before the block did.
    """
    search_path = os.pathsep.join(entry for entry in sys.path if entry)
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _CHILD, device, str(seed)],
        env={**os.environ, "PYTHONPATH": search_path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C is the parent's to handle
    )
    try:
        _await_ready(process, device)
        yield process.pid
        if process.poll() is not None:
            raise MeasurementError(f"the load on {device} ended by itself: what was timed under it was not. Try again.")
    finally:
        process.kill()
        process.communicate()


def _await_ready(process: subprocess.Popen[str], device: str) -> None:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        if line.strip() == _READY:
            return
        said.append(line.strip())
    raise MeasurementError(f"the load on {device} could not be started: {' | '.join(said[-3:]) or 'it said nothing'}")


def run_load(device: str, seed: int) -> None:
    """Works in bursts until the standard input ends; the child's side of `bursty_load`."""
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
    """Returns one product of two matrices on the device, waited for."""
    import torch

    left, right = torch.randn(2, _SIDE, _SIDE, device=device).unbind(0)
    return lambda: float((left @ right)[0, 0])
