"""CPU load from other processes during a timing, on the cores that this process may use.

The load comes from the kernel's counters in /proc and /sys/fs/cgroup. These counters advance in steps of 10 ms, so they
are meaningless over short time spans.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["CpuWatch", "available_cores"]

_MIN_WATCH_S = 0.1
"""Minimum length in seconds of a time span that is evaluated. The kernel counts CPU time in steps of 10 ms, some of
them late."""
_WINDOW_S = 0.2
"""Minimum seconds between two readings of the CPU load by `look`: about ten rounds of the smallest network, or one
round of a large one."""
_QUIETEST = 5
"""One in this many time spans counts as quiet: those with the lowest load. A network's speed comes from its fast rounds
(`hilo_nas.measurement.rounds`), which fit into this share of the time."""
_SCAN_S = 0.01
"""Maximum CPU time of one scan of the process list, newest process first. One process takes 10 to 20 us."""
_MAX_NAMED = 3
_MIN_NAMED_CORES = 0.05
_NS_PER_S = 1e9
_US_PER_S = 1e6

_Processes = dict[tuple[int, bytes], tuple[bytes, int]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Counts:
    """Cumulative CPU times at one moment, in core seconds."""

    at: float
    busy_s: float
    """Busy time of the cores that this process may use, over all processes."""
    steal_s: float
    throttled_s: float
    own_s: float


class CpuWatch:
    """Watch on the cores that this process may use, from its construction until `read`.

    Args:
        root: Folder that contains proc and sys. Tests pass another one.
        clock: Function that returns monotonic seconds.
        own_seconds: Function that returns the CPU seconds that this process has used.
        cores: Numbers of the cores that this process may use. Defaults to the kernel's list.
    """

    def __init__(
        self,
        *,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
        own_seconds: Callable[[], float] = time.process_time,
        cores: Sequence[int] | None = None,
    ) -> None:
        self._proc, self._clock, self._own_seconds = root / "proc", clock, own_seconds
        self._cores = available_cores() if cores is None else list(cores)
        self._limits = [folder / "cpu.stat" for folder in find_control_groups(root)]
        self._processes = self._scan()
        self._counts = [counts for counts in [self._count()] if counts]

    def look(self) -> None:
        """Ends the current time span if it is long enough. Call it often, between rounds."""
        if self._counts and self._clock() - self._counts[-1].at >= _WINDOW_S and (counts := self._count()):
            self._counts.append(counts)

    def read(self) -> dict[str, Any]:
        """Returns the load as plain data. Empty if the kernel has no counters, or after less than 0.1 s.

        `cores` is the number of cores that this process may use. Three values are averages in cores: `others_cores`
        (kept busy by other processes), `steal_cores` (withheld by the host of a virtual machine) and `throttled_cores`
        (withheld by a CPU limit). `quietest` has the same three values for the quietest fifth of the time. `with` lists
        the processes that used the most CPU time.
        """
        last = self._count()
        if not self._counts or last is None or last.at - self._counts[0].at < _MIN_WATCH_S:
            return {}
        processes = self._scan()
        counts = [*self._counts, last]
        if len(counts) > 2 and last.at - counts[-2].at < _MIN_WATCH_S:
            del counts[-2]
        spans = sorted((_Span(*pair) for pair in itertools.pairwise(counts)), key=lambda span: span.taken_cores)
        quietest = spans[: -(-len(spans) // _QUIETEST)]
        whole = _Span(counts[0], last)
        return {
            "cores": len(self._cores),
            **_means([whole]),
            "quietest": _means(quietest),
            "with": self._busiest(processes, whole.seconds),
        }

    def _count(self) -> _Counts | None:
        with contextlib.suppress(OSError, ValueError, IndexError):
            ticks = _ticks((self._proc / "stat").read_text(), self._cores)
            user, nice, system, _, _, irq, softirq, steal = ticks
            per_second = os.sysconf("SC_CLK_TCK")
            return _Counts(
                at=self._clock(),
                busy_s=(user + nice + system + irq + softirq) / per_second,
                steal_s=steal / per_second,
                throttled_s=max((_throttled_s(path) for path in self._limits), default=0.0),
                own_s=self._own_seconds(),
            )
        return None

    def _scan(self) -> _Processes:
        """Returns the name and the CPU ticks of each other process, by process ID and start time."""
        found: _Processes = {}
        until, own, folder = time.thread_time() + _SCAN_S, os.getpid(), str(self._proc)
        with contextlib.suppress(OSError):
            for pid in sorted((int(name) for name in os.listdir(folder) if name.isdigit()), reverse=True):
                if time.thread_time() > until:
                    break
                if pid == own:
                    continue
                try:
                    handle = os.open(f"{folder}/{pid}/stat", os.O_RDONLY)  # twice as fast as a Path
                    try:
                        text = os.read(handle, 1024)
                    finally:
                        os.close(handle)
                    end = text.rindex(b")")
                    words = text[end + 2 :].split(None, 20)
                    found[pid, words[19]] = (text[text.index(b"(") + 1 : end], int(words[11]) + int(words[12]))
                except (OSError, ValueError, IndexError):  # the process has ended
                    continue
        return found

    def _busiest(self, now: _Processes, seconds: float) -> list[dict[str, Any]]:
        """Returns the other processes with the highest CPU use since the watch began, with their use in cores.

        Processes that the first scan left out are not listed.
        """
        if not self._processes:
            return []
        oldest = min(pid for pid, _ in self._processes)
        used = []
        for (pid, start), (name, ticks) in now.items():
            if pid >= oldest:
                before = self._processes.get((pid, start), (name, 0))[1]
                used.append(((ticks - before) / os.sysconf("SC_CLK_TCK") / seconds, pid, name))
        return [
            {"pid": pid, "name": _printable(name), "cores": round(cores, 2)}
            for cores, pid, name in sorted(used, reverse=True)[:_MAX_NAMED]
            if cores >= _MIN_NAMED_CORES
        ]


def _printable(name: bytes) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in name.decode(errors="replace"))


class _Span:
    """CPU times between two moments, in core seconds."""

    def __init__(self, before: _Counts, after: _Counts) -> None:
        self.seconds = after.at - before.at
        self.others_s = (after.busy_s - before.busy_s) - (after.own_s - before.own_s)
        self.steal_s = after.steal_s - before.steal_s
        self.throttled_s = after.throttled_s - before.throttled_s

    @property
    def taken_cores(self) -> float:
        return (self.others_s + self.steal_s + self.throttled_s) / self.seconds


def _means(spans: Sequence[_Span]) -> dict[str, float]:
    seconds = sum(span.seconds for span in spans)
    return {
        "others_cores": round(max(sum(span.others_s for span in spans), 0.0) / seconds, 2),
        "steal_cores": round(max(sum(span.steal_s for span in spans), 0.0) / seconds, 2),
        "throttled_cores": round(max(sum(span.throttled_s for span in spans), 0.0) / seconds, 2),
    }


def available_cores() -> list[int]:
    """Returns the numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _ticks(text: str, cores: Sequence[int]) -> list[int]:
    """Returns the first eight counts of /proc/stat, summed over the cores.

    The counts are those of all cores if /proc/stat numbers the cores differently.
    """
    lines = {words[0]: words[1:] for words in map(str.split, text.splitlines()) if words and words[0][:3] == "cpu"}
    own = [lines[name] for name in (f"cpu{core}" for core in cores) if name in lines]
    chosen = own if len(own) == len(cores) else [lines["cpu"]] if "cpu" in lines else []
    if not chosen or any(len(words) < 8 for words in chosen):
        raise ValueError("the kernel does not count CPU time here")
    return [sum(int(words[i]) for words in chosen) for i in range(8)]


def find_control_groups(root: Path) -> list[Path]:
    """Returns the folders of this process's control group and of its parents, whose CPU limits also apply.

    Args:
        root: Folder that contains proc and sys.
    """
    found: list[Path] = []
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            mount = root / "sys/fs/cgroup" / controllers
            folder = mount / path.strip("/")
            while True:
                if (folder / "cpu.stat").is_file():
                    found.append(folder)
                if folder == mount:
                    break
                folder = folder.parent
    return found


def _throttled_s(path: Path) -> float:
    """Returns the core seconds that a CPU limit withheld from a control group. cgroup v2 counts in us, v1 in ns."""
    with contextlib.suppress(OSError, ValueError):
        counts = dict(line.split(maxsplit=1) for line in path.read_text().splitlines())
        if "throttled_usec" in counts:
            return int(counts["throttled_usec"]) / _US_PER_S
        if "throttled_time" in counts:
            return int(counts["throttled_time"]) / _NS_PER_S
    return 0.0
