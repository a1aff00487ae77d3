"""Fake evaluator with a fake clock, and the conformance test for evaluators."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any

from hilo_nas.arch.cost import NetworkCost
from hilo_nas.errors import HiloNasError, NoCheckpointError, WorkerHungError
from hilo_nas.evaluation import (
    Count,
    DeviceReport,
    Evaluator,
    Failed,
    Finished,
    Inspect,
    Message,
    Preparation,
    Prepare,
    Progress,
    Score,
    Scoring,
    Task,
    Time,
    Timing,
    blame_of,
    task_from_dict,
)
from hilo_nas.evaluation.targets import join_reports
from hilo_nas.events import Event, RoundTimed, TrainingProgressed
from hilo_nas.measurement import (
    ALL_CUDA,
    Calibration,
    DeviceIdentity,
    Measurement,
    ProxyScore,
    devices_of,
    kind_of_device,
)

__all__ = ["FakeAnswers", "FakeEvaluator", "FakeRun", "HangsError", "check_evaluator"]

_NOW = "2026-01-01T00:00:00+00:00"


class HangsError(Exception):
    """Raised by `FakeEvaluator.answers` to make a task hang until its idle timeout or until it is cancelled."""


class FakeAnswers:
    """Deterministic results: equal tasks get equal results.

    Args:
        value_of: Returns the proxy value of a network (`Score.subject`) at the full budget. The default is a hash of
            the network between 0 and 1.
        speed_of: Returns the images/s of a network. The default is a hash of the network between 100 and 1,000.
    """

    def __init__(
        self,
        value_of: Callable[[Mapping[str, Any]], float] | None = None,
        speed_of: Callable[[Mapping[str, Any]], float] | None = None,
    ) -> None:
        self._value_of = value_of or (lambda subject: _hash_fraction(subject, "value"))
        self._speed_of = speed_of or (lambda subject: 100 + 900 * _hash_fraction(subject, "speed"))
        self.identity = DeviceIdentity(kind="cpu", model="fake, 2 cores", driver="1", torch="2", serial="fake")
        self.kept: set[str] = set()
        """References of stored checkpoints."""

    def __call__(self, task: Task[Any]) -> Any:
        """Returns the result of a task.

        Raises:
            NoCheckpointError: The task must resume from a checkpoint that is not stored.
        """
        match task:
            case Inspect():
                forms = {condition.label(): "fake" for condition in task.forms}
                target = task.target or "cpu"
                identity = self.identity_of(target)
                threads = 2 if identity.kind == "cpu" else None
                return DeviceReport(target=target, identity=identity, threads=threads, forms=forms)
            case Prepare():
                facts = {"name": "fake", "content_hash": "0" * 16, "n_images": 100, "hflip": False}
                return Preparation(reference="fake", facts={**facts, "class_names": ["a", "b"], "png": ""})
            case Count():
                return NetworkCost(parameters=5_000_000, macs=70_000_000)
            case Time():
                if not task.entries:
                    return Timing(calibration=self._calibration(task))
                return Timing(measurements={name: self._measurement(task, name) for name in task.entries})
            case Score():
                return self._score(task)
            case _:
                raise AssertionError(f"unknown kind of task: {task}")

    def discard(self, references: Iterable[str]) -> None:
        """Deletes checkpoints."""
        self.kept -= set(references)

    def identity_of(self, device: str) -> DeviceIdentity:
        """Returns the identity of a device. All devices of a kind are equal. A subclass may make them differ."""
        kind = kind_of_device(device)
        if kind == self.identity.kind:
            return self.identity
        return dataclasses.replace(
            self.identity, kind=kind, model="fake card", serial=f"fake-{device}", host=self.identity.model
        )

    def reference_speed(self, device: str) -> float:
        """Returns the images/s of the reference on a device: 256. A subclass may make them differ."""
        return 256.0

    def speed_on(self, subject: Mapping[str, Any], device: str) -> float:
        """Returns the images/s of a network on a device: the same on all. A subclass may make them differ."""
        return self._speed_of(subject)

    def _calibration(self, task: Time) -> Calibration:
        device = task.target or task.condition.device
        return Calibration(
            reference="fake",
            images_per_s=self.reference_speed(device),
            images_per_s_spread=1.0,
            call_seconds=(0.1,) * 8,
            steady=True,
            device=self.identity_of(device),
        )

    def _measurement(self, task: Time, name: str) -> Measurement:
        entrant, device = task.entries[name], task.target or task.condition.device
        speed, batch_size = self.speed_on(entrant.subject, device), entrant.condition.batch_size
        call, reference = batch_size / speed, batch_size / 256.0
        latency_ms = 1000 * call
        return Measurement(
            condition=entrant.condition,
            device=self.identity_of(device),
            ratio=speed / 256.0,
            ratio_spread=0.01,
            ratio_low=0.99 * speed / 256.0,
            ratio_high=1.01 * speed / 256.0,
            reference_images_per_s=256.0,
            images_per_s_raw=speed,
            latency_ms_p50=latency_ms,
            latency_ms_p95=latency_ms,
            latency_ms_p99=latency_ms,
            memory_mib=None,
            call_seconds=(call,) * 8,
            reference_seconds=(reference,) * 8,
            latency_seconds=(call,) * 8,
            steady=True,
            warmup_calls=1,
            seconds=1.0,
            form="fake",
            threads=2,
            environment={},
            versions={},
            measured_at=_NOW,
            cohort=hashlib.sha256(" ".join(task.entries).encode()).hexdigest()[:12],
        )

    def _score(self, task: Score) -> Scoring:
        if task.must_resume and task.checkpoint not in self.kept:
            raise NoCheckpointError(f"checkpoint {task.checkpoint} is not stored")
        if task.checkpoint is not None:
            self.kept.add(task.checkpoint)
        full = task.plan.budgets[-1]
        until = task.until or full
        score = ProxyScore(
            plan_hash=task.plan.hash("0" * 16),
            metric=task.plan.score_metric,
            value=self._value_of(task.subject) * (until / full) ** 0.1,
            standard_error=0.01,
            loss=None,
            n_val=100,
            images_seen=until,
            seconds=1.0,
            seed=task.seed,
            micro_batch_size=1,
            device=task.target,
            versions={},
            scored_at=_NOW,
        )
        return Scoring(score=score, checkpoint=task.checkpoint)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeRun:
    """Use of a device by a task of `FakeEvaluator`."""

    task: Task[Any]
    device: str
    begins: float
    """Seconds on the fake clock."""
    ends: float
    """Seconds on the fake clock. Earlier than planned if the task was cancelled."""


@dataclasses.dataclass(kw_only=True)
class _Job:
    id: str
    task: Task[Any]
    submitted: int
    """Number of tasks that were submitted before this one."""
    device: str = "cpu"
    begins: float = 0.0
    ends: float | None = None
    """End time by the fake clock; None while the task waits for a slot."""
    hangs: bool = False


class FakeEvaluator:
    """Fake evaluator: each task takes a random, seeded time on a fake clock.

    Only `wait` advances the clock, to the next end of a task or by the timeout. With several slots, tasks end out of
    order, but in the same order in every run.

    After the inspection of a target of several devices, such as `cuda:0,cuda:1`, each device runs one task at a time.

    Args:
        answers: Returns the result of a task. To make the task fail, raises a `HiloNasError`; to make it hang, raises
            `HangsError`. Defaults to `FakeAnswers()`.
        slots: Number of tasks that run at the same time, regardless of their kind, on a single device. Other tasks
            wait.
        seed: Seed of the task durations.
        idle_timeout_s: Seconds on the fake clock after which a hanging task fails.
        cards: Number of CUDA devices of the machine. The target `cuda:all` names all of them.
    """

    def __init__(
        self,
        answers: Callable[[Task[Any]], Any] | None = None,
        *,
        slots: int = 1,
        seed: int = 0,
        idle_timeout_s: float = 600.0,
        cards: int = 1,
    ) -> None:
        self.answers = answers or FakeAnswers()
        self.now = 0.0
        """Seconds on the fake clock."""
        self.submitted: list[Task[Any]] = []
        """All tasks, in the order of submission."""
        self.discarded: list[str] = []
        self.runs: list[FakeRun] = []
        """Use of the devices so far, in the order of the ends."""
        self.is_closed = False
        self._slots, self._random, self._idle_timeout_s = slots, Random(seed), idle_timeout_s
        self._cards = tuple(f"cuda:{i}" for i in range(cards))
        self._devices: tuple[str, ...] = ()
        """Devices of the target that was inspected last, without looks at the load (`Inspect.watch`)."""
        self._ids = itertools.count()
        self._under_way: dict[str, _Job] = {}
        self._reports: dict[str, DeviceReport] = {}

    def clock(self) -> float:
        """Returns the seconds on the fake clock."""
        return self.now

    def submit(self, task: Task[Any]) -> str:
        """Adds a task and returns its id. The task starts when a slot is free."""
        assert not self.is_closed, "submit must not be called after close"
        plain = json.dumps(task.to_dict())
        assert json.dumps(task_from_dict(json.loads(plain)).to_dict()) == plain, "a task must survive a JSON round trip"
        job = _Job(id=str(next(self._ids)), task=task, submitted=len(self.submitted))
        self.submitted.append(task)
        self._under_way[job.id] = job
        self._fill_slots()
        return job.id

    def wait(self, timeout: float | None = None) -> list[Message]:
        """Advances the clock and returns the messages of the next task that ends; an empty list on timeout."""
        running = [job for job in self._under_way.values() if job.ends is not None]
        assert running or timeout is not None, "wait needs a timeout if no task is running"
        job = min(running, key=lambda job: (job.ends, job.submitted), default=None)
        if job is None or job.ends is None or (timeout is not None and job.ends > self.now + timeout):
            self.now += timeout or 0.0
            return []
        self.now = max(self.now, job.ends)
        try:
            return self._end(job)
        finally:
            self._fill_slots()

    def cancel(self, id: str) -> None:
        """Removes a task, which then sends no messages. Does nothing if the task has ended."""
        job = self._under_way.pop(id, None)
        if job is not None and job.ends is not None:
            self.runs.append(FakeRun(task=job.task, device=job.device, begins=job.begins, ends=self.now))
        self._fill_slots()

    def slots(self, kind: str) -> int:
        """Returns the number of slots, which is the same for each kind of task. With several devices, one each."""
        return len(self._devices) if len(self._devices) > 1 else self._slots

    def devices(self) -> list[DeviceReport]:
        """Returns the reports of the devices that `Inspect` tasks have inspected."""
        return list(self._reports.values())

    def discard(self, references: Iterable[str]) -> None:
        """Records the references in `discarded` and deletes these checkpoints of `FakeAnswers`."""
        discarded = list(references)
        self.discarded += discarded
        if isinstance(self.answers, FakeAnswers):
            self.answers.discard(discarded)

    def close(self) -> None:
        """Drops all unfinished tasks."""
        self._under_way.clear()
        self.is_closed = True

    def _fill_slots(self) -> None:
        """Starts the tasks that have waited longest in the free slots, each on a free device of its target."""
        running = [job for job in self._under_way.values() if job.ends is not None]
        for job in [job for job in self._under_way.values() if job.ends is None]:
            if len(running) >= self.slots(job.task.kind):
                return
            devices = self._devices_for(job.task)
            if len(self._devices) > 1:
                in_use = {other.device for other in running}
                devices = tuple(device for device in devices if device not in in_use)
            if devices:
                job.device, job.begins = devices[0], self.now
                job.ends = self.now + self._random.uniform(0.5, 2.0)
                running.append(job)

    def _devices_for(self, task: Task[Any]) -> tuple[str, ...]:
        """Returns the devices on which a task may run."""
        target = task.target if isinstance(task, Time | Score) else None
        if target is None:
            return self._devices if len(self._devices) > 1 else ("cpu",)
        return devices_of(target)

    def _answer(self, job: _Job) -> Any:
        """Returns the result of a task on its device."""
        task = job.task
        if isinstance(task, Inspect) and task.target is not None:
            names = self._cards if task.target == ALL_CUDA else devices_of(task.target)
            if task.watch is None:
                self._devices = names
            reports = [self.answers(dataclasses.replace(task, target=name)) for name in names]
            self._reports |= {report.target: report for report in reports}
            return join_reports(reports)
        if isinstance(task, Time | Score) and len(devices_of(task.target or "")) > 1:
            task = dataclasses.replace(task, target=job.device)
        result = self.answers(task)
        if isinstance(task, Inspect):
            self._reports[result.target] = result
            if task.watch is None:
                self._devices = (result.target,)
        return result

    def _end(self, job: _Job) -> list[Message]:
        assert job.ends is not None
        del self._under_way[job.id]
        try:
            if job.hangs:
                raise WorkerHungError(f"the worker sent no message for {self._idle_timeout_s:g} s")
            result = self._answer(job)
        except HangsError:
            job.hangs, job.ends = True, job.ends + self._idle_timeout_s
            self._under_way[job.id] = job
            return []
        except HiloNasError as error:
            self._keep_run(job)
            return [Failed(id=job.id, error=error, blame=blame_of(error), seconds=1.0, device=job.device)]
        self._keep_run(job)
        events = [Progress(id=job.id, event=event) for event in _events_of(job.task)]
        return [*events, Finished(id=job.id, result=result, seconds=1.0, device=job.device)]

    def _keep_run(self, job: _Job) -> None:
        assert job.ends is not None
        self.runs.append(FakeRun(task=job.task, device=job.device, begins=job.begins, ends=job.ends))


def _events_of(task: Task[Any]) -> Iterable[Event]:
    if isinstance(task, Time):
        yield RoundTimed(condition=task.condition.label(), round=1, rounds=1, images_per_s=1.0)
    if isinstance(task, Score):
        full = task.plan.budgets[-1]
        yield TrainingProgressed(images_seen=task.until or full, images_total=full)


def _hash_fraction(subject: Mapping[str, Any], salt: str) -> float:
    """Returns a number between 0 and 1 from a hash of the network and the salt."""
    text = f"{salt} {json.dumps(subject, sort_keys=True)}"
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16**8


def check_evaluator(evaluator: Evaluator, tasks: Sequence[Task[Any]], failing: Task[Any]) -> None:
    """Checks that an evaluator conforms to the `Evaluator` interface.

    Args:
        evaluator: An evaluator without unfinished tasks. This function closes it.
        tasks: At least two tasks of any kind that succeed.
        failing: A task that fails because of its network.

    Raises:
        AssertionError: The evaluator breaks a rule of the interface.
    """
    assert len(tasks) > 1, "at least two tasks are needed"
    for kind in ("inspect", "prepare", "count", "time", "score"):
        assert evaluator.slots(kind) >= 1, f"there must be a slot for {kind}"
    assert evaluator.wait(0.0) == [], "wait must return no messages before the first task"
    ids = [evaluator.submit(task) for task in tasks]
    assert len(set(ids)) == len(ids), "task ids must be unique"
    ended: dict[str, Message] = {}
    while len(ended) < len(ids):
        for message in evaluator.wait():
            assert message.id in ids, "a message must have the id of a submitted task"
            assert message.id not in ended, "a task must send no messages after its end"
            if isinstance(message, Progress):
                continue
            assert isinstance(message, Finished), f"the task must succeed, but got {message}"
            ended[message.id] = message
            task = tasks[ids.index(message.id)]
            plain = json.dumps(task.result_to_dict(message.result))
            rebuilt = task.result_from_dict(json.loads(plain))
            assert json.dumps(task.result_to_dict(rebuilt)) == plain, "a result must survive a JSON round trip"
            assert message.seconds >= 0, f"seconds must be at least 0, but got {message.seconds}"
            assert "," not in (message.device or ""), f"a task must run on one device, but got {message.device}"
    assert evaluator.wait(0.0) == [], "each task must end exactly once"

    id = evaluator.submit(failing)
    failed = next(message for message in _until_end(evaluator) if not isinstance(message, Progress))
    assert failed.id == id
    assert isinstance(failed, Failed), f"the failing task must send Failed, but got {failed}"
    assert failed.blame == "subject", f"blame must be 'subject' (the network), but got {failed.blame!r}"
    assert isinstance(failed.error, HiloNasError), f"the error must be a HiloNasError, but got {failed.error!r}"

    id, kept = evaluator.submit(tasks[0]), evaluator.submit(tasks[1])
    evaluator.cancel(id)
    evaluator.cancel(id)
    assert {message.id for message in _until_end(evaluator)} == {kept}, "a cancelled task must send no messages"
    evaluator.discard(["no-such-checkpoint-0"])
    evaluator.submit(tasks[0])
    evaluator.close()
    evaluator.close()


def _until_end(evaluator: Evaluator) -> list[Message]:
    """Returns all messages until the first task ends."""
    found: list[Message] = []
    while not any(isinstance(message, Finished | Failed) for message in found):
        found += evaluator.wait()
    return found
