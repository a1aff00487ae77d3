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
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.soak.facts import FINISHED, Fact, collect_facts, count_duplicates
from benchmarks.soak.watched_search import WatchedSearch, make_folders
from hilo_nas.errors import RecordError
from hilo_nas.study.records import TrialRecord, load_records

STUDY = "kills"
SEARCH = ["litv2_digits", "--device", "cpu", "--data", "digits", "--proxy-images", "1280"]
SEARCH += ["--set", "search.sampler=random", "--set", "proxy.rungs=3"]
SEARCH += ["--set", "timing.seconds=0.5", "--set", "timing.remeasure=false"]
PAUSE_S = 12.0
"""Maximum seconds of the pause before a kill. A network takes about as long."""
EARLY_SHARE = 0.2
"""Share of kills whose pause starts immediately. For the others, it starts when the search has written a record."""


class KillTest:
    """Test that kills the searches and workers of a study.

    Args:
        folder: New folder for all files.
        seed: Seed for the times and targets of the kills.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.search = WatchedSearch(folder, STUDY, SEARCH, make_folders(folder))
        self.random = Random(seed)
        self.seen: set[Fact] = set()
        self.counts: collections.Counter[str] = collections.Counter()

    def read(self) -> list[TrialRecord]:
        """Returns the records on disk and remembers their results."""
        try:
            records = load_records(self.search.path / "trials")
        except RecordError as error:
            self.counts["records that cannot be read"] += 1
            print(error, flush=True)
            return []
        self.seen |= collect_facts(records)
        return records

    def kill(self, victim: str) -> bool:
        """Waits for a random time and kills the search or one of its workers.

        Returns:
            False if there was no process to kill.
        """
        search = self.search.running()
        if self.random.random() >= EARLY_SHARE:
            self.search.wait_for_work()
        time.sleep(self.random.uniform(0.5, PAUSE_S))
        below, _ = self.search.workers()
        if search.poll() is not None or (victim == "worker" and not below):
            return False
        self.read()
        self.counts[f"kills of a {victim}"] += 1
        if victim == "search":
            _, orphans = self.search.end(signal.SIGKILL)
            self.counts["orphans"] += orphans
            self.read()
        else:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(self.random.choice(below), signal.SIGKILL)
        return True

    def finish(self) -> dict[str, Any]:
        """Runs a last search without kills and returns all counts."""
        if self.search.process is not None:
            self.search.end(signal.SIGINT)
        self.read()
        code = self.search.start("--trials", "2").wait()
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
            **{
                f"searches that ended by themselves with code {code}": count
                for code, count in collections.Counter(code for code, _ in self.search.endings).items()
            },
            "facts on disk before some kill": len(self.seen),
            "networks": len(keys),
            "networks that are not finished": len(open_keys),
            "temporary files left": len(list((self.search.path / "trials").glob(".*.tmp"))),
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
