"""Speed-up of the evaluator for Ray, and the loss of a node, with evaluations that only sleep.

    python -m benchmarks.clusters FOLDER [--tasks 24] [--seconds 1.0]

It needs Ray, starts it on this machine, and uses no GPU: Ray is told to count some. Each task sleeps, so the figures
show what the evaluator itself costs. The benchmark counts:

* seconds of all tasks with one, two and four places, and pairs of tasks that overlapped on a device
* trials of a search on three nodes of which one is killed: measured, lost and repeated ones

FOLDER must be new. It stores the uses of the devices, the study and `clusters.json`.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from hilo_nas.evaluation import ClusterOptions, Count, Inspect, Progress, run_task
from hilo_nas.evaluation.ray import RayEvaluator
from hilo_nas.evaluation.ray.ray_cluster import RayCluster
from hilo_nas.events import Event, Notice, TrialFinished
from hilo_nas.searching import SearchConfig, run_search
from hilo_nas.study.records import Subject
from hilo_nas.study.states import TrialState
from hilo_nas.testing.fake_hosts import SleepingHost, find_overlaps, read_uses

PLACES = (1, 2, 4)
KILL_AFTER = 3
"""Number of measured networks after which a node is killed."""
TRIALS = 24
HOST = "hilo_nas.testing.fake_hosts:SleepingHost"


def build_evaluator(cluster: RayCluster, folder: Path, seconds: float) -> RayEvaluator:
    """Returns an evaluator whose tasks sleep. Uses of the devices are written to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = {"purpose": "benchmark", "idle_timeout_s": 600.0, "seconds": seconds, "log": str(folder)}
    home = SleepingHost(folder / "home", place="home", seconds=0.0)
    return RayEvaluator(cluster, home, wishes=ClusterOptions(), host=(HOST, arguments))


def time_tasks(places: int, count: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Returns the seconds of tasks on a number of places, without the start of the places."""
    cluster = RayCluster("local", resources={"CPU": 1.0, "GPU": float(places)})
    evaluator = build_evaluator(cluster, folder, seconds)
    try:
        target = run_task(evaluator, Inspect(target="cuda"), ignore).target
        began = time.monotonic()
        task = Count(subject=Subject(timm="resnet18").to_dict(), img_size=32, num_classes=10)
        left = {evaluator.submit(task) for _ in range(count)}
        while left:
            left -= {message.id for message in evaluator.wait() if not isinstance(message, Progress)}
        took = time.monotonic() - began
    finally:
        evaluator.close()
    overlaps = len(find_overlaps(read_uses(folder)))
    return {"places": len(target.split(",")), "seconds": round(took, 2), "overlaps": overlaps}


def kill_node(seconds: float, folder: Path) -> dict[str, Any]:
    """Returns the outcome of a search on three nodes of which one is killed."""
    from ray.cluster_utils import Cluster

    nodes: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    workers = [nodes.add_node(num_cpus=1) for _ in range(3)]
    evaluator = build_evaluator(RayCluster(nodes.address), folder, seconds)
    notices: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, Notice) and event.level == "warning":
            notices.append(event.text)
        if (
            isinstance(event, TrialFinished)
            and event.measured >= KILL_AFTER
            and len(nodes.worker_nodes) == len(workers)
        ):
            nodes.remove_node(workers[0], allow_graceful=False)

    config = SearchConfig.of(
        space="litv2_digits", study="three", device="cpu", sampler="random", trials=TRIALS, remeasure=False
    )
    try:
        study, finished = run_search(config, emit, evaluator=evaluator)
    finally:
        evaluator.close()
        nodes.shutdown()
    keys = collections.Counter(record.key for record in study.records)
    uses = read_uses(folder)
    return {
        "trials": TRIALS,
        "measured": finished.measured,
        "networks tried twice": sum(count > 1 for count in keys.values()),
        "failed": sum(record.state == TrialState.FAILED for record in study.records),
        "tasks repeated on another node": sum("was lost" in text for text in notices),
        "nodes used": len({use.place for use in uses}),
        "overlaps": len(find_overlaps(uses)),
    }


def ignore(event: Event) -> None:
    """Ignores an event."""


def main() -> int:
    """Runs the benchmark and returns 0 if no tasks overlap on a device, and no trial is lost or tried twice."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=1.0)
    args = parser.parse_args()
    folder = args.folder.absolute()
    folder.mkdir(parents=True)
    for part in ("locks", "cache", "state", "studies"):
        os.environ[f"HILO_NAS_{part.upper()}_DIR"] = str(folder / part)
        (folder / part).mkdir()
    rows = [time_tasks(places, args.tasks, args.seconds, folder / f"places-{places}") for places in PLACES]
    for row in rows:
        row["speed-up"] = round(rows[0]["seconds"] / row["seconds"], 2)
        print(json.dumps(row), flush=True)
    killed = kill_node(args.seconds, folder / "nodes")
    print(json.dumps(killed, indent=1))
    (folder / "clusters.json").write_text(json.dumps({"places": rows, "killed": killed}, indent=1) + "\n")
    bad = [row["overlaps"] for row in (*rows, killed)]
    bad += [killed["networks tried twice"], killed["failed"], killed["trials"] - killed["measured"]]
    return int(any(bad))


if __name__ == "__main__":
    sys.exit(main())
