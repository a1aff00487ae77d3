"""The evaluator of a cluster, on a fake one: places run in threads, and nodes are lost when a test says so."""

import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from builders import build_arch, build_calibration, build_condition, build_plan, fresh

from hilo_nas.data import CachedData
from hilo_nas.data.set_transfer import describe_set, read_pieces
from hilo_nas.errors import DeviceError, HiloNasError, UsageError, WorkerDiedError, WorkerFailedError
from hilo_nas.evaluation import (
    ClusterOptions,
    Count,
    Failed,
    Finished,
    Inspect,
    Prepare,
    Progress,
    Score,
    Time,
    run_task,
)
from hilo_nas.evaluation.checkpoint_files import CheckpointFiles
from hilo_nas.evaluation.ray import RayEvaluator, start_ray_evaluator
from hilo_nas.evaluation.ray.cluster import PlaceLostError
from hilo_nas.evaluation.ray.place import Place
from hilo_nas.events import Notice
from hilo_nas.searching import SearchConfig, run_search
from hilo_nas.testing import check_evaluator
from hilo_nas.testing.fake_cluster import FakeCluster
from hilo_nas.testing.fake_hosts import SleepingHost, find_overlaps, read_uses
from hilo_nas.timing import Entrant

SUBJECT = {"arch": build_arch(0).to_dict()}
CONDITION = build_condition(batch_size=2)
COUNT = Count(subject=SUBJECT, img_size=32, num_classes=10)
PLAN = build_plan(images=64)
CPU = {"CPU": 2.0}
HOST = "hilo_nas.testing.fake_hosts:SleepingHost"


def timing(*names, target="cpu", **fields):
    entries = {name: Entrant(subject=SUBJECT, condition=CONDITION, num_classes=10) for name in names}
    return Time(condition=CONDITION, entries=entries, calibration=build_calibration(), target=target, **fields)


def scoring(target="cpu", **fields):
    return Score(**{"subject": SUBJECT, "plan": PLAN, "data": "prepared-0", "seed": 0, "target": target, **fields})


class HomeWith(SleepingHost):
    """A home whose prepared images are these."""

    def __init__(self, folder, prepared):
        super().__init__(folder, place="home", seconds=0.0)
        self.own = prepared

    @property
    def prepared(self):
        return {"fake": self.own}


@pytest.fixture
def build(tmp_path):
    """Builds an evaluator: `build({"a": {"CPU": 2}}, ...)`; its cluster is `evaluator.cluster`."""
    built = []

    def run(
        nodes, *, time_on=None, train_on=None, home=None, place=Place, checkpoints=True, cluster=FakeCluster, **host
    ):
        cluster = cluster(nodes, place)
        evaluator = RayEvaluator(
            cluster,
            home or SleepingHost(tmp_path / "home", place="home", seconds=0.0, failing=host.pop("fails_at_home", None)),
            wishes=ClusterOptions(time_on=time_on, train_on=train_on),
            host=(HOST, {"purpose": "test", "idle_timeout_s": 9.0, "log": str(tmp_path), **host}),
            checkpoints=CheckpointFiles(tmp_path / "checkpoints", budget_mib=9.0) if checkpoints else None,
            start_s=0.3,
        )
        evaluator.cluster = cluster
        built.append(evaluator)
        return evaluator

    yield run
    for evaluator in built:
        evaluator.close()


def prepare_fake(evaluator):
    """Prepares images that need no image set, under the reference `prepared-0`."""
    assert run_task(evaluator, Prepare(images={}), lambda event: None).reference == "prepared-0"


def changed(arguments_of):
    """A place with other arguments of its evaluator: `arguments_of(name of the place)`."""

    def build_place(options):
        fields = json.loads(options)
        fields["arguments"] |= arguments_of(fields["arguments"]["place"])
        return Place(json.dumps(fields))

    return build_place


def ends_of(evaluator, ids, on_message=lambda message: None):
    """The last message of each task, in the order of the tasks. No task may end twice."""
    ended = {}
    while len(ended) < len(ids):
        for message in evaluator.wait(10.0):
            on_message(message)
            if not isinstance(message, Progress):
                assert message.id not in ended
                ended[message.id] = message
    assert evaluator.wait(0.05) == []
    return [ended[id] for id in ids]


@pytest.mark.parametrize("nodes", [{"a": CPU}, {"a": CPU, "b": CPU, "c": CPU}])
def test_it_keeps_what_every_evaluator_promises(build, nodes):
    evaluator = build(nodes, fails_at_home="prepare")
    tasks = [COUNT, Time(condition=CONDITION, target="cpu"), Inspect(target=None), timing("a", "b"), COUNT]
    check_evaluator(evaluator, tasks, Prepare(timm_names=("nothing",)))


@pytest.mark.parametrize("places", [2, 4])
def test_tasks_of_a_device_never_overlap_and_those_of_several_devices_do(build, tmp_path, places):
    evaluator = build({"a": {"CPU": 1.0, "GPU": float(places)}}, seconds=0.05)
    report = run_task(evaluator, Inspect(target="cuda"), lambda event: None)
    assert report.target == ",".join(f"cuda@a/{number}" for number in range(places))
    assert (evaluator.slots("time"), evaluator.slots("score"), evaluator.slots("inspect")) == (places, places, 1)
    assert all(place.claims == {"GPU": 1.0} for place in evaluator.cluster.places)
    ids = [evaluator.submit(timing("a", "b", target=report.target)) for _ in range(4 * places)]
    assert all(isinstance(message, Finished) for message in ends_of(evaluator, ids))
    uses = [use for use in read_uses(tmp_path) if use.kind == "time"]
    assert len(uses) == 4 * places
    assert {use.place for use in uses} == set(report.target.split(","))
    assert find_overlaps(uses) == []
    assert find_overlaps(dataclasses.replace(use, place="any") for use in uses), "places must work at the same time"


def test_a_place_for_a_cpu_claims_all_of_its_node(build):
    evaluator = build({"a": CPU, "b": {"CPU": 8.0}, "head": {"CPU": 0.0}})
    assert run_task(evaluator, Inspect(target="cpu"), lambda event: None).target == "cpu@a,cpu@b"
    assert [place.claims for place in evaluator.cluster.places] == [{"CPU": 2.0}, {"CPU": 8.0}]


def test_a_timing_runs_on_the_device_that_it_names(build, tmp_path):
    evaluator = build({"a": CPU, "b": CPU})
    report = run_task(evaluator, Inspect(target="cpu"), lambda event: None)
    assert report.target == "cpu@a,cpu@b"
    (ended,) = ends_of(evaluator, [evaluator.submit(Time(condition=CONDITION, target="cpu@b"))])
    assert ended.device == "cpu@b"
    assert [use.place for use in read_uses(tmp_path) if use.kind == "time"] == ["cpu@b"]


def test_the_tasks_of_a_lost_node_are_repeated_elsewhere(build):
    evaluator = build({"a": CPU, "b": CPU, "c": CPU}, seconds=0.05)
    target = run_task(evaluator, Inspect(target="cpu"), lambda event: None).target
    ids = [evaluator.submit(timing("a", "b", target=target)) for _ in range(9)]
    notices = []

    def watch(message):
        if isinstance(message, Progress):
            notices.extend([message.event] if isinstance(message.event, Notice) else [])
        elif evaluator.cluster.nodes()[-1].id == "c":
            evaluator.cluster.lose("c")

    assert all(isinstance(message, Finished) for message in ends_of(evaluator, ids, watch))
    assert [notice.level for notice in notices] == ["warning"]
    assert "cpu@c was lost" in notices[0].text
    assert evaluator.slots("time") == 2


def test_a_place_whose_process_ends_is_started_again_on_its_node(build):
    evaluator = build({"a": CPU}, seconds=0.05)
    run_task(evaluator, Inspect(target="cpu"), lambda event: None)
    id = evaluator.submit(COUNT)
    evaluator.cluster.kill(evaluator.cluster.places[0])
    (ended,) = ends_of(evaluator, [id])
    assert isinstance(ended, Finished)
    assert len(evaluator.cluster.places) == 2


def test_a_task_that_loses_two_places_fails_because_of_its_worker(build):
    evaluator = build({"a": CPU, "b": CPU, "c": CPU}, seconds=30.0)
    evaluator.submit(COUNT)
    for place in evaluator.cluster.places[:2]:
        while not place.place._tasks:
            evaluator.wait(0.01)
        evaluator.cluster.lose(place.node.id)
    while not (found := [message for message in evaluator.wait(5.0) if not isinstance(message, Progress)]):
        pass
    (failed,) = found
    assert (type(failed.error), failed.blame) == (WorkerDiedError, "worker_lost")


@pytest.mark.parametrize("order", ["loss first", "task first"])
def test_nodes_that_end_while_they_are_free_cost_a_task_nothing(build, order):
    evaluator = build(dict.fromkeys("abcd", CPU))
    run_task(evaluator, Inspect(target="cpu"), lambda event: None)
    for name in "ab":
        evaluator.cluster.lose(name)
    if order == "loss first":
        evaluator.wait(0.2)
        assert evaluator.slots("time") == 2
    (ended,) = ends_of(evaluator, [evaluator.submit(COUNT)])
    assert isinstance(ended, Finished)


def test_a_place_that_raises_an_error_is_lost_and_its_task_is_repeated(build):
    class Broken(Place):
        calls = 0

        def wait(self, timeout_s):
            Broken.calls += 1
            if Broken.calls == 5:
                raise WorkerFailedError("OSError: [Errno 5] Input/output error.")
            return super().wait(timeout_s)

    evaluator = build({"a": CPU, "b": CPU}, place=Broken, seconds=0.1)
    run_task(evaluator, Inspect(target="cpu"), lambda event: None)
    ends = ends_of(evaluator, [evaluator.submit(COUNT) for _ in range(6)])
    assert all(isinstance(message, Finished) for message in ends)
    assert Broken.calls > 5


def test_places_lost_before_they_got_a_task_cost_it_nothing(build):
    class Broken(Place):
        adoptions = 0

        def adopt(self, text):
            Broken.adoptions += 1
            if Broken.adoptions <= 2:
                raise PlaceLostError("its node ended")
            return super().adopt(text)

    evaluator = build({"a": CPU, "b": CPU}, place=Broken)
    run_task(evaluator, Inspect(target="cpu"), lambda event: None)
    ends_of(evaluator, [evaluator.submit(COUNT) for _ in range(4)])  # each place has had a task
    prepare_fake(evaluator)
    (ended,) = ends_of(evaluator, [evaluator.submit(scoring())])
    assert isinstance(ended, Finished)
    assert Broken.adoptions > 2


def test_an_interrupt_at_the_start_leaves_no_place(build):
    class Interrupted(FakeCluster):
        def first_ready(self, handles, timeout_s):
            raise KeyboardInterrupt

    evaluator = build({"a": CPU, "b": CPU}, cluster=Interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluator.submit(Inspect(target="cpu"))
    assert len(evaluator.cluster.places) == 2
    evaluator.cluster.close = lambda: None  # a cluster that others started goes on
    evaluator.close()
    assert all(place.is_lost for place in evaluator.cluster.places)


@pytest.mark.parametrize("targets", [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_gpu_that_trains_can_time_as_a_further_target(build, targets):
    evaluator = build({"n": {**CPU, "GPU": 1.0, "edge": 1.0, "big": 1.0}}, time_on="edge", train_on="big")
    found = [run_task(evaluator, Inspect(target=target), lambda event: None).target for target in targets]
    assert found == [{"cpu": "cpu@n", "cuda": "cuda@n/0"}[target] for target in targets]
    assert len(evaluator.cluster.places) == 2


def test_without_a_node_a_task_fails_because_of_the_world(build):
    evaluator = build({"a": CPU}, seconds=0.2)
    run_task(evaluator, Inspect(target="cpu"), lambda event: None)
    id = evaluator.submit(timing("a", "b"))
    evaluator.cluster.lose("a")
    (failed,) = ends_of(evaluator, [id])
    assert (type(failed.error), failed.blame) == (DeviceError, "world")
    assert "no node of the cluster times any more" in str(failed.error)


def test_a_cancelled_task_frees_its_place(build):
    evaluator = build({"a": CPU}, seconds=30.0)
    first, queued = evaluator.submit(COUNT), evaluator.submit(COUNT)
    evaluator.wait(0.2)
    evaluator.cancel(queued)
    evaluator.cancel(first)
    assert evaluator.wait(0.1) == []
    evaluator.submit(COUNT)
    evaluator.close()
    assert evaluator.cluster.is_closed


def test_some_nodes_time_and_others_train(build, tmp_path):
    nodes = {"edge": {**CPU, "edge": 1.0}, "big": {"CPU": 9.0, "GPU": 2.0, "gpus": 1.0}, "other": CPU}
    evaluator = build(nodes, time_on="edge", train_on="gpus")
    report = run_task(evaluator, Inspect(target="cpu"), lambda event: None)
    assert (report.target, report.identity.kind) == ("cpu@edge", "cpu")
    assert (report.trains_on.kind, report.trains_on.serial) == ("cuda", "cuda@big/0")
    assert (evaluator.slots("time"), evaluator.slots("score")) == (1, 2)
    prepare_fake(evaluator)
    tasks = [timing("a", "b", target=report.target), scoring(report.target), scoring(report.target)]
    ends = ends_of(evaluator, [evaluator.submit(task) for task in tasks])
    assert [end.device for end in ends] == ["cpu@edge", "cuda@big/0", "cuda@big/1"]
    assert {(use.kind, use.target) for use in read_uses(tmp_path)} >= {("time", "cpu"), ("score", "cuda")}


def test_a_device_that_times_and_trains_has_one_place(build):
    nodes = {"a": {**CPU, "one": 1.0}, "b": {**CPU, "two": 1.0}, "c": {**CPU, "one": 1.0, "two": 1.0}}
    evaluator = build(nodes, time_on="one", train_on="two")
    assert run_task(evaluator, Inspect(target="cpu"), lambda event: None).target == "cpu@a,cpu@c"
    assert len(evaluator.cluster.places) == 3
    assert (evaluator.slots("time"), evaluator.slots("score")) == (2, 2)


def test_unequal_nodes_are_refused_as_one_target(build):
    evaluator = build({"a": CPU, "b": CPU}, place=changed(lambda name: {"model": f"CPU of {name}"}))
    with pytest.raises(DeviceError, match=r"cpu@a and cpu@b differ in model.*evaluator\.time_on=NAME"):
        run_task(evaluator, Inspect(target="cpu"), lambda event: None)


def test_two_nodes_on_one_host_share_its_cpu_and_one_is_used(build):
    evaluator, events = build({"a": CPU, "b": CPU}, place=changed(lambda name: {"place": "the host"})), []
    assert run_task(evaluator, Inspect(target="cpu"), events.append).target == "cpu@a"
    assert [event.text for event in events] == ["cpu@b is not used: it is the same device as cpu@a"]


def test_a_device_that_times_on_one_node_and_trains_on_another_has_one_place(build):
    nodes = {"a": {**CPU, "big": 1.0}, "b": {**CPU, "edge": 1.0}}
    same = changed(lambda name: {"place": "the host"})
    evaluator = build(nodes, time_on="edge", train_on="big", place=same)
    assert run_task(evaluator, Inspect(target="cpu"), lambda event: None).target == "cpu@b"
    assert (evaluator.slots("time"), evaluator.slots("score")) == (1, 1)
    prepare_fake(evaluator)
    (ended,) = ends_of(evaluator, [evaluator.submit(scoring("cpu@b"))])
    assert ended.device == "cpu@b"


def test_two_hosts_with_the_same_name_are_two_devices(build):
    class Elsewhere(Place):
        def describe(self):
            found = super().describe()
            found["value"]["machine"] = str(id(self))
            return found

    def build_place(options):
        fields = json.loads(options)
        fields["arguments"]["place"] = "localhost"
        return Elsewhere(json.dumps(fields))

    evaluator = build({"a": CPU, "b": CPU}, place=build_place)
    assert run_task(evaluator, Inspect(target="cpu"), lambda event: None).target == "cpu@a,cpu@b"


@pytest.mark.parametrize("library", ["torch", "hilo-nas"])
def test_a_node_with_another_version_is_not_used(build, library):
    class Old(Place):
        def describe(self):
            found = super().describe()
            found["value"]["versions"][library] = "0.0.1"
            return found

    def build_place(options):
        return (Old if "cpu@b" in options else Place)(options)

    evaluator, events = build({"a": CPU, "b": CPU}, place=build_place), []
    assert run_task(evaluator, Inspect(target="cpu"), events.append).target == "cpu@a"
    assert f"{library} 0.0.1" in events[0].text


def test_a_node_whose_resources_are_in_use_is_not_waited_for_forever(build):
    evaluator, events = build({"a": CPU, "b": CPU}), []
    other = evaluator.cluster.start(
        evaluator.cluster.nodes()[1], CPU, json.dumps({"host": HOST, "arguments": {"place": "x"}})
    )
    assert run_task(evaluator, Inspect(target="cpu"), events.append).target == "cpu@a"
    assert "cpu@b is not used: it did not start" in events[0].text
    evaluator.cluster.kill(other)


@pytest.mark.parametrize(
    ("nodes", "wishes", "target", "message"),
    [
        (
            {"a": CPU},
            {},
            "cuda",
            "must have the resource GPU, .* have CPU.*on a machine with a GPU",
        ),
        ({"a": CPU}, {"time_on": "edge"}, "cpu", "must have the resource edge and CPU"),
        ({"a": {**CPU, "edge": 1.0}}, {"time_on": "edge", "train_on": "gpus"}, "cpu", "the resource gpus"),
    ],
)
def test_a_cluster_without_the_wanted_nodes_is_refused(build, nodes, wishes, target, message):
    with pytest.raises(DeviceError, match=message):
        run_task(build(nodes, **wishes), Inspect(target=target), lambda event: None)


@pytest.mark.parametrize("target", ["cuda:1", "cuda:0,cuda:1"])
def test_ray_chooses_the_gpus_of_a_node(build, target):
    with pytest.raises(DeviceError, match="Ray chooses the GPUs"):
        run_task(build({"a": {"GPU": 2.0}}), Inspect(target=target), lambda event: None)


# Checkpoints, prepared data, code.


def test_a_training_resumes_on_another_node_from_the_studys_checkpoint(build, tmp_path):
    evaluator = build({"a": CPU, "b": CPU})
    target = run_task(evaluator, Inspect(target="cpu"), lambda event: None).target
    prepare_fake(evaluator)
    name = "0123456789ab-0"
    for own, until in (("cpu@a", 16), ("cpu@b", 64)):
        run_task(evaluator, scoring(own, until=until, checkpoint=name, must_resume=own == "cpu@b"), lambda event: None)
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [f"{name}.pt"]
    assert target == "cpu@a,cpu@b"
    uses = [(use.place, use.resumed_at) for use in read_uses(tmp_path) if use.kind == "score"]
    assert uses == [("cpu@a", None), ("cpu@b", 16)]


def test_a_checkpoint_that_cannot_be_read_is_a_warning(build, tmp_path):
    evaluator = build({"a": CPU})
    prepare_fake(evaluator)
    (tmp_path / "checkpoints/0123456789ab-0.pt").mkdir(parents=True)
    said = []
    run_task(evaluator, scoring(checkpoint="0123456789ab-0"), said.append)
    texts = [event.text for event in said if isinstance(event, Notice)]
    assert texts[0] == (
        "cannot read the checkpoint 0123456789ab-0.pt: Is a directory. The training starts from the beginning"
    )


def test_without_a_folder_for_checkpoints_none_is_asked_for(build):
    evaluator = build({"a": CPU}, checkpoints=False)
    prepare_fake(evaluator)
    found = run_task(evaluator, scoring(checkpoint="0123456789ab-0"), lambda event: None)
    assert found.checkpoint is None


def test_what_a_node_prepared_reaches_the_others(build, tmp_path):
    evaluator = build({"a": CPU, "b": CPU})
    run_task(evaluator, Inspect(target="cpu"), lambda event: None)
    prepare_fake(evaluator)
    found = run_task(evaluator, Prepare(proxy=PLAN, data="prepared-0", target="cpu@a"), lambda event: None)
    assert found.reference == "prepared-1"
    run_task(evaluator, scoring("cpu@b", prepared=found.reference), lambda event: None)
    assert [(use.place, use.kind) for use in read_uses(tmp_path)][-2:] == [("cpu@a", "prepare"), ("cpu@b", "score")]


class Far(Place):
    """A place that does not see the files of the driver's machine."""

    def find_set(self, text, shared):
        return super().find_set(text, "/nowhere")


@pytest.mark.parametrize("place", [Place, Far])
def test_images_reach_a_node_by_content(build, tmp_path, own_cache, digits16, place):
    prepared = CachedData.from_dict(digits16.to_dict())
    evaluator = build({"a": CPU, "b": CPU}, place=place, home=HomeWith(tmp_path / "home", prepared.to_dict()))
    run_task(evaluator, Inspect(target="cpu"), lambda event: None)
    prepare_fake(evaluator)
    for target in ("cpu@a", "cpu@b", "cpu@a"):
        run_task(evaluator, scoring(target), lambda event: None)
    sets = own_cache / "data/sets"
    arrived = [path.name for path in sets.iterdir()] if sets.is_dir() else []
    assert len(arrived) == (place is Far)


def test_a_damaged_image_set_is_not_sent(build, tmp_path, digits16):
    path = shutil.copytree(digits16.path, tmp_path / "sets" / "copy")
    (path / "meta.json").write_text("{}")
    data = dataclasses.replace(digits16, path=str(path)).to_dict()
    evaluator = build({"a": CPU}, home=HomeWith(tmp_path / "home", data))
    prepare_fake(evaluator)
    (failed,) = ends_of(evaluator, [evaluator.submit(scoring())])
    assert (isinstance(failed, Failed), failed.blame) == (True, "world")


def test_functions_of_a_user_do_not_travel(build):
    with pytest.raises(UsageError, match="code does not travel"):
        run_task(build({"a": CPU}), Prepare(proxy=PLAN, source="mine.py:score"), lambda event: None)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Prepare(images={"source": "mine.py:images"}), "reads no images"),
        (Prepare(proxy=PLAN, source="mine.py:score"), "runs no functions"),
        (Prepare(), "names none"),
        (Count(subject={"function": "os:system", "arguments": {}}, img_size=32, num_classes=10), "got 'os:system'"),
        (Time(condition=CONDITION, reference={"function": "os:system", "arguments": {}}), "got 'os:system'"),
    ],
)
def test_a_place_refuses_what_would_run_code_or_read_sources(task, message):
    place = Place(json.dumps({"host": HOST, "arguments": {"place": "p"}}))
    place.submit("7", json.dumps(task.to_dict()))
    ((text, _),) = place.wait(1.0)
    failed = json.loads(text)
    assert (failed["id"], failed["kind"]) == ("7", "failed")
    assert message in failed["error"]["message"]
    place.close()


def test_a_place_runs_an_evaluator_of_this_package_only():
    with pytest.raises(UsageError, match="must be one of hilo-nas, but got 'os'"):
        Place(json.dumps({"host": "os:system", "arguments": {"command": "true"}}))


def test_the_folders_of_killed_places_are_removed_by_the_next_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = "import os, time; from hilo_nas.evaluation.ray.place_folders import PlaceFolder; PlaceFolder(); os._exit(9)"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)}, check=False)
    (left,) = tmp_path.iterdir()
    (unlocked := tmp_path / "hilo-nas-place-of-a-user").mkdir()
    places = [Place(json.dumps({"host": HOST, "arguments": {"place": "p"}})) for _ in range(2)]
    assert not left.exists()
    assert len(list(tmp_path.iterdir())) == 3, "a running place keeps its folder, whatever its process ID"
    for place in places:
        place.close()
    assert list(tmp_path.iterdir()) == [unlocked]


def test_a_message_that_cannot_be_packed_is_the_failure_of_its_task(build):
    place = Place(json.dumps({"host": HOST, "arguments": {"place": "p", "seconds": 0.0}}))
    place.submit("7", json.dumps(scoring(checkpoint="0123456789ab-0").to_dict()))
    while not (path := place._checkpoints.path_of("0123456789ab-0")).is_file():
        time.sleep(0.01)
    path.unlink()
    path.mkdir()
    ends = []
    while not ends:
        ends = [fields for text, _ in place.wait(1.0) if (fields := json.loads(text))["kind"] != "progress"]
    assert (ends[0]["id"], ends[0]["kind"]) == ("7", "failed")
    place.close()


def test_no_checkpoint_of_a_failed_or_cancelled_training_stays_on_its_node():
    for end in ("fails", "is cancelled"):
        failing = "score" if end == "fails" else None
        arguments = {"place": "p", "seconds": 0.0 if failing else 30.0, "failing": failing}
        place = Place(json.dumps({"host": HOST, "arguments": arguments}))
        place.submit("7", json.dumps(scoring(checkpoint="0123456789ab-0").to_dict()), b"16")
        path = place._checkpoints.path_of("0123456789ab-0")
        assert path.is_file()
        if failing is None:
            place.cancel("7")
        while failing and not any(json.loads(text)["kind"] == "failed" for text, _ in place.wait(1.0)):
            pass
        assert not path.exists()
        place.close()


def test_a_transfer_that_a_driver_left_unfinished_starts_anew(own_cache, digits16):
    source, place = Path(digits16.path), Place(json.dumps({"host": HOST, "arguments": {"place": "p"}}))
    text = json.dumps(describe_set(source))
    place.write_set(text, *next(read_pieces(source)))
    assert place.find_set(text, "/nowhere") == {"value": None}
    for file, piece in read_pieces(source):
        assert place.write_set(text, file, piece) == {"value": None}
    assert Path(place.write_set(text, None)["value"]).is_dir()
    place.close()


def test_a_search_starts_no_ray(tmp_path):
    with pytest.raises(UsageError, match="HOST:PORT or auto, but got 'local'"):
        start_ray_evaluator(ClusterOptions(address="local"), tmp_path, purpose="test")


def test_without_ray_its_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'hilo-nas\[ray\]'"):
        run_search(SearchConfig.of(space="litv2_digits", study="demo", evaluator="ray"), lambda event: None)


# Searches.


def search(evaluator, emit=lambda event: None, **options):
    plain = {"space": "litv2_digits", "sampler": "random", "remeasure": False, "study": "demo", "trials": 12}
    return run_search(SearchConfig.of(**{**plain, **options}), emit, evaluator=evaluator)


def test_a_search_goes_on_when_a_node_is_lost(build, tmp_path):
    evaluator = build({"a": CPU, "b": CPU, "c": CPU}, seconds=0.02)
    seen = []

    def lose(event):
        seen.append(event)
        if sum(type(event).__name__ == "TrialFinished" for event in seen) == 3:
            evaluator.cluster.lose("b")

    study, finished = search(evaluator, lose)
    records = fresh(study).records
    assert finished.measured == 12
    assert len({record.key for record in records}) == len(records) == 12
    assert {record.state for record in records} <= {"complete", "stopped"}
    assert find_overlaps(read_uses(tmp_path)) == []
    assert {use.place for use in read_uses(tmp_path)} == {"cpu@a", "cpu@b", "cpu@c"}


def test_a_search_without_nodes_ends_and_is_resumed_on_others(build):
    evaluator = build({"a": CPU}, seconds=0.02)
    trials = []

    def lose(event):
        trials.append(type(event).__name__)
        if trials.count("TrialFinished") == 3:
            evaluator.cluster.lose("a")

    with pytest.raises(DeviceError, match="no node of the cluster"):
        search(evaluator, lose)
    study, finished = search(build({"a": CPU, "d": CPU}), until_trials=12, trials=None, space=None, sampler=None)
    records = fresh(study).records
    assert finished.measured == 12
    assert len({record.key for record in records}) == len(records)


def test_the_nodes_of_a_further_target_must_be_equally_fast(build):
    nodes = {"a": {**CPU, "GPU": 1.0}, "b": CPU}
    slow = changed(lambda name: {"images_per_s": 100.0 if name == "cpu@b" else 256.0})
    with pytest.raises(DeviceError, match="cpu@a and cpu@b time the reference at 256 and 100 images/s"):
        search(build(nodes, place=slow), device="cuda", also=["device=cpu"])


def test_the_nodes_of_a_further_target_are_compared_again_when_a_study_is_resumed(build):
    nodes = {"a": {**CPU, "GPU": 1.0}, "b": CPU}
    search(build(nodes), device="cuda", also=["device=cpu"], trials=3)
    slow = changed(lambda name: {"images_per_s": 100.0 if name == "cpu@b" else 256.0})
    with pytest.raises(DeviceError, match="cpu@a and cpu@b time the reference"):
        search(build(nodes, place=slow), device="cuda", until_trials=6, trials=None, space=None, sampler=None)


def test_a_resumed_study_whose_further_gpu_is_gone_says_so(build):
    search(build({"a": {**CPU, "GPU": 1.0}}), device="cpu", also=["device=cuda"], trials=3)
    other = build({"a": {**CPU, "GPU": 1.0}}, model="another model")
    with pytest.raises(HiloNasError) as caught:
        search(other, device="cpu", until_trials=6, trials=None, space=None, sampler=None)
    assert "Ray chooses the GPUs" not in str(caught.value)
