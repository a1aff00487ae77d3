"""Robustness of a search against `kill -9` of its process and its workers at random times.

    python -m benchmarks.kills FOLDER [--kills 60] [--seed 0]

The search runs on `litv2_digits` and scikit-learn's digits with short timings and trainings. Half of the kills hit the
search, which is then resumed. The other half hit one of its workers. The records on disk are read before each kill. At
the end, one search runs without kills and finishes the open trials. The benchmark then counts:

* measurements, scores and finished networks that were on disk before and are lost
* networks that finished twice and scores that were stored twice
* records that cannot be read
* processes that run for more than 5 s after their search was killed

FOLDER must be new. It stores locks, caches, the study, `search.log` and `kills.json`.
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
"""Maximum seconds of the pause before a kill. A network takes about as long."""
EARLY_SHARE = 0.2
"""Share of kills whose pause starts immediately. For the others, it starts when the search has written a record."""
WORK_S = 300.0
"""Maximum seconds to wait for a search's first record."""
ORPHAN_S = 5.0
"""Seconds in which a worker must end after its search was killed."""
FINISHED = (TrialState.COMPLETE, TrialState.STOPPED, TrialState.INFEASIBLE)

Fact = tuple[Any, ...]
"""Stored result: key of the network, kind (`timing`, `score` or `finished`), and values."""


def collect_facts(records: list[TrialRecord]) -> set[Fact]:
    """Returns the results that must not get lost.

    A timing is identified by its rounds, because a later calibration may change its images/s.
    """
    facts: set[Fact] = set()
    for record in records:
        for timing in record.measurements:
            facts.add((record.key, "timing", timing.measured_at, timing.call_seconds, timing.reference_seconds))
        for score in record.scores:
            facts.add((record.key, "score", score.seed, score.images_seen, score.value, score.scored_at))
        if record.state in FINISHED:
            facts.add((record.key, "finished", record.state))
    return facts


def count_duplicates(facts: set[Fact], records: list[TrialRecord]) -> dict[str, int]:
    """Returns the number of networks that finished twice, and of scores with the same network, seed and budget."""
    finished = collections.Counter(record.key for record in records if record.state in FINISHED)
    scored = collections.Counter((key, *found[:2]) for key, kind, *found in facts if kind == "score")
    return {
        "networks finished twice": sum(count > 1 for count in finished.values()),
        "scores taken twice": sum(count > 1 for count in scored.values()),
    }


def read_processes() -> dict[int, tuple[int, str]]:
    """Returns the parent's id and the start time of each running process, by id."""
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
    """Yields the ids of all descendants of a process."""
    for child, (parent, _) in processes.items():
        if parent == pid:
            yield child
            yield from list_descendants(child, processes)


class KillTest:
    """Test that kills the searches and workers of a study.

    Args:
        folder: Folder for all files.
        seed: Seed for the times and targets of the kills.
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
        """Returns the records on disk and remembers their results."""
        try:
            records = load_records(self.study.trials_path)
        except RecordError as error:
            self.counts["records that cannot be read"] += 1
            print(error, flush=True)
            return []
        self.seen |= collect_facts(records)
        return records

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts or resumes the search. Its output goes to the log."""
        with open(self.log, "ab") as log:
            return subprocess.Popen([*SEARCH, *arguments], stdout=log, stderr=log)

    def running(self) -> subprocess.Popen[bytes]:
        """Returns the running search. If it ended without a kill, it is counted and resumed."""
        if self.search is not None and self.search.poll() is not None:
            self.counts[f"searches that ended by themselves with code {self.search.returncode}"] += 1
            self.search = None
        if self.search is None:
            self.search, self.started_at = self.start("--until-trials", "100000"), time.time()
        return self.search

    def kill(self, victim: str) -> bool:
        """Waits for a random time and kills the search or one of its workers.

        Returns:
            False if there was no process to kill.
        """
        search = self.running()
        if self.random.random() >= EARLY_SHARE:
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
        """Waits until a search has written a record or has ended, for `WORK_S` seconds at most."""
        deadline = time.monotonic() + WORK_S
        while search.poll() is None and time.monotonic() < deadline:
            if any(path.stat().st_mtime > self.started_at for path in self.study.trials_path.glob("[0-9]*.json")):
                return
            time.sleep(0.1)

    def finish(self) -> dict[str, Any]:
        """Runs a last search without kills and returns all counts."""
        if self.search is not None:
            self.search.send_signal(signal.SIGINT)
            self.search.wait()
        self.read()
        last = self.start("--trials", "2")
        code = last.wait()
        records = self.read()
        found = collect_facts(records)
        lost = collections.Counter(fact[1] for fact in self.seen - found)
        states = collections.Counter(str(record.state) for record in records)
        keys = {record.key for record in records}
        open_keys = keys - {record.key for record in records if record.state in FINISHED}
        return {
            "last search's exit code": code,
            **{f"lost: {kind}": lost[kind] for kind in ("timing", "score", "finished")},
            **count_duplicates(found, records),
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
    """Runs the benchmark and returns 0 if there are no lost results, duplicates, unreadable records or orphans."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    folder = args.folder.absolute()
    folder.mkdir(parents=True)
    for part in ("locks", "cache", "state", "studies"):
        os.environ[f"HILO_NAS_{part.upper()}_DIR"] = str(folder / part)
        (folder / part).mkdir()
    test, start = KillTest(folder, args.seed), time.monotonic()
    victims = ["search", "worker"] * (args.kills // 2)
    test.random.shuffle(victims)
    for done, victim in enumerate(victims, 1):
        while not test.kill(victim):
            pass
        print(f"{done} of {len(victims)}: {victim}, {len(test.seen)} facts on disk", flush=True)
    result = {**test.finish(), "minutes": round((time.monotonic() - start) / 60, 1)}
    (folder / "kills.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    bad = ("lost", "networks finished twice", "scores taken twice", "records that", "orphans", "last search")
    return int(any(value for name, value in result.items() if name.startswith(bad)))


if __name__ == "__main__":
    sys.exit(main())
