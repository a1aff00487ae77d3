"""Disturbances of a running search. The file `damage.py` has those of its files."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Protocol

from benchmarks.soak.process_tree import count_survivors
from hilo_nas.study.states import TrialState

if TYPE_CHECKING:
    from benchmarks.soak.soak_run import Soak

__all__ = ["Disturbance", "FillDisk", "HangWorker", "InterruptSearch", "KillSearch", "KillWorker", "StartRival"]

_FULL_S = 20.0
"""Maximum seconds for which the disk is full."""
_FULL_BYTES = 4096
"""Size above which no file can grow while the disk is full."""
_HANG_S = 20.0
"""Seconds after the idle timeout in which a search must have ended a hung worker that was at work."""
_RIVAL_S = 120.0
"""Maximum seconds to wait for the end of a second search."""


class Disturbance(Protocol):
    """One kind of disturbance.

    A disturbance of another evaluator is one more class, as those of a Ray cluster in `ray_disturbances.py`. Pass it to
    `Soak.disturb`, and the settings of the evaluator as arguments of the search.
    """

    name: str

    def strike(self, soak: Soak) -> bool:
        """Disturbs the search. Reports what must not follow from it by `Soak.fault`.

        Returns:
            False if there was nothing to disturb, because the search has ended or has no worker.
        """


class KillSearch:
    """`kill -9` of the search."""

    name = "kill of the search"

    def strike(self, soak: Soak) -> bool:
        """Kills the search. No worker may survive it."""
        code, orphans = soak.search.end(signal.SIGKILL)
        if orphans:
            soak.fault(f"{orphans} workers were running 5 s after the kill of their search")
        return code == -signal.SIGKILL


class InterruptSearch:
    """Ctrl-C, or SIGTERM."""

    name = "Ctrl-C or SIGTERM"

    def strike(self, soak: Soak) -> bool:
        """Interrupts the search. It must end with exit code 130, and must leave no trial in progress."""
        signum = soak.random.choice([signal.SIGINT, signal.SIGTERM])
        code, orphans = soak.search.end(signum)
        if code not in (130, -signum):  # Python itself ends by the signal while it starts
            soak.fault(f"{signum.name} ended the search with exit code {code}")
        if orphans:
            soak.fault(f"{orphans} workers were running 5 s after {signum.name}")
        if code == 130 and (left := [r.number for r in soak.read_records() if r.state == TrialState.RUNNING]):
            soak.fault(f"{signum.name} left the trials {left} in progress")
        return True


class KillWorker:
    """Signal 9 or 11 for a worker, as a crash or the kernel sends them."""

    name = "kill of a worker"

    def strike(self, soak: Soak) -> bool:
        """Kills a worker. The search starts it again."""
        workers, _ = soak.search.workers()
        if not workers:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(soak.random.choice(workers), soak.random.choice([signal.SIGKILL, signal.SIGSEGV]))
        return True


class HangWorker:
    """SIGSTOP for a worker, which then sends nothing.

    Args:
        idle_timeout_s: The setting `study.idle_timeout_s` of the search.
    """

    name = "hang of a worker"

    def __init__(self, idle_timeout_s: float) -> None:
        self._idle_timeout_s = idle_timeout_s

    def strike(self, soak: Soak) -> bool:
        """Stops a worker and waits until the search has ended it.

        A worker that has no work, or that is still starting, is released again.
        """
        workers, before = soak.search.workers()
        if not workers:
            return False
        worker = soak.random.choice(workers)
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGSTOP)
        if count_survivors([worker], before, self._idle_timeout_s + _HANG_S):
            soak.count("hung workers that were released")
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGCONT)
        return True


class StartRival:
    """A second search in the same study."""

    name = "second search"

    def strike(self, soak: Soak) -> bool:
        """Starts a second search, which must be refused with exit code 1 while the first one is running."""
        soak.search.wait_for_work()
        start = time.monotonic()
        with soak.search.rival() as rival:
            try:
                _, said = rival.communicate(timeout=_RIVAL_S)
            except subprocess.TimeoutExpired:
                said = ""
                rival.kill()
            seconds = time.monotonic() - start
        first = soak.search.process
        if first is None or first.poll() is not None:
            return False
        soak.refusals.append(seconds)
        if rival.returncode != 1 or "is locked" not in said:
            soak.fault(f"a second search ended with exit code {rival.returncode}: {said[-300:]}")
        return True


class FillDisk:
    """A full disk: for some time, no file of the search and its workers can grow beyond 4 KiB."""

    name = "full disk"

    def strike(self, soak: Soak) -> bool:
        """Fills the disk. The search ends with exit code 1 when it cannot write a record, or continues."""
        process = soak.search.process
        if process is None or process.poll() is not None:
            return False
        pids = [process.pid, *soak.search.workers()[0]]
        soak.audit.excuse([record.key for record in soak.read_records() if record.state == TrialState.RUNNING])
        for pid in pids:
            _limit_files(pid, _FULL_BYTES)
        deadline = time.monotonic() + _FULL_S
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        if process.poll() is None:
            for pid in [process.pid, *soak.search.workers()[0]]:  # a new worker inherits the limit
                _limit_files(pid, None)
            return True
        soak.search.process = None
        soak.count("searches that a full disk ended")
        if process.returncode != 1:
            soak.fault(f"a full disk ended the search with exit code {process.returncode}")
        return True


def _limit_files(pid: int, size: int | None) -> None:
    """Limits the size of the files of a running process, in bytes (Linux). None restores what the system allows."""
    with contextlib.suppress(ProcessLookupError):
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most if size is None else size, most))
