"""What every evaluator promises, held to the fake one and to the one of this machine."""

import dataclasses
import functools
import importlib
import inspect
import threading

import pytest
from builders import (
    build_arch,
    build_calibration,
    build_condition,
    build_device,
    build_measurement,
    build_plan,
    build_score,
)

from hilo_nas.data.set_uses import unused
from hilo_nas.errors import (
    DeviceError,
    NotEnoughMemoryError,
    OutOfMemoryError,
    UsageError,
    WorkerDiedError,
    WorkerHungError,
)
from hilo_nas.evaluation import (
    BenchWorker,
    Count,
    Failed,
    Inspect,
    LocalEvaluator,
    Prepare,
    Progress,
    Score,
    Time,
    evaluator_or_local,
    run_task,
)
from hilo_nas.events import TrainingProgressed
from hilo_nas.measurement import kind_of_device
from hilo_nas.testing import FakeAnswers, FakeEvaluator, HangsError, check_evaluator, use_evaluator
from hilo_nas.timing import Claim, Cohort, Entrant, hold

SUBJECT = {"arch": build_arch(0).to_dict()}
CONDITION = build_condition(batch_size=2)
COUNT = Count(subject=SUBJECT, img_size=32, num_classes=10)
CALIBRATION = Time(condition=CONDITION, target="cpu", seconds=0.1)
PLAN = build_plan(images=64)


def ignore(event):
    pass


def timing(*names, **fields):
    entries = {name: Entrant(subject=SUBJECT, condition=CONDITION, num_classes=10) for name in names}
    return Time(condition=CONDITION, entries=entries, calibration=build_calibration(), target="cpu", **fields)


def scoring(**fields):
    return Score(subject=SUBJECT, plan=PLAN, data="data", seed=0, target="cpu", **fields)


# The fake one.


class Answers(FakeAnswers):
    """Fails where the task is in `faults`, as often as it says."""

    def __init__(self, faults=()):
        super().__init__()
        self.faults = dict(faults)

    def __call__(self, task):
        error, times = self.faults.get(task.kind, (None, 0))
        if times:
            self.faults[task.kind] = (error, times - 1)
            raise error
        return super().__call__(task)


@pytest.mark.parametrize("slots", [1, 4])
def test_the_fake_evaluator_keeps_what_every_evaluator_promises(slots):
    refusing = Answers({"prepare": (UsageError("timm has no such network"), 99)})
    tasks = [COUNT, CALIBRATION, Inspect(target=None), timing("a", "b"), scoring(checkpoint="0123456789ab-0")]
    check_evaluator(FakeEvaluator(refusing, slots=slots), tasks, Prepare(timm_names=("nothing",)))


def test_the_fake_evaluator_ends_tasks_out_of_order_and_each_time_alike():
    def order(seed):
        evaluator = FakeEvaluator(slots=4, seed=seed)
        ids = [evaluator.submit(COUNT) for _ in range(8)]
        return [evaluator.wait()[-1].id for _ in ids]

    assert order(0) == order(0) != order(1)
    assert sorted(order(0)) != order(0)


def test_the_fake_evaluators_clock_moves_by_its_own_waiting_alone():
    evaluator = FakeEvaluator()
    evaluator.submit(COUNT)
    assert (evaluator.wait(0.1), evaluator.now) == ([], 0.1)
    evaluator.wait()
    assert evaluator.now >= 0.5


def test_a_task_that_hangs_fails_after_its_silence_or_is_cancelled():
    evaluator = FakeEvaluator(Answers({"count": (HangsError(), 1)}), idle_timeout_s=600.0)
    evaluator.submit(COUNT)
    assert evaluator.wait() == []
    (failed,) = evaluator.wait()
    assert (type(failed.error), failed.blame, evaluator.now > 600) == (WorkerHungError, "subject", True)
    evaluator = FakeEvaluator(Answers({"count": (HangsError(), 1)}))
    evaluator.cancel(evaluator.submit(COUNT))
    assert evaluator.wait(1.0) == []


# What callers make of a task.


@pytest.mark.parametrize("times", [1, 2])
def test_a_task_whose_worker_is_lost_is_repeated_once(times):
    evaluator, events = FakeEvaluator(Answers({"count": (WorkerDiedError("it was killed"), times)})), []
    if times == 1:
        assert run_task(evaluator, COUNT, events.append).parameters == 5_000_000
    else:
        with pytest.raises(WorkerDiedError, match="it was killed"):
            run_task(evaluator, COUNT, events.append)
    (notice,) = events
    assert notice.level == "warning"
    assert notice.text.startswith("it was killed. ")


@pytest.mark.parametrize(
    ("error", "blame"),
    [
        (UsageError("no such network"), "subject"),
        (OutOfMemoryError("CUDA out of memory"), "memory"),
        (WorkerDiedError("it was killed"), "worker_lost"),
        (DeviceError("it is gone"), "world"),
    ],
)
def test_a_failure_says_what_is_to_blame(error, blame):
    evaluator = FakeEvaluator(Answers({"count": (error, 1)}))
    evaluator.submit(COUNT)
    (failed,) = evaluator.wait()
    assert (failed.error, failed.blame, failed.device) == (error, blame, "cpu")


def test_whatever_the_listener_raises_cancels_the_task():
    def stop(event):
        raise KeyboardInterrupt

    evaluator = FakeEvaluator()
    with pytest.raises(KeyboardInterrupt):
        run_task(evaluator, CALIBRATION, stop)
    assert evaluator.wait(9.0) == []


# The one of this machine, with workers that are none.


class FakeWorker:
    """Answers at once, or blocks until it is closed.

    Args:
        happen: Called with the function's name and its arguments; may raise, or return what is to be returned.
    """

    def __init__(self, happen, name, log, *, idle_timeout_s, environment):
        self.happen, self.name, self.environment = happen, name, dict(environment)
        self.closed = 0
        self.is_ended = threading.Event()

    def call(self, function, arguments, emit):
        name = function.partition(":")[2]
        emit(TrainingProgressed(images_seen=1, images_total=2))
        found = self.happen(name, arguments)
        if found == "block":
            self.is_ended.wait()
            raise WorkerDiedError("closed in mid-call")
        if name == "score_network":
            return {"score": vars(build_score()), "further": []}
        return found if found is not None else {"params": 1, "macs": 2}

    def close(self):
        self.closed += 1
        self.is_ended.set()


class FakeRuler:
    """Times nothing; `measure` raises what `errors` holds, in turn."""

    def __init__(self, errors, log, *, purpose, idle_timeout_s, env, sleep):
        self.errors, self.env, self.targets, self.references, self.misfits = errors, env, [], [], []

    def read_device(self, device, emit):
        self.targets.append(device)
        kind = kind_of_device(device or "cpu")
        return device or "cpu", build_device(kind=kind), 2 if kind == "cpu" else None

    def calibrate(self, condition, emit, *, seconds):
        return build_calibration()

    def measure(self, entrant, calibration, emit, *, rivals=None, seconds_each=None):
        if self.errors:
            raise self.errors.pop(0)
        return build_measurement(condition=entrant.condition)

    def measure_cohort(self, entrants, emit, *, calibration, reference, seconds_each, is_brief):
        self.references.append(reference)
        failures = self.misfits.pop(0) if self.misfits else {}
        return Cohort(
            measurements={name: build_measurement() for name in entrants if name not in failures}, failures=failures
        )

    def close(self):
        pass


class Desk:
    """An evaluator of this machine, and the workers that it made."""

    def __init__(self, path, *, happen=lambda name, arguments: None, errors=(), worker=FakeWorker, **options):
        self.made = []

        def start(*arguments, **fields):
            self.made.append(worker(happen, *arguments, **fields))
            return self.made[-1]

        self.evaluator = LocalEvaluator(
            path,
            purpose="a test",
            start_worker=start,
            start_ruler=functools.partial(FakeRuler, list(errors)),
            checkpoints=path / "checkpoints",
            **options,
        )

    def run(self, task, emit=ignore):
        return run_task(self.evaluator, task, emit)


IMAGES = Prepare(images={"source": "digits"})


def describe(name, arguments):
    return {"path": "/somewhere", "n_images": 3} if name == "describe_data" else None


def test_prepared_images_are_told_of_without_their_place(tmp_path):
    desk = Desk(tmp_path, happen=describe)
    found = desk.run(IMAGES)
    assert found.facts == {"n_images": 3}
    assert "somewhere" not in found.reference


def test_the_evaluator_uses_the_images_until_it_is_closed_because_a_worker_may_end_sooner(tmp_path):
    path = tmp_path / "cache" / "data" / "sets" / "0123456789abcdef-32px"
    path.mkdir(parents=True)
    desk = Desk(tmp_path, happen=lambda name, arguments: {"path": str(path), "val_path": None})
    desk.run(IMAGES)
    with unused(path) as is_unused:
        assert not is_unused
    desk.evaluator.close()
    with unused(path) as is_unused:
        assert is_unused


def test_a_training_gets_the_images_and_the_checkpoint_file_of_its_references(tmp_path):
    seen = []

    def happen(name, arguments):
        seen.append(arguments)
        return describe(name, arguments)

    desk = Desk(tmp_path, happen=happen)
    data = desk.run(IMAGES).reference
    task = Score(subject=SUBJECT, plan=PLAN, data=data, seed=3, target="cpu", until=64, checkpoint="timm:a/b-3")
    assert desk.run(task).checkpoint == "timm:a/b-3"
    arguments = seen[-1]
    assert arguments["data"] == {"path": "/somewhere", "n_images": 3}
    assert (arguments["seed"], arguments["device"], arguments["until"]) == (3, "cpu", 64)
    assert arguments["checkpoint"] == str(tmp_path / "checkpoints" / "timm-a-b-3.pt")


def test_what_a_proxy_prepares_is_given_to_its_scoring_and_told_without_its_paths(tmp_path):
    seen = []

    def happen(name, arguments):
        seen.append((name, arguments))
        if name == "prepare_proxy":
            return {"facts": {"rows": 3}, "local": {"path": "/somewhere"}}
        return describe(name, arguments)

    desk = Desk(tmp_path, happen=happen)
    data = desk.run(IMAGES).reference
    prepared = desk.run(Prepare(proxy=PLAN, data=data, target="cpu", source="/mine.py:score"))
    assert prepared.facts == {"rows": 3}
    assert seen[-1][1]["source"] == "/mine.py:score"
    assert seen[-1][1]["data"] == {"path": "/somewhere", "n_images": 3}
    desk.run(Score(subject=SUBJECT, plan=PLAN, data=data, prepared=prepared.reference, seed=0, target="cpu"))
    assert seen[-1][1]["prepared"] == {"facts": {"rows": 3}, "local": {"path": "/somewhere"}}


def test_the_worker_functions_take_what_they_are_called_with(tmp_path):
    called = []

    class Listening(FakeWorker):
        def call(self, function, arguments, emit):
            called.append((function, arguments))
            return super().call(function, arguments, emit)

    desk = Desk(tmp_path, happen=describe, worker=Listening)
    data = desk.run(IMAGES).reference
    desk.run(COUNT)
    desk.run(Score(subject=SUBJECT, plan=PLAN, data=data, seed=0, target="cpu"))
    for name, arguments in called[1:]:
        module, _, attribute = name.partition(":")
        inspect.signature(getattr(importlib.import_module(module), attribute)).bind(emit=print, **arguments)
    assert len(called) == 3


def test_training_workers_end_before_several_networks_are_timed_but_not_before_one(tmp_path):
    desk = Desk(tmp_path)
    desk.run(timing("a"))
    assert desk.made[0].closed == 0
    desk.run(timing("a", "b", is_brief=True))
    assert desk.made[0].closed == 0
    desk.run(timing("a", "b"))
    assert desk.made[0].closed == 1


def test_networks_that_do_not_fit_beside_training_workers_are_timed_briefly_without_them(tmp_path):
    desk = Desk(tmp_path)
    desk.run(timing("a"))
    ruler = desk.evaluator._rulers["tuned"]
    ruler.misfits = [{"b": OutOfMemoryError("no memory")}]
    found = desk.run(timing("a", "b", is_brief=True))
    assert desk.made[0].closed == 1
    assert (sorted(found.measurements), found.failures) == (["a", "b"], {})


def test_one_network_without_a_calibration_is_timed_as_several_are_and_so_is_another_reference(tmp_path):
    desk = Desk(tmp_path, errors=[AssertionError("it is not timed alone")])
    for reference in (None, {"timm": "resnet50"}):
        task = dataclasses.replace(timing("a"), calibration=None, reference=reference)
        assert list(desk.run(task).measurements) == ["a"]
    assert desk.evaluator._rulers["tuned"].references == [None, {"timm": "resnet50"}]


def is_free(*, alone):
    """Returns True where another process could have the CPU now."""

    def stop(seconds):
        raise TimeoutError

    try:
        with hold([Claim(device="cpu", alone=alone)], "a test", ignore, sleep=stop):
            return True
    except TimeoutError:
        return False


def test_counting_keeps_timings_off_the_cpu(tmp_path):
    free = []
    Desk(tmp_path, happen=lambda name, arguments: free.extend((is_free(alone=False), is_free(alone=True)))).run(COUNT)
    assert free == [True, False]


def test_a_network_that_does_not_fit_is_timed_again_without_training_workers(tmp_path):
    desk = Desk(tmp_path, errors=[OutOfMemoryError("full")])
    assert list(desk.run(timing("a")).measurements) == ["a"]
    assert desk.made[0].closed == 1
    desk = Desk(tmp_path, errors=[OutOfMemoryError("full")] * 2)
    desk.evaluator.submit(timing("a"))
    (failed,) = desk.evaluator.wait()
    assert (type(failed.error), failed.blame) == (NotEnoughMemoryError, "memory")


def test_a_timing_whose_worker_died_twice_is_blamed_on_its_network(tmp_path):
    desk = Desk(tmp_path, errors=[WorkerDiedError("it was killed, again")])
    desk.evaluator.submit(timing("a"))
    (failed,) = desk.evaluator.wait()
    assert failed.blame == "subject"


def test_several_trainings_at_once_share_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    begun = threading.Barrier(4, timeout=30)

    def happen(name, arguments):
        if name == "score_network":
            begun.wait()
        return describe(name, arguments)

    desk = Desk(tmp_path, happen=happen, jobs=4)
    data = desk.run(IMAGES).reference
    desk.run(Inspect(target="cpu"))
    tasks = [Score(subject=SUBJECT, plan=PLAN, data=data, seed=seed, target="cpu") for seed in range(8)]
    left = {desk.evaluator.submit(task) for task in tasks}
    while left:
        left -= {message.id for message in desk.evaluator.wait() if not isinstance(message, Progress)}
    assert [(worker.name, worker.environment.get("OMP_NUM_THREADS")) for worker in desk.made] == [
        ("training", None),
        *((f"training-{i}", "2") for i in range(4)),
    ]
    assert desk.made[0].closed >= 1  # its memory is needed
    desk.evaluator.close()


def test_jobs_left_out_are_the_cores_of_a_cpu_and_one_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    desk = Desk(tmp_path, jobs=None)
    desk.run(Inspect(target="cpu"))
    assert (desk.evaluator.slots("score"), desk.evaluator.slots("time")) == (3, 1)
    desk.run(Inspect(target="cuda:1"))
    assert desk.evaluator.slots("score") == 1
    assert [report.target for report in desk.evaluator.devices()] == ["cpu", "cuda:1"]


def test_a_task_in_the_middle_of_a_call_can_be_cancelled_and_the_next_one_runs(tmp_path):
    desk = Desk(tmp_path, happen=lambda name, arguments: "block" if arguments.get("img_size") == 64 else None)
    id = desk.evaluator.submit(Count(subject=SUBJECT, img_size=64, num_classes=10))
    waiting = desk.evaluator.submit(COUNT)
    assert isinstance(desk.evaluator.wait()[0], Progress)
    desk.evaluator.cancel(id)
    assert {message.id for message in desk.evaluator.wait()} == {waiting}


def test_closing_ends_what_is_under_way(tmp_path):
    desk = Desk(tmp_path, happen=lambda name, arguments: "block")
    desk.evaluator.submit(COUNT)
    desk.evaluator.submit(COUNT)
    desk.evaluator.close()
    assert desk.made[0].closed
    assert desk.evaluator.wait(0.0) == []


def test_events_reach_the_thread_that_waits(tmp_path):
    threads = []
    Desk(tmp_path).run(COUNT, lambda event: threads.append(threading.current_thread()))
    assert threads == [threading.current_thread()]


def test_a_fault_of_this_package_ends_the_search(tmp_path):
    def happen(name, arguments):
        raise AssertionError("a mistake")

    desk = Desk(tmp_path, happen=happen)
    desk.evaluator.submit(COUNT)
    while isinstance(failed := desk.evaluator.wait()[-1], Progress):
        pass
    assert isinstance(failed, Failed)
    assert failed.blame == "world"


def test_another_device_of_the_same_kind_is_the_target_and_no_part_of_the_condition(tmp_path):
    desk = Desk(tmp_path)
    condition = build_condition(device="cuda")
    desk.run(Time(condition=condition, target="cuda:1"))
    assert desk.evaluator._rulers["tuned"].targets == ["cuda:1"]
    assert "cuda:1" not in condition.label()


def test_another_evaluator_replaces_the_one_of_this_machine_within_a_block_and_is_closed(tmp_path):
    made = []

    def start(logs, **options):
        made.append(FakeEvaluator())
        asked.append((logs, options["purpose"], options["jobs"]))
        return made[-1]

    asked, given = [], FakeEvaluator()
    with use_evaluator(start):
        with evaluator_or_local(None, tmp_path, purpose="a test", jobs=3) as found:
            assert (found, asked) == (made[0], [(tmp_path, "a test", 3)])
            assert not found.is_closed
        with evaluator_or_local(given, tmp_path, purpose="a test") as found:
            assert found is given
    assert [evaluator.is_closed for evaluator in (*made, given)] == [True, False]
    with evaluator_or_local(None, tmp_path, purpose="a test") as found:
        assert isinstance(found, LocalEvaluator)


# The one of this machine, with workers.


def test_this_machine_keeps_what_every_evaluator_promises(tmp_path):
    with LocalEvaluator(tmp_path, purpose="a test", checkpoints=tmp_path / "checkpoints") as evaluator:
        images = {"source": "digits", "img_size": 32, "cache_dir": None, "val_data": None}
        data = run_task(evaluator, Prepare(images=images), ignore).reference
        calibration = run_task(evaluator, CALIBRATION, ignore).calibration
        entry = Entrant(subject=SUBJECT, condition=CONDITION, num_classes=10)
        timed = Time(condition=CONDITION, entries={"a": entry}, calibration=calibration, target="cpu", seconds=0.1)
        scored = Score(subject=SUBJECT, plan=PLAN, data=data, seed=0, target="cpu", checkpoint="0123456789ab-0")
        looked = Inspect(target="cpu", forms=(CONDITION,))
        check_evaluator(evaluator, [COUNT, looked, timed, scored], Prepare(timm_names=("nothing",)))
    assert (tmp_path / "checkpoints" / "0123456789ab-0.pt").is_file()


@pytest.mark.parametrize(
    ("device", "timing", "free"),
    [(None, False, [True, True]), (build_device(), False, [True, False]), (build_device(), True, [False, False])],
)
def test_the_worker_of_a_bench_locks_the_device_that_a_call_uses(tmp_path, device, timing, free):
    found = []

    def look(event):
        found.extend((is_free(alone=False), is_free(alone=True)))

    with BenchWorker(tmp_path / "bench.log", purpose="a bench") as worker:
        assert worker.call("worker_tasks:tell", {"times": 1}, look, device=device, timing=timing) == 1
    assert found == free
    assert is_free(alone=True)
