"""The soak test: random disturbances of one study, its invariants, and its report."""

from __future__ import annotations

import collections
import signal
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.soak.audit import Audit
from benchmarks.soak.damage import DamageCache, DamageStudy, read_files, tear
from benchmarks.soak.disturbances import (
    Disturbance,
    HangWorker,
    InterruptSearch,
    KillSearch,
    KillWorker,
    LimitFiles,
    StartRival,
    interrupt,
)
from benchmarks.soak.facts import FINISHED, Fact, collect_facts, compare_networks, count_duplicates
from benchmarks.soak.ray_disturbances import KillNode, KillPlace
from benchmarks.soak.ray_nodes import RayNodes
from benchmarks.soak.watched_search import WORKERS_FAILED, WatchedSearch, make_folders
from hilo_nas.errors import RecordError
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.stored_study import StoredStudy

__all__ = ["IDLE_TIMEOUT_S", "SEARCH", "Soak", "all_disturbances", "cluster_disturbances"]

SEARCH = (
    *("litv2_digits", "--device", "cpu", "--data", "digits", "--proxy-images", "1280"),
    *("--set", "search.sampler=random", "--set", "proxy.rungs=3"),
    *("--set", "timing.seconds=0.5", "--set", "timing.remeasure=false"),
)
"""Arguments of the search: short timings and trainings, a sampler that can be replayed, and no rivals at its end."""
IDLE_TIMEOUT_S = 30.0
_EARLY_SHARE = 0.15
"""Share of disturbances at the start of a search. The others wait until it has written a record."""
_LAST_TRIALS = 6
"""Number of networks that the last search measures, which nothing disturbs."""
_LAST_S, _NETWORK_S = 900.0, 300.0
"""Maximum seconds of a search that nothing disturbs, and what each of its networks adds to it."""
_SECRET = "hf_soak_test_secret"
"""Value of HF_TOKEN, which no file of the study may hold."""
_LOCAL = ("local.yaml", "logs/", "checkpoints/")
"""Files of a study that may name folders of this machine, because they are not meant for others."""


def all_disturbances(idle_timeout_s: float = IDLE_TIMEOUT_S) -> list[Disturbance]:
    """Returns one disturbance of each kind."""
    return [
        KillSearch(),
        KillWorker(),
        InterruptSearch(),
        HangWorker(idle_timeout_s),
        StartRival(),
        LimitFiles(),
        DamageStudy(),
        DamageCache(),
    ]


def cluster_disturbances(nodes: RayNodes) -> list[Disturbance]:
    """Returns one disturbance of each kind for a search on a cluster."""
    return [KillSearch(), KillWorker(), InterruptSearch(), StartRival(), KillPlace(nodes), KillNode(nodes)]


class Soak:
    """A search that is disturbed at random times. As a context manager, it ends the search at the exit.

    Args:
        folder: New folder for all files.
        seed: Seed of the times and kinds of the disturbances.
        arguments: Arguments of the search, such as `SEARCH`.
        pause_s: Maximum seconds between two disturbances. A network takes about as long.
        report: Receives a line after each disturbance.
        nodes: Running cluster that the arguments name, if they do.
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        *,
        arguments: Sequence[str] = SEARCH,
        pause_s: float = 12.0,
        report: Callable[[str], None] = lambda line: None,
        nodes: RayNodes | None = None,
    ) -> None:
        self._environment = {**make_folders(folder), "HF_TOKEN": _SECRET}
        self._folder, self._arguments, self._pause_s, self._report = folder, tuple(arguments), pause_s, report
        self._secrets = [_SECRET, *filter(None, [self._environment.get("RAY_AUTH_TOKEN")])]
        places = {folder, Path.home(), Path.cwd(), Path(sys.prefix)}
        self._places = sorted(str(place) for place in places if len(place.parts) > 1)
        """Folders of this machine that no shared file of the study may name."""
        self._endings = {WORKERS_FAILED: "searches that failed networks ended", **(nodes.endings if nodes else {})}
        list_remote = nodes.list_processes if nodes else lambda processes: []
        self.search = WatchedSearch(folder, "soak", self._arguments, self._environment, list_remote=list_remote)
        self.cache = folder / "cache"
        self.random = Random(seed)
        self.audit = Audit()
        self.refusals: list[float] = []
        """Seconds until each second search was refused."""
        self.seen_records: list[TrialRecord] = []
        """Records of the last look."""
        self._seen: set[Fact] = set()
        self._undisturbed: Sequence[TrialRecord] = ()
        self.faults: list[str] = []
        """Broken invariants, without those that the audit found."""
        self._counts: collections.Counter[str] = collections.Counter()
        self._begun_at = time.monotonic()

    def __enter__(self) -> Soak:
        return self

    def __exit__(self, *raised: object) -> None:
        self.search.__exit__()

    def count(self, name: str) -> None:
        """Counts an occurrence for the report."""
        self._counts[name] += 1

    def fault(self, text: str) -> None:
        """Adds a broken invariant to the report."""
        self.faults.append(text)
        self._report(f"FAULT: {text}")

    def read_records(self) -> Sequence[TrialRecord]:
        """Returns the records on disk. There are none before the study exists."""
        study = StoredStudy(self.search.path)
        try:
            return study.records if study.exists else ()
        except RecordError as error:
            self.fault(f"a record cannot be read: {error}")
            return ()

    def give_up(self, facts: set[Fact]) -> None:
        """Takes results out of those that must not get lost, because their record was damaged on purpose."""
        self._seen -= facts

    def look(self, *, is_stopped: bool) -> None:
        """Compares the records with those of all earlier looks, and audits what has happened since.

        Args:
            is_stopped: True if no search is running.
        """
        study = StoredStudy(self.search.path)
        if not study.exists:
            return
        try:
            self.audit.read(study, is_stopped=is_stopped)
        except RecordError as error:
            self.fault(f"a record cannot be read: {error}")
            return
        self.seen_records = list(self.read_records())
        found = collect_facts(self.seen_records)
        for key, kind, *_ in sorted(self._seen - found, key=repr):
            self.fault(f"a {kind} of {key} is lost")
        self._seen = found
        has_limits = bool(study.manifest.limits_in_force)
        for name, number in count_duplicates(found, self.seen_records, has_limits=has_limits).items():
            if number:
                self.fault(f"{name}: {number}")

    def disturb(self, disturbances: Sequence[Disturbance]) -> str:
        """Waits for a random time, and disturbs the search in one of several ways. Returns the name of the way.

        Raises:
            SearchEndsError: Several searches in a row ended by themselves.
        """
        while True:
            self.search.running()
            self._check_endings()
            if self.random.random() >= _EARLY_SHARE:
                self.search.wait_for_work()
            time.sleep(self.random.uniform(0.5, self._pause_s))
            process = self.search.process
            if process is None or process.poll() is not None:
                continue
            self.look(is_stopped=False)
            chosen = self.random.choice(disturbances)
            if chosen.hits_workers:
                self.audit.hit()
            has_struck = chosen.strike(self)
            self.look(is_stopped=self.search.process is None)
            if has_struck:
                self.search.endings_in_a_row = 0
                self.count(f"disturbances: {chosen.name}")
                return chosen.name

    def _check_endings(self) -> None:
        """Reports searches that ended by themselves.

        Five failed networks in a row end a search on purpose, and so does the loss of all nodes of a cluster.
        """
        for code, said in self.search.endings:
            if code in (1, 2) and (names := [name for text, name in self._endings.items() if text in said]):
                self.count(names[-1])
            else:
                self.fault(f"a search ended by itself with exit code {code}: {said[-300:]}")
        self.search.endings.clear()

    def finish(self) -> None:
        """Runs the study to its end, then the same search without disturbances, and compares the two."""
        if self.search.process is not None:
            interrupt(self, signal.SIGINT)
            self.look(is_stopped=True)
        self._check_endings()
        if code := self.search.complete("--trials", str(_LAST_TRIALS), seconds=_LAST_S + _LAST_TRIALS * _NETWORK_S):
            self.fault(f"the last search ended with exit code {code}")
        self.look(is_stopped=True)
        self._damage_posteriors()
        self._check_texts()
        records = self.seen_records
        open_numbers = [record.number for record in records if record.is_open]
        if open_numbers:
            self.fault(f"trials {open_numbers} are open after the last search")
        self._undisturbed = self._run_undisturbed(len(records))
        self.faults += compare_networks(records, self._undisturbed)

    def report(self) -> dict[str, Any]:
        """Returns the faults and counts so far. After an early end, they are those of the part that ran."""
        records = self.seen_records
        return {
            "faults": [*self.faults, *self.audit.faults],
            **dict(sorted(self._counts.items())),
            "results on disk": len(self._seen),
            "networks": len({record.key for record in records}),
            "finished networks": len({record.key for record in records if record.state in FINISHED}),
            "trials that end failed": sum(record.state == "failed" for record in records),
            "networks as undisturbed": len({r.key for r in records} & {r.key for r in self._undisturbed}),
            **self.audit.report(),
            **self._describe_refusals(),
            "minutes": round((time.monotonic() - self._begun_at) / 60, 1),
        }

    def _damage_posteriors(self) -> None:
        """Damages the posteriors of the finished study. A repair must move them and leave everything else."""
        study = StoredStudy(self.search.path)
        if not study.posteriors_path.exists():
            return
        before = read_files(study.path)
        tear(study.posteriors_path, self.random)
        done = self.search.command("repair")
        after = read_files(study.path)
        del before["posteriors.json"]
        if done.returncode or before != {name: after[name] for name in after if name != "posteriors.json"}:
            self.fault(f"the repair of posteriors.json ended with {done.returncode} or changed other files")
        self.count("damaged posteriors")

    def _check_texts(self) -> None:
        """Checks that the study holds no secret of the test, and names no folder of this machine where it is shared.

        The folders are those of the test and of Python, the home folder and the current folder.
        """
        for name, content in read_files(self.search.path, with_damaged=True).items():
            if any(secret.encode() in content for secret in self._secrets):
                self.fault(f"{name} holds the value of an environment variable")
            original = "/".join(name.split("/")[2:]) if name.startswith("damaged/") else name
            if original.startswith(_LOCAL):
                continue
            for place in self._places:
                if place.encode() in content:
                    self.fault(f"{name} holds a path of this machine: {place}")

    def _run_undisturbed(self, trials: int) -> Sequence[TrialRecord]:
        """Runs the search in a new study with its own image cache."""
        cache = self._folder / "undisturbed-cache"
        cache.mkdir()
        environment = {**self._environment, "HILO_NAS_CACHE_DIR": str(cache)}
        with WatchedSearch(self._folder, "undisturbed", self._arguments, environment) as search:
            if code := search.complete("--until-trials", str(trials), seconds=_LAST_S + trials * _NETWORK_S):
                self.fault(f"the undisturbed search ended with exit code {code}")
        study = StoredStudy(search.path)
        return study.records if study.exists else ()

    def _describe_refusals(self) -> dict[str, Any]:
        if not self.refusals:
            return {}
        return {
            "second searches refused": len(self.refusals),
            "seconds until refusal, median": round(statistics.median(self.refusals), 2),
            "seconds until refusal, maximum": round(max(self.refusals), 2),
        }
