"""Running processes and their descendants, read from /proc (Linux)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

__all__ = ["Processes", "count_survivors", "find_busiest", "list_descendants", "read_processes"]

Processes = Mapping[int, tuple[int, str]]
"""Id of the parent and start time of each process, by id. Together, id and start time identify a process."""


def read_processes() -> dict[int, tuple[int, str]]:
    """Returns the parent's id and the start time of each running process, by id. Zombies are left out."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if words[0] not in "ZX":
            found[int(path.parent.name)] = int(words[1]), words[19]
    return found


def list_descendants(pid: int, processes: Processes) -> Iterator[int]:
    """Yields the ids of all descendants of a process."""
    for child, (parent, _) in processes.items():
        if parent == pid:
            yield child
            yield from list_descendants(child, processes)


def count_survivors(pids: Iterable[int], before: Processes, seconds: float) -> int:
    """Returns how many processes are still running after some seconds. Returns early if none is left.

    Args:
        pids: Ids of the processes.
        before: Processes when the ids were read. An id that another process has received since does not count.
        seconds: Maximum seconds to wait.
    """
    watched, deadline = list(pids), time.monotonic() + seconds
    while True:
        now = read_processes()
        left = [pid for pid in watched if pid in now and now[pid][1] == before[pid][1]]
        if not left or time.monotonic() >= deadline:
            return len(left)
        time.sleep(0.1)


def find_busiest(pids: Iterable[int], seconds: float) -> int | None:
    """Returns the process that uses most CPU time during some seconds. None if none is left."""
    before = {pid: ticks for pid in pids if (ticks := _read_ticks(pid)) is not None}
    time.sleep(seconds)
    used = {pid: ticks - before[pid] for pid in before if (ticks := _read_ticks(pid)) is not None}
    return max(used, key=used.__getitem__, default=None)


def _read_ticks(pid: int) -> int | None:
    """Returns the CPU time of a process in clock ticks. None if it has ended."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(words[11]) + int(words[12])
