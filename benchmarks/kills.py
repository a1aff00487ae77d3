"""Robustness of a search against `kill -9` of its process and its workers at random times.

    python -m benchmarks.kills FOLDER [--kills 60] [--seed 0]

The search runs on `litv2_digits` and scikit-learn's digits with short timings and trainings. Half of the kills hit the
search, which is then resumed. The other half hit one of its workers. The records on disk are read before each kill. At
the end, one search runs without kills and finishes the open trials. The benchmark then counts:

* measurements, scores and finished networks that were on disk before and are lost
* networks that finished twice and scores that were stored twice
* records that cannot be read
* processes that run for more than 5 s after their search was killed
* searches that ended although they were not killed

With an odd number of kills, one more hits the search. The exit code is 1 if one of these numbers is not 0. Five failed
networks in a row end a search on purpose; such ends are counted apart.

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
from collections.abc import Mapping
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from benchmarks.soak.facts import FINISHED, Fact, collect_facts, count_duplicates
from benchmarks.soak.watched_search import WORKERS_FAILED, WatchedSearch, make_folders
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
LAST_S = 1500.0
"""Maximum seconds of the last search."""
BAD = (
    *("lost", "networks finished twice", "scores taken twice", "timings taken twice", "records that", "orphans"),
    *("last search", "searches that ended", "ended early"),
)
"""Starts of the names of results that must be 0."""


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
        if victim == "search":
            code, orphans = self.search.end(signal.SIGKILL)
            self.counts["orphans"] += orphans
            self.read()
            if code is None:
                return False
            self.counts["kills of a search"] += 1
        else:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(self.random.choice(below), signal.SIGKILL)
            self.counts["kills of a worker"] += 1
        self.search.endings_in_a_row = 0
        return True

    def finish(self) -> None:
        """Runs a last search without kills."""
        if self.search.process is not None:
            self.search.end(signal.SIGINT)
        self.read()
        self.counts["last search's exit code"] = self.search.complete("--trials", "2", seconds=LAST_S)

    def report(self) -> dict[str, Any]:
        """Returns all counts so far."""
        records = self.read()
        found = collect_facts(records)
        lost = collections.Counter(fact[1] for fact in self.seen - found)
        states = collections.Counter(str(record.state) for record in records)
        keys = {record.key for record in records}
        open_keys = keys - {record.key for record in records if record.state in FINISHED}
        return {
            **{f"lost: {kind}": lost[kind] for kind in ("timing", "score", "finished")},
            **count_duplicates(found, records),
            "records that cannot be read": 0,
            "orphans": 0,
            **self.counts,
            **collections.Counter(_name_ending(code, said) for code, said in self.search.endings),
            "facts on disk before some kill": len(self.seen),
            "networks": len(keys),
            "networks that are not finished": len(open_keys),
            "temporary files left": len(list((self.search.path / "trials").glob(".*.tmp"))),
            "states": dict(states),
        }


def _name_ending(code: int, said: str) -> str:
    if code == 1 and WORKERS_FAILED in said:
        return "failed networks ended the search"
    return f"searches that ended by themselves with code {code}"


def choose_victims(kills: int, random: Random) -> list[str]:
    """Returns the victim of each kill in random order, half of them searches and half of them workers."""
    victims = (["search", "worker"] * kills)[:kills]
    random.shuffle(victims)
    return victims


def is_bad(result: Mapping[str, Any]) -> bool:
    """Returns True if something was lost, repeated or left behind, or if the test or a search ended by itself."""
    return any(value for name, value in result.items() if name.startswith(BAD))


def _stop(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark and returns 0 if there are no lost results, duplicates, unreadable records or orphans."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    if args.kills < 1:
        parser.error(f"--kills must be at least 1, but got {args.kills}")
    folder = args.folder.absolute()
    test, start = KillTest(folder, args.seed), time.monotonic()
    victims = choose_victims(args.kills, test.random)
    signal.signal(signal.SIGTERM, _stop)
    with test.search:
        try:
            for done, victim in enumerate(victims, 1):
                while not test.kill(victim):
                    pass
                print(f"{done} of {len(victims)}: {victim}, {len(test.seen)} facts on disk", flush=True)
            test.finish()
        except BaseException:
            test.counts["ended early"] = 1
            raise
        finally:
            result = {**test.report(), "minutes": round((time.monotonic() - start) / 60, 1)}
            (folder / "kills.json").write_text(json.dumps(result, indent=1) + "\n")
            print(json.dumps(result, indent=1))
    return int(is_bad(result))


if __name__ == "__main__":
    sys.exit(main())
