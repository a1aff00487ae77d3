"""Evidence that a search survives kill -9: of its process and of its workers, at random moments.

    python -m benchmarks.kills FOLDER [--kills 60] [--seed 0]

Searches `litv2_digits` on scikit-learn's digits with short timings and trainings. Half of the kills hit the search,
which is then resumed, the others one of its workers. Before each kill the records on disk are read. At the end a search
that nobody kills closes what is open, and these are counted: measurements, scores and finished networks that were on
disk once and are no longer, networks finished twice, scores taken twice, records that cannot be read, and processes
that outlive their search by 5 s. FOLDER takes locks, caches, the study, `search.log` and `kills.json`; it must be new.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from hilo_nas.errors import RecordError
from hilo_nas.study.records import TrialRecord, load_records
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy

STUDY = "kills"
SEARCH = [sys.executable, "-m", "hilo_nas", "search", "litv2_digits", "--study", STUDY, "--device", "cpu"]
SEARCH += ["--data", "digits", "--proxy-images", "1280", "--set", "search.sampler=random", "--set", "proxy.rungs=3"]
SEARCH += ["--set", "timing.seconds=0.5", "--set", "timing.remeasure=false"]
PAUSE_S = 12.0
"""Most seconds before a kill; a network takes about as long."""
AT_ONCE = 0.2
"""Share of the kills whose pause begins at once; that of the others begins when the search works on a network."""
WORK_S = 300.0
"""Most seconds until a search works on a network."""
ORPHAN_S = 5.0
"""Time that a worker has to notice that its search is gone."""
FINISHED = (TrialState.COMPLETE, TrialState.STOPPED, TrialState.INFEASIBLE)

Fact = tuple[Any, ...]
"""A network's key, `timing`, `score` or `finished`, and what was found."""


def facts_of(records: list[TrialRecord]) -> set[Fact]:
    """Returns what must stay on disk; of a timing its rounds, since a later calibration may change its images/s."""
    facts: set[Fact] = set()
    for record in records:
        for timing in record.measurements:
            facts.add((record.key, "timing", timing.measured_at, timing.call_seconds, timing.reference_seconds))
        for score in record.scores:
            facts.add((record.key, "score", score.seed, score.images_seen, score.value, score.scored_at))
        if record.state in FINISHED:
            facts.add((record.key, "finished", record.state))
    return facts


def twice(facts: set[Fact], records: list[TrialRecord]) -> dict[str, int]:
    """Returns how many networks were finished twice, and how many scores of one seed and budget were taken twice."""
    finished = collections.Counter(record.key for record in records if record.state in FINISHED)
    scored = collections.Counter((key, *found[:2]) for key, kind, *found in facts if kind == "score")
    return {
        "networks finished twice": sum(count > 1 for count in finished.values()),
        "scores taken twice": sum(count > 1 for count in scored.values()),
    }


def read_processes() -> dict[int, tuple[int, str]]:
    """Returns the parent and the start of each living process, by its id."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if words[0] not in "ZX":
            found[int(path.parent.name)] = int(words[1]), words[19]
    return found


def list_descendants(pid: int, processes: dict[int, tuple[int, str]]) -> Iterator[int]:
    """Yields every process below one."""
    for child, (parent, _) in processes.items():
        if parent == pid:
            yield child
            yield from list_descendants(child, processes)


class Killing:
    """A study whose searches and workers are killed.

    Args:
        folder: Where everything lies.
        seed: Of the moments and the victims.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.study = StoredStudy(folder / "studies" / STUDY)
        self.log = folder / "search.log"
        self.random = Random(seed)
        self.seen: set[Fact] = set()
        self.counts: collections.Counter[str] = collections.Counter()
        self.search: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0

    def read(self) -> list[TrialRecord]:
        """Returns the records on disk, and keeps in mind what they hold."""
        try:
            records = load_records(self.study.trials_path)
        except RecordError as error:
            self.counts["records that cannot be read"] += 1
            print(error, flush=True)
            return []
        self.seen |= facts_of(records)
        return records

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts or resumes the search; what it prints goes to the log."""
        with open(self.log, "ab") as log:
            return subprocess.Popen([*SEARCH, *arguments], stdout=log, stderr=log)

    def running(self) -> subprocess.Popen[bytes]:
        """Returns a search that runs; one that ended by itself is resumed and counted."""
        if self.search is not None and self.search.poll() is not None:
            self.counts[f"searches that ended by themselves with code {self.search.returncode}"] += 1
            self.search = None
        if self.search is None:
            self.search, self.started_at = self.start("--until-trials", "100000"), time.time()
        return self.search

    def kill(self, victim: str) -> bool:
        """Waits for a random moment and kills the search, or one of its workers; returns whether there was one."""
        search = self.running()
        if self.random.random() >= AT_ONCE:
            self.wait_for_work(search)
        time.sleep(self.random.uniform(0.5, PAUSE_S))
        before = read_processes()
        below = list(list_descendants(search.pid, before))
        if search.poll() is not None or (victim == "worker" and not below):
            return False
        self.read()
        os.kill(search.pid if victim == "search" else self.random.choice(below), signal.SIGKILL)
        self.counts[f"kills of a {victim}"] += 1
        if victim == "search":
            search.wait()
            self.search = None
            time.sleep(ORPHAN_S)
            after = read_processes()
            left = [pid for pid in below if pid in after and after[pid][1] == before[pid][1]]
            self.counts["orphans"] += len(left)
            self.read()
        return True

    def wait_for_work(self, search: subprocess.Popen[bytes]) -> None:
        """Waits until a search has written a record, or has ended."""
        deadline = time.monotonic() + WORK_S
        while search.poll() is None and time.monotonic() < deadline:
            if any(path.stat().st_mtime > self.started_at for path in self.study.trials_path.glob("[0-9]*.json")):
                return
            time.sleep(0.1)

    def finish(self) -> dict[str, Any]:
        """Lets a last search close what is open, and returns all counts."""
        if self.search is not None:
            self.search.send_signal(signal.SIGINT)
            self.search.wait()
        self.read()
        last = self.start("--trials", "2")
        code = last.wait()
        records = self.read()
        found = facts_of(records)
        lost = collections.Counter(fact[1] for fact in self.seen - found)
        states = collections.Counter(str(record.state) for record in records)
        keys = {record.key for record in records}
        open_keys = keys - {record.key for record in records if record.state in FINISHED}
        return {
            "last search's exit code": code,
            **{f"lost: {kind}": lost[kind] for kind in ("timing", "score", "finished")},
            **twice(found, records),
            "records that cannot be read": 0,
            "orphans": 0,
            **self.counts,
            "facts on disk before some kill": len(self.seen),
            "networks": len(keys),
            "networks that are not finished": len(open_keys),
            "temporary files left": len(list(self.study.trials_path.glob(".*.tmp"))),
            "states": dict(states),
        }


def main() -> int:
    """Runs the kills and returns 0 where nothing was lost, twice, torn or left behind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = given.folder.absolute()
    folder.mkdir(parents=True)
    for part in ("locks", "cache", "state", "studies"):
        os.environ[f"HILO_NAS_{part.upper()}_DIR"] = str(folder / part)
        (folder / part).mkdir()
    killing, begun = Killing(folder, given.seed), time.monotonic()
    victims = ["search", "worker"] * (given.kills // 2)
    killing.random.shuffle(victims)
    for done, victim in enumerate(victims, 1):
        while not killing.kill(victim):
            pass
        print(f"{done} of {len(victims)}: {victim}, {len(killing.seen)} facts on disk", flush=True)
    result = {**killing.finish(), "minutes": round((time.monotonic() - begun) / 60, 1)}
    (folder / "kills.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    bad = ("lost", "networks finished twice", "scores taken twice", "records that", "orphans", "last search")
    return int(any(value for name, value in result.items() if name.startswith(bad)))


if __name__ == "__main__":
    sys.exit(main())
