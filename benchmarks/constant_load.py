"""Detection of a constant load on one core. Run it on an otherwise idle machine with two cores.

    python -m benchmarks.constant_load timings FOLDER [RUNS]   loaded and quiet timings: number of `contended` ones
    python -m benchmarks.constant_load searches FOLDER         two quiet searches and two under load: tau of speeds

The load is one process that computes without a pause. FOLDER stores locks, caches, studies and `timings.json`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

from scipy.stats import kendalltau

from hilo_nas.evaluation import LocalEvaluator, Time, run_task
from hilo_nas.events import Event
from hilo_nas.measurement import Condition
from hilo_nas.measurement.verdicts import verdict_name
from hilo_nas.space import load_space
from hilo_nas.study.front import Front
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.stored_study import open_study
from hilo_nas.timing import Entrant

NETWORKS = 3
SECONDS_EACH = 1.0
SPACE, TRIALS = "litv2_cifar", 16
"""Space and number of trials of the searches. They rank by parameters, so the front is large and all time is timing."""
MIDDLE_S = 40.0
"""Seconds after the start of a search at which the load of `load-during` starts."""
LOAD = [sys.executable, "-c", "while 1: pass"]


@contextlib.contextmanager
def load(is_on: bool = True) -> Iterator[None]:
    """Keeps one core busy until the block ends, if `is_on` is True."""
    if not is_on:
        yield
        return
    process = subprocess.Popen(LOAD)
    try:
        time.sleep(0.5)
        yield
    finally:
        process.kill()
        process.wait()


def ignore(event: Event) -> None:
    """Ignores an event."""


def time_networks(folder: Path, runs: int) -> None:
    """Times networks of `litv2_digits` alternately without and with load, and prints the number of each verdict."""
    space, random = load_space("litv2_digits"), Random(5)
    archs = [space.decode(space.sample(random)) for _ in range(NETWORKS)]
    condition = Condition(batch_size=32, img_size=32, threads=os.cpu_count())
    entries = {
        str(i): Entrant(subject={"arch": arch.to_dict()}, condition=condition, num_classes=10)
        for i, arch in enumerate(archs)
    }
    counts: dict[bool, int] = {False: 0, True: 0}
    rows: list[dict[str, Any]] = []
    with LocalEvaluator(folder, purpose="benchmark of constant load") as evaluator:
        calibration = run_task(evaluator, Time(condition=condition), ignore).calibration
        task = Time(condition=condition, entries=entries, calibration=calibration, seconds=SECONDS_EACH)
        for run in range(runs):
            for is_loaded in (False, True):
                with load(is_loaded):
                    timing = run_task(evaluator, task, ignore)
                timed = [timing.measurements[name] for name in entries]
                verdicts = [verdict_name(measurement) for measurement in timed]
                are_contended = [verdict == "contended" for verdict in verdicts]
                counts[is_loaded] += all(are_contended) if is_loaded else any(are_contended)
                state, speeds = timed[0].device_state, [measurement.images_per_s for measurement in timed]
                rows.append({"loaded": is_loaded, "verdicts": verdicts, "images_per_s": speeds, "state": state})
                print(run, "loaded" if is_loaded else "quiet ", verdicts, state.get("others_cores"), flush=True)
    (folder / "timings.json").write_text(json.dumps(rows, indent=1))
    print(f"contended: {counts[True]} of {runs} loaded timings, {counts[False]} of {runs} quiet ones")
    middle = [statistics.median(row["images_per_s"][i] for row in rows if not row["loaded"]) for i in range(NETWORKS)]
    loaded = [row["images_per_s"] for row in rows if row["loaded"]]
    speeds = [math.log(found[i] / middle[i]) for found in loaded for i in range(NETWORKS)]
    ratios = [math.log(found[i] / found[0] / (middle[i] / middle[0])) for found in loaded for i in range(1, NETWORKS)]
    print(f"under load, relative error (root mean square): images/s {rms(speeds):.3f}, ratios {rms(ratios):.3f}")


def rms(values: list[float]) -> float:
    """Returns the root mean square of the values."""
    return math.sqrt(statistics.fmean(value * value for value in values))


def search(folder: Path, name: str, load_after_s: float | None) -> dict[str, TrialRecord]:
    """Runs a search and returns its timed records by key.

    The load starts `load_after_s` seconds after the search. With None there is no load.
    """
    options = ["--trials", str(TRIALS), "--seed", "1", "--proxy", "params", "--study", name]
    options += ["--set", "search.sampler=random"]
    with contextlib.ExitStack() as stack, open(folder / f"{name}.log", "w") as log:
        if load_after_s == 0:
            stack.enter_context(load())
        process = subprocess.Popen(
            [sys.executable, "-m", "hilo_nas", "search", SPACE, "--device", "cpu", *options], stdout=log, stderr=log
        )
        if load_after_s:
            time.sleep(load_after_s)
            stack.enter_context(load())
        process.wait()
    records = [record for record in open_study(name).records if record.measurement]
    speeds = [(r.number, round(speed_of(r)), r.measurement and verdict_name(r.measurement)) for r in records]
    print(f"{name}: exit {process.returncode}; (trial, images/s, verdict) {speeds}", flush=True)
    return {record.key: record for record in records}


def speed_of(record: TrialRecord) -> float:
    """Returns the images/s of a timed network."""
    assert record.measurement is not None
    return record.measurement.images_per_s


def compare_searches(folder: Path) -> None:
    """Prints Kendall's tau of the speeds of a quiet search to those of another quiet search and of two under load."""
    quiet = search(folder, "quiet", None)
    for name, load_after_s in (("quiet-again", None), ("load-before", 0.0), ("load-during", MIDDLE_S)):
        other = search(folder, name, load_after_s)
        shared = quiet.keys() & other.keys()
        front = {record.key for record in Front.from_records(other.values()).members} & shared
        print(f"{name}: tau of {len(shared)} networks {tau(quiet, other, shared):.2f}, ", end="")
        print(f"of {len(front)} on its front {tau(quiet, other, front):.2f}", flush=True)


def tau(one: Mapping[str, TrialRecord], other: Mapping[str, TrialRecord], keys: set[str]) -> float:
    """Returns Kendall's tau between the speeds of the same networks in two searches."""
    columns = [[speed_of(records[key]) for key in sorted(keys)] for records in (one, other)]
    return float(kendalltau(*columns).statistic)


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("timings", "searches"):
        sys.exit(__doc__)
    base = Path(sys.argv[2]).absolute()
    for variable, part in (("LOCKS", "locks"), ("CACHE", "cache"), ("STUDIES", "studies")):
        os.environ[f"HILO_NAS_{variable}_DIR"] = str(base / part)
        (base / part).mkdir(parents=True, exist_ok=True)
    if sys.argv[1] == "timings":
        time_networks(base, int(sys.argv[3]) if len(sys.argv) > 3 else 20)
    else:
        compare_searches(base)
