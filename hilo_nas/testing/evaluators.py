"""Fake evaluator with a fake clock, and the conformance check that every evaluator must pass."""

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
from hilo_nas.events import Event, RoundTimed, TrainingProgressed
from hilo_nas.measurement import Calibration, DeviceIdentity, Measurement, ProxyScore

__all__ = ["FakeAnswers", "FakeEvaluator", "HangsError", "check_evaluator"]

_NOW = "2026-01-01T00:00:00+00:00"


class HangsError(Exception):
    """Raised instead of an answer: the task hangs until it is cancelled or its idle timeout has passed."""


class FakeAnswers:
    """Results that depend on the task alone: equal tasks have equal results.

    Args:
        value_of: Value of a network (`Score.subject`) after all images; between 0 and 1 by a hash if left out.
        speed_of: Its images/s; between 100 and 1,000 by a hash if left out.
    """

    def __init__(
        self,
        value_of: Callable[[Mapping[str, Any]], float] | None = None,
        speed_of: Callable[[Mapping[str, Any]], float] | None = None,
    ) -> None:
        self._value_of = value_of or (lambda subject: _share_of(subject, "value"))
        self._speed_of = speed_of or (lambda subject: 100 + 900 * _share_of(subject, "speed"))
        self.identity = DeviceIdentity(kind="cpu", model="fake, 2 cores", driver="1", torch="2", serial="fake")
        self.kept: set[str] = set()
        """Checkpoints that are kept."""

    def __call__(self, task: Task[Any]) -> Any:
        """Returns the task's result.

        Raises:
            HiloNasError: The task cannot be done.
        """
        match task:
            case Inspect():
                forms = {condition.label(): "fake" for condition in task.forms}
                return DeviceReport(target=task.target or "cpu", identity=self.identity, threads=2, forms=forms)
            case Prepare():
                facts = {"name": "fake", "content_hash": "0" * 16, "n_images": 100, "hflip": False}
                return Preparation(reference="fake", facts={**facts, "class_names": ["a", "b"], "png": ""})
            case Count():
                return NetworkCost(parameters=5_000_000, macs=70_000_000)
            case Time():
                if not task.entries:
                    return Timing(calibration=self._calibration())
                return Timing(measurements={name: self._measurement(task, name) for name in task.entries})
            case Score():
                return self._score(task)
            case _:
                raise AssertionError(f"no kind of task: {task}")

    def discard(self, references: Iterable[str]) -> None:
        """Gives checkpoints up."""
        self.kept -= set(references)

    def _calibration(self) -> Calibration:
        return Calibration(
            reference="fake",
            images_per_s=256.0,
            images_per_s_spread=1.0,
            call_seconds=(0.1,) * 8,
            steady=True,
            device=self.identity,
        )

    def _measurement(self, task: Time, name: str) -> Measurement:
        entrant = task.entries[name]
        speed, batch_size = self._speed_of(entrant.subject), entrant.condition.batch_size
        call, reference = batch_size / speed, batch_size / 256.0
        latency_ms = 1000 * call
        return Measurement(
            condition=entrant.condition,
            device=self.identity,
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
            raise NoCheckpointError(f"no checkpoint {task.checkpoint} is kept")
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


@dataclasses.dataclass(kw_only=True)
class _Job:
    id: str
    task: Task[Any]
    submitted: int
    """Number of the submission."""
    ends: float | None = None
    """Time at which it ends; None where it waits for a slot."""
    hangs: bool = False


class FakeEvaluator:
    """Fake evaluator: tasks last for random times of a fake clock and end in the order of their ends.

    Only `wait` moves the clock: to the next end, or by the timeout. So four slots end tasks out of order,
    and the same each time.

    Args:
        answers: Gives the results; raises what a task is to fail with, or `HangsError`.
        slots: Tasks of any kind at once; further ones wait.
        seed: Of the times.
        idle_timeout_s: Seconds after which a task that hangs fails, by its clock.
    """

    def __init__(
        self,
        answers: Callable[[Task[Any]], Any] | None = None,
        *,
        slots: int = 1,
        seed: int = 0,
        idle_timeout_s: float = 600.0,
    ) -> None:
        self.answers = answers or FakeAnswers()
        self.now = 0.0
        """Seconds by its clock."""
        self.submitted: list[Task[Any]] = []
        """Every task, in the order of submission."""
        self.discarded: list[str] = []
        self.is_closed = False
        self._slots, self._random, self._idle_timeout_s = slots, Random(seed), idle_timeout_s
        self._ids = itertools.count()
        self._under_way: dict[str, _Job] = {}
        self._reports: dict[str, DeviceReport] = {}

    def clock(self) -> float:
        """Returns the seconds by its clock."""
        return self.now

    def submit(self, task: Task[Any]) -> str:
        """See `Evaluator.submit`."""
        assert not self.is_closed, "it is closed"
        plain = json.dumps(task.to_dict())
        assert json.dumps(task_from_dict(json.loads(plain)).to_dict()) == plain, "a task must survive JSON"
        job = _Job(id=str(next(self._ids)), task=task, submitted=len(self.submitted))
        self.submitted.append(task)
        self._under_way[job.id] = job
        self._begin()
        return job.id

    def wait(self, timeout: float | None = None) -> list[Message]:
        """See `Evaluator.wait`."""
        running = [job for job in self._under_way.values() if job.ends is not None]
        assert running or timeout is not None, "nothing is under way that could be waited for"
        job = min(running, key=lambda job: (job.ends, job.submitted), default=None)
        if job is None or job.ends is None or (timeout is not None and job.ends > self.now + timeout):
            self.now += timeout or 0.0
            return []
        self.now = max(self.now, job.ends)
        try:
            return self._end(job)
        finally:
            self._begin()

    def cancel(self, id: str) -> None:
        """See `Evaluator.cancel`."""
        self._under_way.pop(id, None)
        self._begin()

    def slots(self, kind: str) -> int:
        """See `Evaluator.slots`."""
        return self._slots

    def devices(self) -> list[DeviceReport]:
        """See `Evaluator.devices`."""
        return list(self._reports.values())

    def discard(self, references: Iterable[str]) -> None:
        """See `Evaluator.discard`."""
        given_up = list(references)
        self.discarded += given_up
        if isinstance(self.answers, FakeAnswers):
            self.answers.discard(given_up)

    def close(self) -> None:
        """See `Evaluator.close`."""
        self._under_way.clear()
        self.is_closed = True

    def _begin(self) -> None:
        """Starts the tasks that have waited longest, where slots are free."""
        free = self._slots - sum(job.ends is not None for job in self._under_way.values())
        waiting = [job for job in self._under_way.values() if job.ends is None]
        for job in waiting[:free]:
            job.ends = self.now + self._random.uniform(0.5, 2.0)

    def _end(self, job: _Job) -> list[Message]:
        assert job.ends is not None
        del self._under_way[job.id]
        try:
            if job.hangs:
                raise WorkerHungError(f"it was silent for {self._idle_timeout_s:g} s")
            result = self.answers(job.task)
        except HangsError:
            job.hangs, job.ends = True, job.ends + self._idle_timeout_s
            self._under_way[job.id] = job
            return []
        except HiloNasError as error:
            return [Failed(id=job.id, error=error, blame=blame_of(error), seconds=1.0, device="cpu")]
        if isinstance(job.task, Inspect):
            self._reports[result.target] = result
        events = [Progress(id=job.id, event=event) for event in _events_of(job.task)]
        return [*events, Finished(id=job.id, result=result, seconds=1.0, device="cpu")]


def _events_of(task: Task[Any]) -> Iterable[Event]:
    if isinstance(task, Time):
        yield RoundTimed(condition=task.condition.label(), round=1, rounds=1, images_per_s=1.0)
    if isinstance(task, Score):
        full = task.plan.budgets[-1]
        yield TrainingProgressed(images_seen=task.until or full, images_total=full)


def _share_of(subject: Mapping[str, Any], salt: str) -> float:
    """A number between 0 and 1 that hangs on the network alone."""
    text = f"{salt} {json.dumps(subject, sort_keys=True)}"
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 16**8


def check_evaluator(evaluator: Evaluator, tasks: Sequence[Task[Any]], failing: Task[Any]) -> None:
    """Checks what every evaluator promises; asserts, in words, what it does not keep.

    Args:
        evaluator: One that has nothing under way; it is closed at the end.
        tasks: At least two tasks of any kind that succeed.
        failing: One that fails for its subject.
    """
    assert len(tasks) > 1, "at least two tasks are needed"
    for kind in ("inspect", "prepare", "count", "time", "score"):
        assert evaluator.slots(kind) >= 1, f"there must be a slot for {kind}"
    assert evaluator.wait(0.0) == [], "there is nothing to tell before the first task"
    ids = [evaluator.submit(task) for task in tasks]
    assert len(set(ids)) == len(ids), "each task must have an id of its own"
    ended: dict[str, Message] = {}
    while len(ended) < len(ids):
        for message in evaluator.wait():
            assert message.id in ids, "a message must be about a task that was submitted"
            assert message.id not in ended, "nothing may be told of a task that has ended"
            if isinstance(message, Progress):
                continue
            assert isinstance(message, Finished), f"a task failed: {message}"
            ended[message.id] = message
            task = tasks[ids.index(message.id)]
            plain = json.dumps(task.result_to_dict(message.result))
            rebuilt = task.result_from_dict(json.loads(plain))
            assert json.dumps(task.result_to_dict(rebuilt)) == plain, "a result must survive JSON"
            assert message.seconds >= 0, "a task takes time"
    assert evaluator.wait(0.0) == [], "each task must end once"

    id = evaluator.submit(failing)
    failed = next(message for message in _until_end(evaluator) if not isinstance(message, Progress))
    assert failed.id == id
    assert isinstance(failed, Failed), "a task that cannot be done must fail"
    assert failed.blame == "subject", "the network must have the blame"
    assert isinstance(failed.error, HiloNasError), "the error must be one of this package's"

    id, kept = evaluator.submit(tasks[0]), evaluator.submit(tasks[1])
    evaluator.cancel(id)
    evaluator.cancel(id)
    assert {message.id for message in _until_end(evaluator)} == {kept}, "nothing may be told of a cancelled task"
    evaluator.discard(["no-such-checkpoint-0"])
    evaluator.submit(tasks[0])
    evaluator.close()
    evaluator.close()


def _until_end(evaluator: Evaluator) -> list[Message]:
    """Returns all messages up to the first end of a task."""
    found: list[Message] = []
    while not any(isinstance(message, Finished | Failed) for message in found):
        found += evaluator.wait()
    return found
