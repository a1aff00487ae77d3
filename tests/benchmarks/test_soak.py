"""A real search that is killed, stopped, kept from writing and damaged: nothing is lost and all is explained."""

import importlib.util
import json
import signal
import subprocess
import sys
import time
from random import Random

import pytest

from benchmarks.soak import damage, disturbances
from benchmarks.soak.process_tree import count_survivors, list_descendants, read_processes
from benchmarks.soak.ray_nodes import RayNodes
from benchmarks.soak.soak_run import SEARCH, Soak, all_disturbances, cluster_disturbances

IDLE_TIMEOUT_S = 15
SHORT = (*SEARCH, "--proxy-images", "640", "--set", "proxy.rungs=2", "--set", f"study.idle_timeout_s={IDLE_TIMEOUT_S}")


def test_descendants_of_a_process_are_found_and_watched():
    child = subprocess.Popen([sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '60'])"])
    try:
        while not (below := list(list_descendants(child.pid, before := read_processes()))):
            pass
        assert count_survivors(below, before, 0.0) == len(below)
    finally:
        child.kill()
        child.wait()
    subprocess.run(["kill", "-9", *map(str, below)], check=True)
    assert count_survivors(below, before, 30.0) == 0


def test_the_id_of_a_later_process_does_not_count():
    process = read_processes()
    some = next(iter(process))
    assert count_survivors([some], {some: (1, "another start")}, 0.0) == 0


@pytest.mark.parametrize("seed", range(20))
def test_a_torn_file_has_lost_or_changed_bytes_behind_its_start(tmp_path, seed):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    damage.tear(path, Random(seed), start=30, end=60)
    content = path.read_bytes()
    assert content != b"x" * 100
    assert content.startswith(b"x" * 30)


def test_each_kind_of_disturbance_has_a_name():
    names = [kind.name for kind in all_disturbances()]
    assert len(set(names)) == len(names) == 8


def test_each_kind_of_disturbance_of_a_cluster_has_a_name_and_starts_nothing_before_it_strikes(tmp_path):
    names = [kind.name for kind in cluster_disturbances(RayNodes(tmp_path / "soak"))]
    assert len(set(names)) == len(names) == 6
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_disturbed_search_loses_nothing_and_its_records_explain_it(tmp_path):
    with Soak(tmp_path / "soak", seed=0, arguments=SHORT, pause_s=8.0) as soak:
        for kind in Random(0).sample(kinds := all_disturbances(IDLE_TIMEOUT_S), len(kinds)):
            soak.disturb([kind])
        soak.finish()
    report = soak.report()
    assert report["faults"] == []
    assert report["hung workers that were ended"] == 1
    assert report["networks as undisturbed"] == report["networks"]
    assert report["proposals replayed"] == report["networks"] - 1
    assert report["rung decisions replayed"] > 0
    assert [report[f"disturbances: {kind.name}"] for kind in kinds] == [1] * len(kinds)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_second_search_is_refused_20_times_of_20(tmp_path):
    with Soak(tmp_path / "soak", seed=0, arguments=SHORT, pause_s=0.5) as soak:
        soak.search.running()
        rival = disturbances.StartRival()
        assert [rival.strike(soak) for _ in range(20)] == [True] * 20
        assert soak.search.end(signal.SIGINT) == (130, 0)
        soak.look(is_stopped=True)
    assert soak.faults == []
    assert len(soak.refusals) == 20


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_soak_test_that_is_ended_ends_its_search_and_writes_its_report(tmp_path):
    folder = tmp_path / "soak"
    test = subprocess.Popen([sys.executable, "-m", "benchmarks.soak", str(folder)])
    try:
        while not (folder / "search.log").exists():
            time.sleep(0.1)
            assert test.poll() is None
        while not (below := list(list_descendants(test.pid, before := read_processes()))):
            time.sleep(0.1)
        test.terminate()
        assert test.wait() == 130
    finally:
        test.kill()
    assert count_survivors(below, before, 30.0) == 0
    assert json.loads((folder / "soak.json").read_text())["faults"] == ["the test ended early: KeyboardInterrupt "]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray")
def test_a_search_on_a_cluster_whose_places_and_nodes_are_killed_loses_nothing(tmp_path):
    """Runs as a user runs it, in a process of its own, because Ray reads its settings once per process."""
    kinds = ("kill of a place", "kill of a node", "kill of the search")
    words = ["--cluster", "--disturbances", "5", "--seed", "9"]
    words += [word for kind in kinds for word in ("--only", kind)]
    subprocess.run([sys.executable, "-m", "benchmarks.soak", str(tmp_path / "soak"), *words], check=False)
    report = json.loads((tmp_path / "soak" / "soak.json").read_text())
    assert report["faults"] == []
    assert report["networks as undisturbed"] == report["networks"]
    assert report["rung decisions replayed"] > 0
    assert report["disturbances: kill of a place"] > 0
    assert report["disturbances: kill of a node"] > 0
