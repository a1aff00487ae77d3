"""Several equal devices of one machine: a set of workers for each, and one task at a time on each."""

import collections
import contextlib
import dataclasses
import functools
import threading

import pytest
import torch
from builders import (
    build_arch,
    build_calibration,
    build_condition,
    build_device,
    build_measurement,
    build_plan,
    build_score,
)
from procs import is_alive, wait_for

from hilo_nas.errors import DeviceError, UsageError, WorkerDiedError
from hilo_nas.evaluation import Count, Inspect, LocalEvaluator, Prepare, Score, Time, drive, run_task
from hilo_nas.events import Notice
from hilo_nas.measurement.fields import to_plain
from hilo_nas.testing import FakeAnswers, FakeEvaluator, check_evaluator
from hilo_nas.timing import Claim, Cohort, Entrant, Ruler, Worker, hold

SUBJECT = {"arch": build_arch(0).to_dict()}
CONDITION = build_condition(device="cuda", batch_size=2)
BOTH = "cuda:0,cuda:1"
COUNT = Count(subject=SUBJECT, img_size=32, num_classes=10)
PLAN = build_plan(images=64)
REFUSED = Prepare(timm_names=("nothing",))


def ignore(event):
    pass


def timing(*names, target=BOTH):
    entries = {name: Entrant(subject=SUBJECT, condition=CONDITION, num_classes=10) for name in names}
    return Time(condition=CONDITION, entries=entries, calibration=build_calibration(), target=target)


def scoring(data, seed=0, target=BOTH):
    return Score(subject=SUBJECT, plan=PLAN, data=data, seed=seed, target=target)


class Cards:
    """GPUs that are none, and who used them.

    Args:
        models: Model of each GPU.
        meet: Barrier at which uses wait for each other; None if they do not.
        dying: Times that a training on each GPU loses its worker, by name.
    """

    def __init__(self, *models, meet=None, dying=()):
        models = models or ("Test GPU", "Test GPU")
        self.identities = {
            f"cuda:{i}": build_device(kind="cuda", model=model, serial=f"GPU-{i}") for i, model in enumerate(models)
        }
        self.meet, self.dying = meet, collections.Counter(dict(dying))
        self.lock, self.in_use = threading.Lock(), collections.Counter()
        self.uses, self.clashes, self.most = [], [], 0

    @contextlib.contextmanager
    def use(self, device, kind):
        with self.lock:
            self.clashes += [device] * (self.in_use[device] > 0)
            self.in_use[device] += 1
            self.uses.append((device, kind))
            self.most = max(self.most, sum(self.in_use.values()))
        try:
            if self.meet is not None:
                self.meet.wait()
            yield
        finally:
            with self.lock:
                self.in_use[device] -= 1


class FakeWorker:
    """Trains nothing, on the device that it is told. Blocks until it is closed if the training's seed is 99."""

    def __init__(self, cards, name, log, *, idle_timeout_s, environment):
        self.cards, self.name, self.is_closed = cards, name, threading.Event()

    def call(self, function, arguments, emit):
        name = function.partition(":")[2]
        if name == "check_timm_names":
            raise UsageError("timm has no such network")
        if name == "prepare_proxy":
            return {"facts": {"device": arguments["device"]}}
        if name != "score_network":
            return {"params": 1, "macs": 2, "n_images": 3}
        with self.cards.use(arguments["device"], "score"):
            if arguments["seed"] == 99:
                self.is_closed.wait()
                raise WorkerDiedError("closed in mid-call")
            if self.cards.dying[arguments["device"]]:
                self.cards.dying[arguments["device"]] -= 1
                raise WorkerDiedError("it was killed by signal 9")
            return {"score": vars(build_score(device=arguments["device"])), "further": []}

    def close(self):
        self.is_closed.set()


class FakeRuler:
    """Times nothing, on the device that it read last."""

    def __init__(self, cards, log, *, purpose, idle_timeout_s, env, sleep):
        self.cards, self.log, self.device, self.is_closed = cards, log, None, False

    def read_device(self, device, emit):
        self.device = device or "cuda:0"
        if self.device not in self.cards.identities:
            raise DeviceError(f"this machine has no device {device}")
        return self.device, self.cards.identities[self.device], None

    def list_cuda(self, emit):
        return list(self.cards.identities)

    def calibrate(self, condition, emit, *, seconds):
        with self.cards.use(self.device, "time"):
            return build_calibration(device=self.cards.identities[self.device])

    def measure(self, entrant, calibration, emit, *, rivals=None, seconds_each=None):
        with self.cards.use(self.device, "time"):
            return build_measurement(condition=CONDITION, device=self.cards.identities[self.device])

    def measure_cohort(self, entrants, emit, **options):
        with self.cards.use(self.device, "time"):
            return Cohort(measurements={name: build_measurement() for name in entrants}, failures={})

    def close(self):
        self.is_closed = True


class Desk:
    """An evaluator of this machine with fake GPUs, and the workers that it made."""

    def __init__(self, path, cards=None, **options):
        self.cards, self.workers, self.rulers = cards or Cards(), [], []

        def start_worker(*arguments, **fields):
            self.workers.append(FakeWorker(self.cards, *arguments, **fields))
            return self.workers[-1]

        def start_ruler(*arguments, **fields):
            self.rulers.append(FakeRuler(self.cards, *arguments, **fields))
            return self.rulers[-1]

        self.evaluator = LocalEvaluator(
            path, purpose="a test", start_worker=start_worker, start_ruler=start_ruler, **options
        )

    def run(self, task, emit=ignore):
        return run_task(self.evaluator, task, emit)

    def prepare(self, target=BOTH):
        """Returns a reference to images, after the target was inspected."""
        self.run(Inspect(target=target))
        return self.run(Prepare(images={"source": "digits"})).reference


def run_all(evaluator, tasks, emit=ignore):
    """Runs tasks, as many at once as there are slots for timings; returns their results in order."""
    results, queue = {}, list(enumerate(tasks))

    def steps(number, task):
        results[number] = yield task

    drive(lambda: steps(*queue.pop(0)) if queue else None, evaluator, emit, at_once=evaluator.slots("time"))
    return [results[number] for number in range(len(tasks))]


def test_an_evaluator_with_two_gpus_keeps_what_every_evaluator_promises(tmp_path):
    desk = Desk(tmp_path)
    data = desk.prepare()
    check_evaluator(
        desk.evaluator, [timing("a", "b"), scoring(data), COUNT, timing("a"), Inspect(target=BOTH)], REFUSED
    )
    assert desk.cards.clashes == []


def test_each_gpu_runs_one_task_at_a_time_and_both_time_and_train_at_once(tmp_path):
    cards = Cards(meet=threading.Barrier(2, timeout=30))
    desk = Desk(tmp_path, cards)
    data = desk.prepare()
    run_all(desk.evaluator, [timing("a"), timing("b"), timing("a", "b"), *(scoring(data, seed) for seed in range(5))])
    assert (cards.clashes, cards.most) == ([], 2)
    assert {*cards.uses[:2]} == {("cuda:0", "time"), ("cuda:1", "time")}
    assert collections.Counter(device for device, _ in cards.uses) == {"cuda:0": 4, "cuda:1": 4}
    desk.evaluator.close()


def test_each_gpu_has_workers_and_logs_of_its_own(tmp_path):
    desk = Desk(tmp_path, Cards(meet=threading.Barrier(2, timeout=30)))
    data = desk.prepare()
    run_all(desk.evaluator, [timing("a"), timing("b"), scoring(data, 0), scoring(data, 1)])
    assert [worker.name for worker in desk.workers] == ["training", "training-cuda1"]
    assert [ruler.log.name for ruler in desk.rulers] == ["timing.log", "timing-cuda1.log"]
    assert [ruler.device for ruler in desk.rulers] == ["cuda:0", "cuda:1"]


def test_a_further_target_has_a_timing_process_that_keeps_its_reference(tmp_path):
    desk = Desk(tmp_path, Cards("Test GPU", "Other GPU"))
    for name in ("cuda:1", "cuda:0"):  # the objective's target last
        desk.run(Inspect(target=name))
    for name in ("cuda:0", "cuda:1", "cuda:0", "cuda:1"):
        found = desk.run(timing("a", target=name)).measurements["a"]
        assert found.device == desk.cards.identities[name]
    assert [ruler.log.name for ruler in desk.rulers] == ["timing.log", "timing-cuda1.log"]
    assert [ruler.device for ruler in desk.rulers] == ["cuda:0", "cuda:1"]


def test_a_look_at_the_load_of_a_device_leaves_the_slots_of_the_target(tmp_path):
    desk = Desk(tmp_path, Cards("Test GPU", "Test GPU", "Other GPU"))
    desk.run(Inspect(target=BOTH))
    desk.run(Inspect(target="cuda:2", watch=CONDITION))
    fake = FakeEvaluator(cards=3)
    run_task(fake, Inspect(target=BOTH), ignore)
    run_task(fake, Inspect(target="cuda:2", watch=CONDITION), ignore)
    assert [evaluator.slots("time") for evaluator in (desk.evaluator, fake)] == [2, 2]


def test_a_measurement_and_a_score_name_the_gpu_that_they_come_from(tmp_path):
    desk = Desk(tmp_path, Cards(meet=threading.Barrier(2, timeout=30)))
    data = desk.prepare()
    timings = run_all(desk.evaluator, [timing("a"), timing("a")])
    assert sorted(own.measurements["a"].device.serial for own in timings) == ["GPU-0", "GPU-1"]
    assert sorted(own.score.device for own in run_all(desk.evaluator, [scoring(data), scoring(data)])) == [
        "cuda:0",
        "cuda:1",
    ]


def test_a_worker_that_dies_on_one_gpu_leaves_the_other_alone(tmp_path):
    desk, events = Desk(tmp_path, Cards(dying={"cuda:1": 1})), []
    data = desk.prepare()
    found = run_all(desk.evaluator, [scoring(data, seed) for seed in range(6)], events.append)
    assert len(found) == 6
    (notice,) = [event for event in events if isinstance(event, Notice)]
    assert notice.text.startswith("it was killed by signal 9. ")
    assert collections.Counter(device for device, _ in desk.cards.uses).keys() == {"cuda:0", "cuda:1"}
    assert not desk.workers[0].is_closed.is_set()


def test_cancelling_a_task_on_one_gpu_leaves_the_other_alone(tmp_path):
    desk = Desk(tmp_path)
    data = desk.prepare()
    stuck, fine = desk.evaluator.submit(scoring(data, 99)), desk.evaluator.submit(scoring(data, 1))
    assert {message.id for message in desk.evaluator.wait()} == {fine}
    assert wait_for(lambda: ("cuda:0", "score") in desk.cards.uses)
    desk.evaluator.cancel(stuck)
    assert [worker.is_closed.is_set() for worker in desk.workers] == [True, False]


def test_closing_ends_the_workers_and_threads_of_all_gpus(tmp_path):
    before = set(threading.enumerate())
    desk = Desk(tmp_path)
    data = desk.prepare()
    run_all(desk.evaluator, [timing("a"), timing("b")])
    for _ in range(4):
        desk.evaluator.submit(scoring(data, 99))
    assert wait_for(lambda: desk.cards.most == 2)
    desk.evaluator.close()
    assert all(worker.is_closed.is_set() for worker in desk.workers)
    assert all(ruler.is_closed for ruler in desk.rulers)
    assert wait_for(lambda: set(threading.enumerate()) <= before)
    assert desk.evaluator.wait(0.0) == []


def test_what_needs_no_gpu_of_its_own_runs_beside_a_training(tmp_path):
    desk = Desk(tmp_path)
    data = desk.prepare()
    stuck = desk.evaluator.submit(scoring(data, 99))
    counted = desk.evaluator.submit(COUNT)
    assert {message.id for message in desk.evaluator.wait()} == {counted}
    desk.evaluator.cancel(stuck)


def test_a_proxy_is_prepared_on_the_first_gpu(tmp_path):
    desk = Desk(tmp_path)
    desk.run(Inspect(target=BOTH))
    assert desk.run(Prepare(proxy=PLAN, target=BOTH)).facts == {"device": "cuda:0"}


def test_several_networks_together_end_the_training_worker_of_their_gpu_alone(tmp_path):
    desk = Desk(tmp_path)
    data = desk.prepare()
    run_all(desk.evaluator, [scoring(data, 0), scoring(data, 1)])
    desk.run(timing("a", "b", target="cuda:1"))
    assert [worker.is_closed.is_set() for worker in desk.workers] == [False, True]


def test_slots_are_those_of_the_target_that_was_inspected_last(tmp_path):
    evaluator = Desk(tmp_path).evaluator

    def slots():
        return [evaluator.slots(kind) for kind in ("time", "score", "count", "inspect", "prepare")]

    assert slots() == [1] * 5
    run_task(evaluator, Inspect(target=BOTH), ignore)
    assert slots() == [2, 2, 2, 1, 1]
    run_task(evaluator, Inspect(target="cuda:1"), ignore)
    assert slots() == [1] * 5
    assert [report.target for report in evaluator.devices()] == ["cuda:0", "cuda:1"]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_all_gpus_of_a_machine_can_be_asked_for(tmp_path, count):
    names = ",".join(f"cuda:{i}" for i in range(count))
    for evaluator in (Desk(tmp_path, Cards(*["Test GPU"] * count)).evaluator, FakeEvaluator(cards=count)):
        assert run_task(evaluator, Inspect(target="cuda:all"), ignore).target == names
        assert evaluator.slots("time") == count


def test_gpus_that_differ_are_refused_as_one_target(tmp_path):
    evaluator = Desk(tmp_path, Cards("Test GPU", "Other GPU")).evaluator
    with pytest.raises(DeviceError, match=r"cuda:0 and cuda:1 differ in model: Test GPU and Other GPU\. Use one"):
        run_task(evaluator, Inspect(target=BOTH), ignore)
    assert run_task(evaluator, Inspect(target="cuda:1"), ignore).identity.model == "Other GPU"


def test_two_names_of_one_gpu_are_refused(tmp_path):
    cards = Cards()
    cards.identities["cuda:1"] = cards.identities["cuda:0"]
    with pytest.raises(DeviceError, match=r"must be different ones, but cuda:1 is cuda:0 \(GPU-0\)"):
        Desk(tmp_path, cards).run(Inspect(target=BOTH))


def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DeviceError, match="this machine has no device cuda:2"):
        Desk(tmp_path).run(Inspect(target="cuda:0,cuda:2"))


def test_the_fake_evaluator_runs_one_task_per_device_at_a_time_too():
    evaluator = FakeEvaluator(cards=3)
    run_task(evaluator, Inspect(target="cuda:0,cuda:1,cuda:2"), ignore)
    run_all(evaluator, [timing("a", target="cuda:0,cuda:1,cuda:2") for _ in range(12)])
    runs = [run for run in evaluator.runs if run.task.kind == "time"]
    assert {run.device for run in runs} == {"cuda:0", "cuda:1", "cuda:2"}
    assert overlaps(runs, same_device=True) == []
    assert overlaps(runs, same_device=False)


def overlaps(runs, *, same_device):
    """Pairs of tasks that ran at the same time."""
    return [
        (one, other)
        for i, one in enumerate(runs)
        for other in runs[:i]
        if (one.device == other.device) == same_device and one.begins < other.ends and other.begins < one.ends
    ]


def test_the_fake_evaluator_with_two_gpus_keeps_what_every_evaluator_promises():
    class Refusing(FakeAnswers):
        def __call__(self, task):
            if task == REFUSED:
                raise UsageError("timm has no such network")
            return super().__call__(task)

    evaluator = FakeEvaluator(Refusing())
    run_task(evaluator, Inspect(target=BOTH), ignore)
    check_evaluator(evaluator, [timing("a", "b"), scoring("data"), COUNT, timing("a")], REFUSED)


class RealWorker:
    """A worker process whose trainings never end."""

    def __init__(self, folder, name, log, **options):
        self.worker, self.pid_file = Worker(name, log, **options), folder / f"{name}.pid"

    def call(self, function, arguments, emit):
        if function.endswith(":score_network"):
            return self.worker.call("worker_tasks:hang", {"pid_file": str(self.pid_file)}, emit)
        return {"n_images": 3}

    def close(self):
        self.worker.close()


def test_an_interrupt_leaves_no_worker_process_of_any_gpu(tmp_path):
    cards = Cards()
    evaluator = LocalEvaluator(
        tmp_path,
        purpose="a test",
        start_worker=lambda *arguments, **options: RealWorker(tmp_path, *arguments, **options),
        start_ruler=lambda *arguments, **options: FakeRuler(cards, *arguments, **options),
    )
    pid_files = [tmp_path / "training.pid", tmp_path / "training-cuda1.pid"]
    run_task(evaluator, Inspect(target=BOTH), ignore)
    data = run_task(evaluator, Prepare(images={"source": "digits"}), ignore).reference

    class Interrupted:
        """Passes all on, and is interrupted while both workers are busy."""

        def __getattr__(self, name):
            return getattr(evaluator, name)

        def wait(self, timeout=None):
            assert wait_for(lambda: all(path.exists() and path.read_text() for path in pid_files))
            raise KeyboardInterrupt

    queue = [scoring(data, 0), scoring(data, 1)]

    def steps(task):
        yield task

    with pytest.raises(KeyboardInterrupt):
        drive(lambda: steps(queue.pop(0)) if queue else None, Interrupted(), ignore, at_once=2)
    pids = [int(path.read_text()) for path in pid_files]
    assert len({*pids}) == 2
    assert wait_for(lambda: not any(map(is_alive, pids)))
    evaluator.close()


def test_a_training_goes_on_from_its_checkpoint_on_the_gpu_that_is_free(tmp_path):
    seen = []

    class Listening(FakeWorker):
        def call(self, function, arguments, emit):
            if function.endswith(":score_network"):
                seen.append((arguments["device"], arguments["checkpoint"]))
            return super().call(function, arguments, emit)

    cards = Cards()
    evaluator = LocalEvaluator(
        tmp_path,
        purpose="a test",
        checkpoints=tmp_path / "checkpoints",
        start_worker=lambda *arguments, **options: Listening(cards, *arguments, **options),
        start_ruler=lambda *arguments, **options: FakeRuler(cards, *arguments, **options),
    )
    run_task(evaluator, Inspect(target=BOTH), ignore)
    data = run_task(evaluator, Prepare(images={"source": "digits"}), ignore).reference
    task = dataclasses.replace(scoring(data), checkpoint="0123456789ab-0")
    run_task(evaluator, task, ignore)
    stuck = evaluator.submit(scoring(data, 99))
    evaluator.submit(task)
    evaluator.wait()
    evaluator.cancel(stuck)
    assert [device for device, path in seen if path] == ["cuda:0", "cuda:1"]
    assert len({path for _, path in seen if path}) == 1


def is_free(device, *, alone):
    """Returns True where another process could have the device now."""

    def stop(seconds):
        raise TimeoutError

    try:
        with hold([Claim(device=device, alone=alone)], "another process", ignore, sleep=stop):
            return True
    except TimeoutError:
        return False


def test_timings_of_two_gpus_hold_both_locks_at_once_and_keep_timings_off_the_cpu(tmp_path):
    cards, free = Cards(meet=threading.Barrier(2, timeout=30)), []
    looked = threading.Barrier(2, timeout=30)

    class TimingWorker:
        """A worker of a real ruler."""

        def __init__(self, name, log, **options):
            pass

        def call(self, function, arguments, emit):
            if function.endswith(":read_device"):
                device = arguments["device"]
                return {"device": device, "identity": vars(cards.identities[device]), "threads": None}
            with cards.use(arguments["target"], "time"):
                if arguments["target"] == "cuda:0":
                    free.extend(is_free(device, alone=False) for device in ("GPU-0", "GPU-1", "cpu"))
                    free.append(is_free("cpu", alone=True))
                looked.wait()
                return to_plain(build_calibration(device=cards.identities[arguments["target"]]))

        def close(self):
            pass

    evaluator = LocalEvaluator(
        tmp_path,
        purpose="a test",
        start_worker=lambda *arguments, **options: FakeWorker(cards, *arguments, **options),
        start_ruler=functools.partial(Ruler, make_worker=TimingWorker),
    )
    run_task(evaluator, Inspect(target=BOTH), ignore)
    run_all(evaluator, [Time(condition=CONDITION, target=BOTH) for _ in range(2)])
    assert (cards.clashes, cards.most) == ([], 2)
    assert free == [False, False, True, False]
    assert all(is_free(device, alone=True) for device in ("GPU-0", "GPU-1", "cpu"))
    evaluator.close()


def test_a_machine_without_a_gpu_says_so(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with LocalEvaluator(tmp_path, purpose="a test") as evaluator:
        for target in ("cuda:all", BOTH):
            with pytest.raises(DeviceError, match=r"this machine has no device cuda(:0)? \(torch"):
                run_task(evaluator, Inspect(target=target), ignore)
