"""Disturbances of a running search. The file `damage.py` has those of its files."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Protocol

from benchmarks.soak.process_tree import count_survivors, find_busiest
from hilo_nas.study.states import TrialState

if TYPE_CHECKING:
    from benchmarks.soak.soak_run import Soak

__all__ = [
    "Disturbance",
    "HangWorker",
    "InterruptSearch",
    "KillSearch",
    "KillWorker",
    "LimitFiles",
    "StartRival",
    "interrupt",
    "kill",
]

_LIMIT_S = 20.0
"""Maximum seconds for which the size of files is limited."""
_LIMIT_BYTES = 4096
"""Size beyond which no file can grow during that time."""
_HANG_S = 20.0
"""Seconds after the idle timeout in which a search must have ended a hung worker that was at work."""
_TRAINING_S = 120.0
"""Maximum seconds to wait for a training."""
_RIVAL_S = 120.0
"""Maximum seconds to wait for the end of a second search."""


class Disturbance(Protocol):
    """One kind of disturbance.

    A disturbance of another evaluator is one more class, as those of a Ray cluster in `ray_disturbances.py`. Pass it to
    `Soak.disturb`, and the settings of the evaluator as arguments of the search.
    """

    name: str
    hits_workers: bool
    """True if a worker may have to repeat its task, while the search continues."""

    def strike(self, soak: Soak) -> bool:
        """Disturbs the search. Reports what must not follow from it by `Soak.fault`.

        Returns:
            False if there was nothing to disturb, because the search has ended or has no worker.
        """


class KillSearch:
    """`kill -9` of the search."""

    name = "kill of the search"
    hits_workers = False

    def strike(self, soak: Soak) -> bool:
        """Kills the search. No worker may survive it."""
        return kill(soak)


class InterruptSearch:
    """Ctrl-C, or SIGTERM."""

    name = "Ctrl-C or SIGTERM"
    hits_workers = False

    def strike(self, soak: Soak) -> bool:
        """Interrupts the search. It must end with exit code 130, and must leave no trial in progress."""
        return interrupt(soak, soak.random.choice([signal.SIGINT, signal.SIGTERM]))


def kill(soak: Soak) -> bool:
    """Kills the search. Reports workers that survive it. Returns False if the search had ended by itself."""
    code, orphans = soak.search.end(signal.SIGKILL)
    if orphans:
        soak.fault(f"{orphans} workers were running 5 s after the end of their search")
    return code is not None


def interrupt(soak: Soak, signum: signal.Signals) -> bool:
    """Interrupts the search. Reports a wrong exit code, workers that survive, and trials that it leaves in progress.

    Returns:
        False if the search had ended by itself.
    """
    code, orphans = soak.search.end(signum)
    if orphans:
        soak.fault(f"{orphans} workers were running 5 s after {signum.name}")
    if code is None:
        return False
    events = soak.search.read_events()
    is_starting = b'"event": ' not in events  # before that, Python itself may end by the signal
    if code != 130 and not (is_starting and code == -signum):
        soak.fault(f"{signum.name} ended the search with exit code {code}")
    # A search closes the trials of a killed one before it starts its own.
    if b'"event": "SearchStarted"' in events and (
        left := [r.number for r in soak.read_records() if r.state == TrialState.RUNNING]
    ):
        soak.fault(f"{signum.name} left the trials {left} in progress")
    return True


class KillWorker:
    """Signal 9 or 11 for a worker, as a crash or the kernel sends them."""

    name = "kill of a worker"
    hits_workers = True

    def strike(self, soak: Soak) -> bool:
        """Kills a worker. The search starts it again."""
        workers, _ = soak.search.workers()
        if not workers:
            return False
        _send(soak.random.choice(workers), soak.random.choice([signal.SIGKILL, signal.SIGSEGV]))
        return True


class HangWorker:
    """SIGSTOP for a worker, which then sends nothing.

    Args:
        idle_timeout_s: The setting `study.idle_timeout_s` of the search.
    """

    name = "hang of a worker"
    hits_workers = True

    def __init__(self, idle_timeout_s: float, *, end_s: float = _HANG_S, training_s: float = _TRAINING_S) -> None:
        self._end_s, self._training_s = idle_timeout_s + end_s, training_s

    def strike(self, soak: Soak) -> bool:
        """Stops a worker that trains. The search must end it.

        If no training starts in time, it stops any worker. One that has no work, or that is still starting, is released
        again.
        """
        worker = self._stop_training(soak)
        is_training = worker is not None
        workers, before = soak.search.workers()
        if worker is None:
            if not workers:
                return False
            worker = soak.random.choice(workers)
            _send(worker, signal.SIGSTOP)
        if worker in before and count_survivors([worker], before, self._end_s):
            if is_training:
                soak.fault(f"a worker that hung during a training was not ended within {self._end_s:g} s")
            soak.count("hung workers that were released")
            _send(worker, signal.SIGCONT)
        elif is_training:
            soak.count("hung workers that were ended")
        return True

    def _stop_training(self, soak: Soak) -> int | None:
        """Stops the worker that is training. Returns its id, or None if no training started in time."""
        deadline, seen = time.monotonic() + self._training_s, len(soak.search.read_events())
        while time.monotonic() < deadline:
            if not _is_training(soak.search.read_events()[seen:]):
                if not soak.search.workers()[0]:
                    return None
                time.sleep(0.05)
                continue
            worker = find_busiest(soak.search.workers()[0], 0.3)
            if worker is None:
                return None
            _send(worker, signal.SIGSTOP)
            time.sleep(1.0)  # a score that was sent before is stored by then
            if _is_training(soak.search.read_events()[seen:]):
                return worker
            _send(worker, signal.SIGCONT)
        return None


def _is_training(events: bytes) -> bool:
    """Returns True if the last training of these lines of the event log has not ended."""
    start, *ends = (
        events.rfind(b'"event": "%s"' % kind) for kind in (b"TrainingStarted", b"RungReached", b"TrialFinished")
    )
    return start > max(ends)


def _send(pid: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


class StartRival:
    """A second search in the same study."""

    name = "second search"
    hits_workers = False

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


class LimitFiles:
    """Limit for the size of files (RLIMIT_FSIZE), instead of a full disk.

    For some time, no file of the search and its workers can grow beyond 4 KiB. A write beyond it fails with EFBIG,
    where a full disk gives ENOSPC. Smaller files can still be written.
    """

    name = "no file beyond 4 KiB"
    hits_workers = True

    def strike(self, soak: Soak) -> bool:
        """Limits the files. The search ends with exit code 1 when it cannot write a record, or continues."""
        process = soak.search.process
        if process is None or process.poll() is not None:
            return False
        for pid in [process.pid, *soak.search.workers()[0]]:
            _limit_files(pid, _LIMIT_BYTES)
        soak.look(is_stopped=False)  # what follows in the event log comes after the limit
        soak.audit.excuse([record.key for record in soak.seen_records if record.state == TrialState.RUNNING])
        deadline = time.monotonic() + _LIMIT_S
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        if process.poll() is None:
            for pid in [process.pid, *soak.search.workers()[0]]:  # a new worker inherits the limit
                _limit_files(pid, None)
            return True
        soak.search.process = None
        soak.count("searches that could not write and ended")
        if process.returncode != 1:
            soak.fault(f"the limit for the size of files ended the search with exit code {process.returncode}")
        return True


def _limit_files(pid: int, size: int | None) -> None:
    """Limits the size of the files of a running process, in bytes (Linux). None restores what the system allows."""
    with contextlib.suppress(ProcessLookupError):
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most if size is None else size, most))
