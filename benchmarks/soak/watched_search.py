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
from hilo_nas.errors import HiloNasError
from hilo_nas.study.stored_study import StoredStudy

__all__ = ["ORPHAN_S", "WORKERS_FAILED", "SearchEndsError", "WatchedSearch", "make_folders", "name_folders"]

HILO_NAS = (sys.executable, "-m", "hilo_nas")
ENDLESS = ("--until-trials", "100000")
"""Arguments of a search that a test ends."""
WORK_S = 300.0
"""Maximum seconds to wait for a search's first record."""
END_S = 120.0
"""Seconds in which a search must end after a signal."""
ORPHAN_S = 5.0
"""Seconds in which a worker must end after its search ended."""
WORKERS_FAILED = "The output of the workers is in"
"""Part of the message with which five failed networks in a row end a search."""
_COMMAND_S = 300.0
"""Seconds in which a command other than a search must end."""
_MOST_ENDINGS = 5
"""Number of searches in a row that may end by themselves before the next disturbance."""


class SearchEndsError(HiloNasError):
    """The search ends again and again, so that it cannot be disturbed."""


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

    As a context manager, it kills the search that is running at the exit.

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
        self.endings_in_a_row = 0
        """Number of such ends since the last disturbance. The caller of `running` sets it to 0 after one."""
        self._name, self._arguments, self._environment = name, arguments, environment
        self._list_remote = list_remote
        self._started_at, self._log_bytes, self._event_bytes = 0.0, 0, 0
        """Time of the last start, and sizes of the log and the event log at that time."""

    def __enter__(self) -> WatchedSearch:
        return self

    def __exit__(self, *raised: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs another command of `hilo-nas`, whose last argument is the study. Returns its exit code and output.

        The exit code of a command that does not end in time is 124.
        """
        arguments = [*HILO_NAS, *words, self._name]
        try:
            return subprocess.run(
                arguments, env=self._environment, capture_output=True, text=True, check=False, timeout=_COMMAND_S
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(arguments, 124, "", f"it did not end within {_COMMAND_S:g} s")

    def rival(self) -> subprocess.Popen[str]:
        """Starts a second search in the study. Its output goes to pipes."""
        return subprocess.Popen(
            self._words(ENDLESS), env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def running(self) -> subprocess.Popen[bytes]:
        """Returns the running search. Resumes it if it has ended, and notes an end that nothing caused.

        Raises:
            SearchEndsError: Several searches in a row ended by themselves.
        """
        if self.process is not None and self.process.poll() is not None:
            self._note_ending()
        if self.endings_in_a_row >= _MOST_ENDINGS:
            code, said = self.endings[-1] if self.endings else (None, "")
            raise SearchEndsError(
                f"{self.endings_in_a_row} searches in a row ended by themselves, the last one with exit code {code}. "
                f"See {self.log}. {said[-300:]}"
            )
        return self.process or self._start(ENDLESS)

    def complete(self, *arguments: str, seconds: float) -> int:
        """Runs the search to its end and returns its exit code. Kills it after some seconds."""
        process = self._start(arguments)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        self.process = None
        return code

    def read_events(self) -> bytes:
        """Returns the lines that the event log has received since the last start of the search."""
        try:
            with open(self.path / "logs" / "events.jsonl", "rb") as file:
                file.seek(self._event_bytes)
                return file.read()
        except FileNotFoundError:
            return b""

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

    def end(self, signum: int) -> tuple[int | None, int]:
        """Sends a signal to the running search and waits for its end. Kills it if it does not end in time.

        Returns:
            The exit code, and the number of its processes that were still running `ORPHAN_S` seconds later. The code is
            None if the search had ended by itself before. Such an end is noted.
        """
        assert self.process is not None, "a search must be running"
        workers, before = self.workers()
        has_ended = self.process.poll() is not None
        self.process.send_signal(signum)
        try:
            code = self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if has_ended or (signum == signal.SIGKILL and code != -signum):
            self._note_ending()
            return None, count_survivors(workers, before, ORPHAN_S)
        self.process = None
        return code, count_survivors(workers, before, ORPHAN_S)

    def _start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a script; it is inherited
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._started_at, self._event_bytes = time.time(), 0
        self._event_bytes = len(self.read_events())
        with open(self.log, "ab") as log:
            self._log_bytes = log.tell()
            self.process = subprocess.Popen(self._words(arguments), stdout=log, stderr=log, env=self._environment)
        return self.process

    def _note_ending(self) -> None:
        """Notes that the search ended although nothing ended it."""
        assert self.process is not None, "a search must have ended"
        said = self.log.read_bytes()[self._log_bytes :].decode(errors="replace")
        self.endings.append((self.process.returncode, said))
        self.endings_in_a_row += 1
        self.process = None

    def _words(self, arguments: Sequence[str]) -> list[str]:
        return [*HILO_NAS, "search", *self._arguments, "--study", self._name, *arguments]


def _is_newer(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime > moment
    except FileNotFoundError:  # a repair moved it
        return False
