"""The evaluator of a cluster on Ray itself: one machine with several places, and three nodes of which one is killed."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from builders import build_arch, build_calibration, build_condition, fresh
from procs import is_alive, list_descendants, wait_for

from hilo_nas.errors import UsageError
from hilo_nas.evaluation import ClusterOptions, Finished, Inspect, Progress, Time, run_task
from hilo_nas.evaluation.ray import RayEvaluator
from hilo_nas.evaluation.ray.ray_cluster import RayCluster
from hilo_nas.events import Notice, TrialFinished
from hilo_nas.searching import SearchConfig, run_search
from hilo_nas.testing.fake_hosts import SleepingHost, find_overlaps, read_uses
from hilo_nas.timing import Entrant

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
SUBJECT = {"arch": build_arch(0).to_dict()}
CONDITION = build_condition(device="cuda", batch_size=2)
SLEEPING = "hilo_nas.testing.fake_hosts:SleepingHost"
TOKEN = "0123456789abcdef0123456789abcdef"


def timing(target):
    entries = {name: Entrant(subject=SUBJECT, condition=CONDITION, num_classes=10) for name in "ab"}
    return Time(condition=CONDITION, entries=entries, calibration=build_calibration(), target=target)


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory):
    """What all processes of Ray inherit: a token, and a cache that is not the driver's. Ray reads it at its import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", TOKEN)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        patch.setenv("HILO_NAS_CACHE_DIR", str(tmp_path_factory.mktemp("cache-of-the-nodes")))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield


@pytest.fixture(scope="module")
def machine(environment):
    """A Ray of this machine that counts four GPUs."""
    cluster = RayCluster("local", resources={"CPU": 2.0, "GPU": 4.0, "edge": 1.0, "big": 1.0})
    yield cluster
    cluster.close()


def build(tmp_path, cluster, *, wishes=None, **host):
    return RayEvaluator(
        cluster,
        SleepingHost(tmp_path / "home", place="home", seconds=0.0),
        wishes=wishes or ClusterOptions(),
        host=(
            SLEEPING,
            {"purpose": "test", "idle_timeout_s": 60.0, "log": str(tmp_path), **host},
        ),
        start_s=60.0,
    )


def test_four_places_of_a_machine_work_at_the_same_time_and_each_alone_on_its_device(machine, tmp_path):
    evaluator = build(tmp_path, RayCluster("auto"), seconds=0.2)
    report = run_task(evaluator, Inspect(target="cuda"), lambda event: None)
    assert len(report.target.split(",")) == 4
    ids, ended = [evaluator.submit(timing(report.target)) for _ in range(16)], []
    while len(ended) < len(ids):
        ended += [message for message in evaluator.wait(30.0) if not isinstance(message, Progress)]
    assert sorted(message.id for message in ended) == sorted(ids)
    assert all(isinstance(message, Finished) for message in ended)
    uses = [use for use in read_uses(tmp_path) if use.kind == "time"]
    assert len({use.place for use in uses}) == 4
    assert find_overlaps(uses) == []
    evaluator.close()


def test_ray_gives_each_role_its_own_devices(machine, tmp_path):
    wishes = ClusterOptions(time_on="edge", train_on="big")
    evaluator = build(tmp_path, RayCluster("auto"), wishes=wishes)
    report = run_task(evaluator, Inspect(target="cpu"), lambda event: None)
    assert (report.target.count(","), report.identity.kind, report.trains_on.kind) == (0, "cpu", "cuda")
    assert (evaluator.slots("time"), evaluator.slots("score")) == (1, 4)
    evaluator.close()


def test_a_cluster_without_a_token_is_warned_about(machine, monkeypatch):
    assert machine.warnings == []
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert "has no token" in machine.warnings[0]


def test_a_node_imports_nothing_from_the_drivers_folder(machine, tmp_path):
    cluster = RayCluster("auto")
    options = json.dumps({"host": SLEEPING, "arguments": {"place": "p"}})
    place = cluster.start(cluster.nodes()[0], {"CPU": 1.0}, options)
    found = cluster.result(cluster.call(place, "describe"))["value"]["python_path"]
    code = "import json, sys; print(json.dumps(sys.path))"
    installed = json.loads(subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=True).stdout)
    assert os.getcwd() not in {*found} - {*installed}  # a checkout may be installed as it is
    assert os.path.dirname(os.path.realpath(sys.argv[0])) not in found
    cluster.kill(place)


def test_the_handler_of_sigterm_stays_that_of_the_program(machine):
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("token", [{"RAY_AUTH_TOKEN": "f" * 32}, {"RAY_AUTH_TOKEN_PATH": "/nowhere/token"}])
def test_a_driver_without_the_token_is_refused(machine, token):
    code = f"""
        from hilo_nas.evaluation.ray.ray_cluster import RayCluster
        RayCluster("{address_of_this_ray()}")
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"} | token,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 1
    assert "refuses the connection, because the token is missing or wrong" in run.stderr.splitlines()[-1]


def address_of_this_ray():
    import ray

    return ray.get_runtime_context().gcs_address


def test_ray_of_this_machine_listens_on_the_loopback_address_alone(machine):
    import ray

    node = ray.nodes()[0]
    assert node["NodeManagerAddress"] == "127.0.0.1"


def test_a_program_that_imported_ray_before_starts_no_cluster_that_others_reach():
    code = """
        import ray
        from hilo_nas.errors import UsageError
        from hilo_nas.evaluation.ray.ray_cluster import RayCluster
        for attempt in range(2):
            try:
                RayCluster("local", resources={"CPU": 1.0})
            except UsageError as error:
                print(error)
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=plain, capture_output=True, text=True, timeout=120
    )
    said = run.stdout.splitlines()
    assert len(said) == 2
    assert all("Start Python with RAY_AUTH_MODE=token RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0" in line for line in said)


def test_places_end_with_a_killed_driver(machine, tmp_path):
    code = f"""
        import json, sys
        from hilo_nas.evaluation import Inspect
        from hilo_nas.evaluation.ray.ray_cluster import RayCluster
        cluster = RayCluster("{address_of_this_ray()}")
        arguments = {{"purpose": "test", "idle_timeout_s": 60.0, "place": "p"}}
        options = {{"host": "hilo_nas.evaluation.ray.place:local_host", "arguments": arguments}}
        place = cluster.start(cluster.nodes()[0], {{"CPU": 1.0}}, json.dumps(options))
        cluster.call(place, "submit", "0", json.dumps(Inspect(target="cpu").to_dict()))
        while not any("finished" in text for text, _ in cluster.result(cluster.call(place, "wait", 5.0))):
            pass
        print(cluster.result(cluster.call(place, "describe"))["value"]["pid"], flush=True)
        sys.stdin.read()
    """
    driver = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    place = int(driver.stdout.readline())
    workers = list_descendants(place)
    assert workers, "the place must have a timing worker"
    driver.kill()
    driver.wait()
    for stream in (driver.stdin, driver.stdout):
        stream.close()
    wait_for(lambda: not any(map(is_alive, [place, *workers])))


def test_a_search_on_a_node_with_real_workers(machine, tmp_path):
    config = SearchConfig.of(
        space="litv2_digits",
        study="real",
        device="cpu",
        trials=3,
        sampler="random",
        proxy_images=640,
        rungs=2,
        seconds=0.5,
        remeasure=False,
        evaluator="ray",
        address="auto",
    )
    events = []
    study, finished = run_search(config, events.append)
    assert finished.measured == 3
    records = fresh(study).records
    assert {record.state for record in records} <= {"complete", "stopped"}
    assert all(record.measurement.device.kind == "cpu" for record in records)
    assert any(path.suffix == ".pt" for path in study.checkpoints_path.iterdir())
    assert os.path.isdir(os.path.join(os.environ["HILO_NAS_CACHE_DIR"], "data"))


def test_without_a_cluster_the_way_out_is_named(tmp_path):
    code = """
        from hilo_nas.evaluation.ray.ray_cluster import RayCluster
        RayCluster("127.0.0.1:1")
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "there is no usable Ray cluster at 127.0.0.1:1" in run.stderr.splitlines()[-1]


@pytest.mark.parametrize("address", ["ray://head:10001", "https://head"])
def test_rays_client_is_refused(address):
    with pytest.raises(UsageError, match="Ray's client is not supported"):
        RayCluster(address)


def test_a_search_survives_the_kill_of_one_of_three_nodes(environment, tmp_path):
    """Comes last: it has a Ray of its own."""
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    workers = [nodes.add_node(num_cpus=1) for _ in range(3)]
    try:
        evaluator = build(tmp_path, RayCluster(nodes.address), seconds=0.3)
        events = []

        def kill(event):
            events.append(event)
            if isinstance(event, TrialFinished) and workers and event.measured >= 3:
                nodes.remove_node(workers.pop(), allow_graceful=False)
                workers.clear()

        config = SearchConfig.of(
            space="litv2_digits", study="three", sampler="random", trials=12, remeasure=False, device="cpu"
        )
        study, finished = run_search(config, kill, evaluator=evaluator)
        records = fresh(study).records
        assert not workers
        assert finished.measured == 12
        assert len({record.key for record in records}) == len(records) == 12
        assert {record.state for record in records} <= {"complete", "stopped"}
        uses = read_uses(tmp_path)
        assert len({use.place for use in uses if use.kind in ("time", "score")}) == 3
        assert find_overlaps(uses) == []
        assert any(isinstance(event, Notice) and "was lost" in event.text for event in events)
        evaluator.close()
    finally:
        ray.shutdown()
        nodes.shutdown()
