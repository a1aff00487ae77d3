"""Evaluator of this machine, and a worker for benchmarks without tasks. All worker processes are started here."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import itertools
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hilo_nas.arch.cost import NetworkCost
from hilo_nas.data.set_uses import SetUse
from hilo_nas.errors import NoCheckpointError, NotEnoughMemoryError, OutOfMemoryError
from hilo_nas.evaluation.checkpoint_files import CheckpointFiles
from hilo_nas.evaluation.cluster_options import ClusterOptions
from hilo_nas.evaluation.lanes import CancelledTaskError, Job, Lane, WorkerLike
from hilo_nas.evaluation.protocol import Evaluator, Failed, Finished, Message, Progress, blame_of
from hilo_nas.evaluation.targets import join_reports
from hilo_nas.evaluation.tasks import (
    Count,
    DeviceReport,
    Inspect,
    Preparation,
    Prepare,
    Score,
    Scoring,
    Task,
    Time,
    Timing,
)
from hilo_nas.events import Emit, Event, Notice
from hilo_nas.measurement import (
    ALL_CUDA,
    Calibration,
    Contention,
    DeviceIdentity,
    Measurement,
    ProxyScore,
    devices_of,
    find_contention,
)
from hilo_nas.measurement.verdicts import verdict_of
from hilo_nas.timing import TUNED_ENVIRONMENT, Claim, Cohort, CpuWatch, Ruler, Worker, claims_of, describe_use, hold

__all__ = [
    "BenchWorker",
    "LocalEvaluator",
    "StartEvaluator",
    "StartWorker",
    "evaluator_or_local",
    "use_evaluator",
]

# Unlike timing workers, training workers return freed memory to the system, so that timings can use it.
_TRAINING_ENVIRONMENT = {"OMP_WAIT_POLICY": TUNED_ENVIRONMENT["OMP_WAIT_POLICY"]}

_CONTENTION_CHECK_S = 0.3
"""Seconds over which the CPU load of other processes is measured."""
_KILL_RETRY_S = 0.05


StartWorker = Callable[..., WorkerLike]
"""Function with the arguments of `Worker`."""


class LocalEvaluator:
    """Evaluator with persistent workers on this machine: one timing worker per environment, and training workers.

    Devices are locked while they are in use. Tasks run one at a time. Only trainings run in parallel if `jobs` is
    greater than 1.

    A target of several devices has its own workers on each device. A task runs on the device with the fewest tasks, and
    each device runs one task at a time. A training may continue on another device than it began on.

    Args:
        logs: Folder for the output of the workers.
        purpose: Purpose of the work, shown to other processes that wait for the device.
        checkpoints: Folder of the checkpoints, or None if trainings are never resumed.
        checkpoint_mib: Disk space in MiB for checkpoints that are not in use.
        idle_timeout_s: Seconds without an event after which a worker counts as hung.
        jobs: Number of parallel trainings on a single device. They share the cores equally. None means one per core on
            a CPU and one on other devices.
        start_worker: Function that creates a training worker.
        start_ruler: Function that creates a timing worker.
    """

    def __init__(
        self,
        logs: Path,
        *,
        purpose: str,
        checkpoints: Path | None = None,
        checkpoint_mib: float = 0.0,
        idle_timeout_s: float = 600.0,
        jobs: int | None = 1,
        start_worker: StartWorker = Worker,
        start_ruler: Callable[..., Ruler] = Ruler,
    ) -> None:
        self._logs, self._purpose, self._idle_timeout_s, self._jobs = logs, purpose, idle_timeout_s, jobs
        self._start_worker, self._start_ruler = start_worker, start_ruler
        self._checkpoints = None if checkpoints is None else CheckpointFiles(checkpoints, budget_mib=checkpoint_mib)
        self._main = self._lane("training", _TRAINING_ENVIRONMENT)
        """Lane of all tasks, or of the first device if there are several."""
        self._rulers = self._main.rulers
        self._scoring: list[Lane] = []
        """Lanes of parallel trainings on a single device."""
        self._devices: dict[str, Lane] = {}
        """Lanes of the devices of targets with several devices, by name."""
        self._target: tuple[str, ...] = ()
        """Names of the devices of the target that was inspected last, without looks at the load (`Inspect.watch`)."""
        self._reports: dict[str, DeviceReport] = {}
        self._prepared: dict[str, Any] = {}
        self._uses: list[SetUse] = []
        """Image sets of the search, which no other process may remove."""
        self._reported_verdicts, self._reporting = {"steady"}, threading.Lock()
        self._ids = itertools.count()
        self._active: dict[str, Job] = {}
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def submit(self, task: Task[Any]) -> str:
        """Queues a task in its lane and returns its id."""
        job = Job(str(next(self._ids)), *self._assign(task))
        self._active[job.id] = job
        job.lane.put(job)
        return job.id

    def wait(self, timeout: float | None = None) -> list[Message]:
        """Returns the messages since the last call, as in `Evaluator.wait`."""
        until = None if timeout is None else time.monotonic() + timeout
        found: list[Message] = []
        while not found:
            try:
                found = [self._messages.get(timeout=None if until is None else max(until - time.monotonic(), 0.0))]
                while True:
                    found.append(self._messages.get_nowait())
            except queue.Empty:
                if not found:
                    return []
            found = [message for message in found if message.id in self._active]
        for message in found:
            if not isinstance(message, Progress):
                del self._active[message.id]
        return found

    def cancel(self, id: str) -> None:
        """Ends a task. If it is running, the processes of its lane are closed."""
        job = self._active.pop(id, None)
        if job is None:
            return
        job.is_cancelled.set()
        if job.has_begun.is_set():
            job.lane.close_workers()
            while not job.is_over.wait(_KILL_RETRY_S):  # a process may have started in the meantime
                job.lane.close_workers()

    def slots(self, kind: str) -> int:
        """Returns the number of parallel tasks of a kind.

        It is the number of devices for a target of several devices. Otherwise, it is `jobs` for scores and 1 for other
        kinds.
        """
        if len(self._target) > 1:
            return len(self._target) if kind in (Count.kind, Time.kind, Score.kind) else 1
        if kind != Score.kind:
            return 1
        if self._jobs is None:
            is_cpu = all(report.identity.kind == "cpu" for report in self._reports.values())
            return (os.cpu_count() or 1) if is_cpu else 1
        return self._jobs

    def devices(self) -> list[DeviceReport]:
        """Returns the reports of the devices that were inspected so far."""
        return list(self._reports.values())

    def discard(self, references: Iterable[str]) -> None:
        """Removes checkpoint files in the given order until the remaining ones fit `checkpoint_mib`."""
        if self._checkpoints is not None:
            self._checkpoints.discard(references)

    @property
    def prepared(self) -> Mapping[str, Any]:
        """Prepared objects as plain data by `Preparation.reference`, for `adopt` of another evaluator."""
        return self._prepared

    def adopt(self, prepared: Any) -> str:
        """Adds a prepared object of another evaluator and returns its reference for tasks of this one.

        Args:
            prepared: A value of `prepared`. The folders of its image sets must exist on this machine.
        """
        return self._keep(prepared)

    def close(self) -> None:
        """Cancels all tasks and ends all processes and threads."""
        for job in self._active.values():
            job.is_cancelled.set()
        for id in list(self._active):
            self.cancel(id)
        for lane in dict.fromkeys((self._main, *self._scoring, *self._devices.values())):
            lane.close_workers()
            lane.end()
        for use in self._uses:
            use.close()

    def __enter__(self) -> LocalEvaluator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lane(self, name: str, environment: Mapping[str, str], *, suffix: str = "") -> Lane:
        log = self._logs / f"{name}.log"
        worker = self._start_worker(name, log, idle_timeout_s=self._idle_timeout_s, environment=environment)
        return Lane(worker, self._do, suffix=suffix)

    def _lane_on(self, device: str) -> Lane:
        """Returns the lane of one of several devices. The first device uses the main lane."""
        if device not in self._devices:
            suffix = f"-{device.replace(':', '')}"
            self._devices[device] = (
                self._lane(f"training{suffix}", _TRAINING_ENVIRONMENT, suffix=suffix) if self._devices else self._main
            )
        return self._devices[device]

    def _assign(self, task: Task[Any]) -> tuple[Task[Any], Lane]:
        """Returns a task for a single device, and the lane that runs it."""
        if isinstance(task, Prepare | Time | Score) and task.target is not None:
            devices = devices_of(task.target)
            if len(devices) > 1 and isinstance(task, Prepare):
                return dataclasses.replace(task, target=devices[0]), self._main
            if len(devices) > 1 or devices[0] in self._devices:
                lanes = {device: self._lane_on(device) for device in devices}
                chosen = min(devices, key=lambda device: self._load(lanes[device]))
                return dataclasses.replace(task, target=chosen), lanes[chosen]
        if isinstance(task, Count) and len(self._target) > 1:
            return task, min(map(self._lane_on, self._target), key=self._load)
        if isinstance(task, Score) and self._jobs != 1:
            return task, self._scoring_lane()
        return task, self._main

    def _scoring_lane(self) -> Lane:
        """Returns the lane for the next of several parallel trainings on a single device."""
        if not self._scoring:
            count = self.slots(Score.kind)
            share = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count))}
            self._scoring = [self._lane(f"training-{i}", {**_TRAINING_ENVIRONMENT, **share}) for i in range(count)]
        return min(self._scoring, key=self._load)

    def _load(self, lane: Lane) -> int:
        """Returns the number of tasks of a lane that have not ended."""
        return sum(job.lane is lane for job in self._active.values())

    def _do(self, job: Job) -> None:
        """Runs a task in the thread of its lane. Each outcome becomes a message."""
        start = time.monotonic()
        device = job.task.target if isinstance(job.task, Inspect | Time | Score) else None
        if device is not None and (device == ALL_CUDA or len(devices_of(device)) > 1):
            device = None  # the inspection of several devices

        def emit(event: Event) -> None:
            job.check()
            self._messages.put(Progress(id=job.id, event=event))

        try:
            job.check()
            result = self._result_of(job, emit)
        except CancelledTaskError:
            return
        except Exception as error:
            blame = blame_of(error)
            if blame == "worker_lost" and isinstance(job.task, Time | Inspect):
                blame = "subject"  # the timing worker has already repeated the task
            seconds = time.monotonic() - start
            self._messages.put(Failed(id=job.id, error=error, blame=blame, seconds=seconds, device=device))
            return
        self._messages.put(Finished(id=job.id, result=result, seconds=time.monotonic() - start, device=device))

    def _result_of(self, job: Job, emit: Emit) -> Any:
        match job.task:
            case Inspect() as task:
                return self._inspect(task, job, emit)
            case Prepare() as task:
                return self._prepare(task, job.lane.worker, emit)
            case Count() as task:
                function, arguments = "hilo_nas.models.macs:count_subject", dataclasses.asdict(task)
                with hold([Claim(device="cpu", alone=False)], f"counting for {self._purpose}", emit, sleep=job.sleep):
                    found = job.lane.worker.call(function, arguments, emit)
                return NetworkCost(parameters=found["params"], macs=found["macs"])
            case Time() as task:
                return self._time(task, job.lane, emit)
            case Score() as task:
                return self._score(task, job, emit)
            case task:
                raise AssertionError(f"unknown kind of task: {task}")

    def _ruler(self, lane: Lane, env: str, target: str | None, emit: Emit) -> Ruler:
        """Returns a lane's timing worker of an environment (`Condition.env`), and starts it on first use.

        A device outside the target that was inspected last has its own, so that both keep the reference in memory.
        """
        further = f"-{target.replace(':', '')}" if target and self._target and target not in self._target else ""
        key = env + further
        if key not in lane.rulers:
            name = ("timing" if env == "tuned" else f"timing-{env}") + further
            lane.rulers[key] = self._start_ruler(
                self._logs / f"{name}{lane.suffix}.log",
                purpose=self._purpose,
                idle_timeout_s=self._idle_timeout_s,
                env=env,
                sleep=lane.sleep,
            )
        if target is not None:
            lane.rulers[key].read_device(target, emit)
        return lane.rulers[key]

    def _inspect(self, task: Inspect, job: Job, emit: Emit) -> DeviceReport:
        reports = [self._report(name, job.lane, emit) for name in self._list_devices(task.target, job.lane, emit)]
        first, report = reports[0], join_reports(reports)
        if task.watch is None:
            self._target = devices_of(report.target)
            for device in self._target if len(self._target) > 1 else ():
                self._lane_on(device)
        forms = {
            condition.label(): self._ruler(job.lane, condition.env, first.target, emit).read_form(condition, emit)
            for condition in task.forms
        }
        contention: Contention | None = None
        if task.watch is not None:
            watch = CpuWatch()
            job.sleep(_CONTENTION_CHECK_S)
            contention = find_contention(watch.read(), threads=task.watch.threads, device=report.identity)
        return dataclasses.replace(report, forms=forms, contention=contention)

    def _list_devices(self, target: str | None, lane: Lane, emit: Emit) -> Sequence[str | None]:
        if target is None:
            return (None,)
        if target == ALL_CUDA:
            return self._ruler(lane, "tuned", None, emit).list_cuda(emit)
        return devices_of(target)

    def _report(self, target: str | None, lane: Lane, emit: Emit) -> DeviceReport:
        """Returns the report of a device, which is read once."""
        if target is None or target not in self._reports:
            ruler = self._ruler(lane, "tuned", None, emit)
            name, identity, threads = ruler.read_device(target, emit)
            self._reports[target or name] = DeviceReport(target=name, identity=identity, threads=threads)
            target = target or name
            if use := describe_use(identity):
                emit(Notice(level="warning", text=f"{name}: {use}"))
        return self._reports[target]

    def _prepare(self, task: Prepare, worker: WorkerLike, emit: Emit) -> Preparation:
        if task.images is not None:
            described = worker.call("hilo_nas.data.prepared_images:describe_data", task.images, emit)
            self._uses += [SetUse(Path(described[name])) for name in ("path", "val_path") if described.get(name)]
            facts = {name: value for name, value in described.items() if name != "path"}
            return Preparation(reference=self._keep(described), facts=facts)
        if task.proxy is not None:
            arguments = {
                "plan": task.proxy.to_dict(),
                "data": None if task.data is None else self._prepared[task.data],
                "device": task.target,
                "source": task.source,
            }
            prepared = worker.call("hilo_nas.proxy.worker_calls:prepare_proxy", arguments, emit)
            return Preparation(reference=self._keep(prepared), facts=prepared["facts"])
        if task.sheet is not None:
            arguments = {"data": self._prepared[task.sheet], "group_by": task.group_by}
            return Preparation(reference=None, facts=worker.call("hilo_nas.data.sheet:encode_sheet", arguments, emit))
        worker.call("hilo_nas.models.subjects:check_timm_names", {"names": list(task.timm_names)}, emit)
        return Preparation(reference=None, facts={})

    def _keep(self, value: Any) -> str:
        reference = f"prepared-{len(self._prepared)}"
        self._prepared[reference] = value
        return reference

    def _time(self, task: Time, lane: Lane, emit: Emit) -> Timing:
        ruler = self._ruler(lane, task.condition.env, task.target, emit)
        if not task.entries:
            return Timing(calibration=ruler.calibrate(task.condition, emit, seconds=task.seconds))
        if len(task.entries) == 1 and task.calibration is not None and not task.is_brief:
            return Timing(measurements=self._time_one(task, task.calibration, ruler, lane, emit))
        if not task.is_brief:  # a new training worker takes longer than a brief timing
            self._close_training_workers(lane)
        cohort = self._time_cohort(task, ruler, emit)
        if task.is_brief and any(isinstance(error, OutOfMemoryError) for error in cohort.failures.values()):
            self._close_training_workers(lane)  # they may hold memory, so the networks are timed again without them
            cohort = self._time_cohort(task, ruler, emit)
        return Timing(measurements=cohort.measurements, failures=cohort.failures)

    @staticmethod
    def _time_cohort(task: Time, ruler: Ruler, emit: Emit) -> Cohort:
        return ruler.measure_cohort(
            task.entries,
            emit,
            calibration=task.calibration,
            reference=task.reference,
            seconds_each=task.seconds,
            is_brief=task.is_brief,
        )

    def _time_one(
        self, task: Time, calibration: Calibration, ruler: Ruler, lane: Lane, emit: Emit
    ) -> dict[str, Measurement]:
        ((name, entrant),) = task.entries.items()
        try:
            measurement = ruler.measure(entrant, calibration, emit, rivals=task.rivals, seconds_each=task.seconds)
            self._warn_about_verdict(name, measurement, emit)
            return {name: measurement}
        except OutOfMemoryError:
            self._close_training_workers(lane)  # they may hold memory, so the network is timed again without them
        try:
            return {name: ruler.measure(entrant, calibration, emit, seconds_each=task.seconds)}
        except OutOfMemoryError as error:
            raise NotEnoughMemoryError(str(error)) from error

    def _close_training_workers(self, lane: Lane) -> None:
        """Ends the training processes of a lane's device as soon as they are idle, because they may hold its memory."""
        lane.worker.close()
        for other in self._scoring:
            with other.in_use:
                other.worker.close()

    def _warn_about_verdict(self, name: str, measurement: Measurement, emit: Emit) -> None:
        """Emits a warning about each verdict once, and about each contended timing with the processes that cause it."""
        judgement = verdict_of(measurement)
        if judgement is None or judgement.verdict in self._reported_verdicts:
            return  # most timings
        if judgement.verdict == "contended":
            text = f"the timing of {name.removeprefix('timm:')} is contended: {judgement.text}"
            emit(Notice(level="warning", text=text))
            return
        with self._reporting:
            is_new = judgement.verdict not in self._reported_verdicts
            self._reported_verdicts.add(judgement.verdict)
        if is_new:
            emit(Notice(level="warning", text=judgement.text))

    def _score(self, task: Score, job: Job, emit: Emit) -> Scoring:
        path = None
        if task.checkpoint is not None and self._checkpoints is not None:
            path = self._checkpoints.path_of(task.checkpoint)
        if task.must_resume and not (path and path.is_file()):
            raise NoCheckpointError(f"the training must resume, but no checkpoint {task.checkpoint} is stored")
        claims = claims_of(self._identity(task.target, job, emit), timing=False)
        arguments = {
            "subject": task.subject,
            "plan": task.plan.to_dict(),
            "data": self._prepared[task.data],
            "prepared": {} if task.prepared is None else self._prepared[task.prepared],
            "seed": task.seed,
            "device": task.target,
            "until": task.until,
            "checkpoint": None if path is None else str(path),
            "score_under": list(task.score_under),
        }
        with hold(claims, f"training for {self._purpose}", emit, sleep=job.sleep):
            if job.lane in self._scoring and self._main.in_use.acquire(blocking=False):
                try:
                    self._main.close_workers()  # frees its memory for the parallel trainings
                finally:
                    self._main.in_use.release()
            found = job.lane.worker.call("hilo_nas.proxy.worker_calls:score_network", arguments, emit)
        return Scoring(
            score=ProxyScore.from_dict(found["score"]),
            checkpoint=None if path is None else task.checkpoint,
            further=tuple(ProxyScore.from_dict(item) for item in found["further"]),
        )

    def _identity(self, target: str, job: Job, emit: Emit) -> DeviceIdentity:
        if target not in self._reports and job.lane in self._scoring:
            found = job.lane.worker.call("hilo_nas.timing.device:read_device", {"device": target}, emit)
            return DeviceIdentity(**found["identity"])
        return self._report(target, job.lane, emit).identity


class BenchWorker:
    """Worker of this machine for benchmarks that do not use tasks of an evaluator. The first call starts it.

    Args:
        log: File for the output of the worker.
        purpose: Purpose of the work, shown to other processes that wait for the device.
        idle_timeout_s: Seconds without an event after which the worker counts as hung.
    """

    def __init__(self, log: Path, *, purpose: str, idle_timeout_s: float = 600.0) -> None:
        self._purpose = purpose
        self._worker = Worker(log.stem, log, idle_timeout_s=idle_timeout_s, environment=_TRAINING_ENVIRONMENT)

    def call(
        self,
        function: str,
        arguments: Mapping[str, Any],
        emit: Emit,
        *,
        device: DeviceIdentity | None = None,
        timing: bool = False,
    ) -> Any:
        """Returns the result of a function that runs in the worker.

        Args:
            function: The function, as `module:function`.
            arguments: Keyword arguments of the function, as plain data.
            emit: Receives the events of the function.
            device: Device that the function uses. It is locked during the call. None if the function uses no device.
            timing: True if the device must be idle apart from this call.

        Raises:
            HiloNasError: The function or the worker failed, as documented by `hilo_nas.timing.Worker.call`.
        """
        claims = [] if device is None else claims_of(device, timing=timing)
        with hold(claims, self._purpose, emit):
            return self._worker.call(function, arguments, emit)

    def __enter__(self) -> BenchWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.close()


StartEvaluator = Callable[..., Evaluator]
"""Function with the arguments of `LocalEvaluator`."""

_START: contextvars.ContextVar[StartEvaluator] = contextvars.ContextVar("start_evaluator", default=LocalEvaluator)


@contextlib.contextmanager
def use_evaluator(start: StartEvaluator) -> Iterator[None]:
    """Returns a context that replaces `LocalEvaluator`, also for CLI commands. Intended for tests and notebooks.

    Examples:
        `with use_evaluator(lambda logs, **options: FakeEvaluator()): run_search(request, print)`

    Args:
        start: Function that creates an evaluator instead of a `LocalEvaluator`. Each evaluator is closed after use.
    """
    token = _START.set(start)
    try:
        yield
    finally:
        _START.reset(token)


@contextlib.contextmanager
def evaluator_or_local(
    evaluator: Evaluator | None,
    logs: Path,
    *,
    purpose: str,
    idle_timeout_s: float = 600.0,
    checkpoints: Path | None = None,
    checkpoint_mib: float = 0.0,
    jobs: int | None = 1,
    cluster: ClusterOptions | None = None,
) -> Iterator[Evaluator]:
    """Yields the given evaluator, or a new `LocalEvaluator`, which is closed at the end.

    With `cluster`, the new evaluator is that of a Ray cluster. The other arguments are those of `LocalEvaluator`.
    `use_evaluator` replaces the new evaluator by another one.
    """
    if evaluator is not None:
        yield evaluator
        return
    if cluster is not None and _START.get() is LocalEvaluator:
        from hilo_nas.evaluation.ray import start_ray_evaluator

        there = start_ray_evaluator(
            cluster,
            logs,
            purpose=purpose,
            checkpoints=checkpoints,
            checkpoint_mib=checkpoint_mib,
            idle_timeout_s=idle_timeout_s,
        )
        with contextlib.closing(there):
            yield there
        return
    local = _START.get()(
        logs,
        purpose=purpose,
        checkpoints=checkpoints,
        checkpoint_mib=checkpoint_mib,
        idle_timeout_s=idle_timeout_s,
        jobs=jobs,
    )
    with contextlib.closing(local):
        yield local
