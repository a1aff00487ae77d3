"""Search of one study in its own process, which tests kill and resume."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.soak.process_tree import Processes, count_survivors, list_descendants, read_processes
from hilo_nas.study.stored_study import StoredStudy

__all__ = ["ORPHAN_S", "WatchedSearch", "make_folders", "name_folders"]

HILO_NAS = (sys.executable, "-m", "hilo_nas")
ENDLESS = ("--until-trials", "100000")
"""Arguments of a search that a test ends."""
WORK_S = 300.0
"""Maximum seconds to wait for a search's first record."""
END_S = 120.0
"""Seconds in which a search must end after a signal."""
ORPHAN_S = 5.0
"""Seconds in which a worker must end after its search ended."""


def name_folders(folder: Path) -> dict[str, Path]:
    """Returns the folders for locks, cache, state and studies, by the variables that name them."""
    return {f"HILO_NAS_{part.upper()}_DIR": folder / part for part in ("locks", "cache", "state", "studies")}


def make_folders(folder: Path) -> dict[str, str]:
    """Creates a new folder with places for locks, cache, state and studies. Returns the environment that names them."""
    folder.mkdir(parents=True)
    places = name_folders(folder)
    for place in places.values():
        place.mkdir()
    return {**os.environ, **{name: str(place) for name, place in places.items()}}


class WatchedSearch:
    """A search that is started, ended and resumed. Its output goes to `search.log`.

    Args:
        folder: Folder of `make_folders`.
        name: Name of the study.
        arguments: Arguments of `hilo-nas search`, without the study and the number of trials.
        environment: Environment of `make_folders`.
        list_remote: Returns the ids of those processes of the search that it did not start itself, such as places of a
            cluster.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        arguments: Sequence[str],
        environment: dict[str, str],
        *,
        list_remote: Callable[[Processes], list[int]] = lambda processes: [],
    ) -> None:
        self.path = folder / "studies" / name
        self.log = folder / "search.log"
        self.process: subprocess.Popen[bytes] | None = None
        """The running search."""
        self.endings: list[tuple[int, str]] = []
        """Exit code and output of the searches that ended although nothing ended them."""
        self._name, self._arguments, self._environment = name, arguments, environment
        self._list_remote = list_remote
        self._started_at, self._log_bytes = 0.0, 0
        """Time of the last start, and size of the log at that time."""

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs another command of `hilo-nas`, whose last argument is the study. Returns its exit code and output."""
        return subprocess.run(
            [*HILO_NAS, *words, self._name], env=self._environment, capture_output=True, text=True, check=False
        )

    def rival(self) -> subprocess.Popen[str]:
        """Starts a second search in the study. Its output goes to pipes."""
        return subprocess.Popen(
            self._words(ENDLESS), env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts or resumes the search."""
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a script; it is inherited
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._started_at = time.time()
        with open(self.log, "ab") as log:
            self._log_bytes = log.tell()
            self.process = subprocess.Popen(self._words(arguments), stdout=log, stderr=log, env=self._environment)
        return self.process

    def running(self) -> subprocess.Popen[bytes]:
        """Returns the running search. Resumes it if it has ended, and counts an end that nothing caused."""
        if self.process is not None and (code := self.process.poll()) is not None:
            said = self.log.read_bytes()[self._log_bytes :].decode(errors="replace")
            self.endings.append((code, said))
            self.process = None
        return self.process or self.start(*ENDLESS)

    def wait_for_work(self) -> None:
        """Waits until the search has written a record or has ended, for `WORK_S` seconds at most."""
        deadline, trials = time.monotonic() + WORK_S, StoredStudy(self.path).trials_path
        while self.process is not None and self.process.poll() is None and time.monotonic() < deadline:
            if any(_is_newer(path, self._started_at) for path in trials.glob("[0-9]*.json")):
                return
            time.sleep(0.1)

    def workers(self) -> tuple[list[int], Processes]:
        """Returns the ids of all processes that work for the search, and all processes of this moment."""
        processes = read_processes()
        if self.process is None:
            return [], processes
        return [*list_descendants(self.process.pid, processes), *self._list_remote(processes)], processes

    def end(self, signum: int) -> tuple[int, int]:
        """Sends a signal to the running search and waits for its end. Kills it if it does not end in time.

        Returns:
            The exit code, and the number of its processes that were still running `ORPHAN_S` seconds later.
        """
        assert self.process is not None, "a search must be running"
        workers, before = self.workers()
        self.process.send_signal(signum)
        try:
            code = self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.process = None
        return code, count_survivors(workers, before, ORPHAN_S)

    def _words(self, arguments: Sequence[str]) -> list[str]:
        return [*HILO_NAS, "search", *self._arguments, "--study", self._name, *arguments]


def _is_newer(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime > moment
    except FileNotFoundError:  # a repair moved it
        return False
