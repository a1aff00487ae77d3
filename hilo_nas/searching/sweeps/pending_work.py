"""Pending work of a sweep: trainings and scores of other proxies, several at once.

Every score is written to disk as soon as it is known.
"""

from __future__ import annotations

import abc
import dataclasses
from collections import deque
from collections.abc import Callable, Collection, Sequence

from hilo_nas.errors import HiloNasError
from hilo_nas.evaluation import Evaluator, Score, Steps, drive
from hilo_nas.events import Emit, Event, Notice, OtherProxyScored, SeedScored
from hilo_nas.measurement import ProxyScore
from hilo_nas.proxy.kinds import proxy_names
from hilo_nas.searching.tasks.study_tasks import StudyTasks
from hilo_nas.study.records import Subject, TrialRecord

__all__ = ["PendingScore", "PendingTraining", "PendingWork", "run_pending"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PendingWork(abc.ABC):
    """Work on one network: a training, or the score of another proxy."""

    number: int
    """Trial number of the network's record."""
    subject: Subject
    seed: int

    @abc.abstractmethod
    def score_tasks(self, tasks: StudyTasks) -> list[Score]:
        """Returns the tasks, in order. Each task may need the checkpoint of the previous one."""

    @abc.abstractmethod
    def with_score(self, record: TrialRecord, score: ProxyScore) -> TrialRecord:
        """Returns the network's record with a score added."""

    @abc.abstractmethod
    def finished_event(self, score: ProxyScore, done: int, total: int) -> Event:
        """Returns the event that reports the end of the work, with its last score."""

    @property
    @abc.abstractmethod
    def description(self) -> str:
        """Description of the work in warnings, such as `seed 1`."""

    @property
    def needed_checkpoint(self) -> str | None:
        """Name of a checkpoint to keep until the last score is on disk; None if there is none."""
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PendingTraining(PendingWork):
    """Training of a network, continued from its last checkpoint."""

    budgets: tuple[int, ...]
    """Remaining budgets at which the network is scored, in training images."""
    checkpoint: str
    """Name of the checkpoint to resume from, if it exists, and to write."""

    def score_tasks(self, tasks: StudyTasks) -> list[Score]:
        """Returns one task per remaining budget."""
        return [
            tasks.score(self.subject, self.seed, until=images, checkpoint=self.checkpoint) for images in self.budgets
        ]

    def with_score(self, record: TrialRecord, score: ProxyScore) -> TrialRecord:
        """Returns the record with the score appended."""
        return dataclasses.replace(record, scores=(*record.scores, score))

    def finished_event(self, score: ProxyScore, done: int, total: int) -> Event:
        """Returns a `SeedScored` event with the value of the score."""
        return SeedScored(number=self.number, seed=self.seed, value=score.value, done=done, total=total)

    @property
    def description(self) -> str:
        """Description with the seed of the training, such as `seed 1`."""
        return f"seed {self.seed}"

    @property
    def needed_checkpoint(self) -> str:
        """Name of the checkpoint of the training."""
        return self.checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class PendingScore(PendingWork):
    """Score of another proxy, for comparison with the study's proxy."""

    name: str
    """Name of a quick proxy (`Proxy.is_quick`)."""
    plan_hash: str
    """Hash under which scores are comparable; see `Proxy.comparison_hash`."""

    def score_tasks(self, tasks: StudyTasks) -> list[Score]:
        """Returns the task that scores the network, as the only item."""
        return [tasks.score(self.subject, self.seed, plan=tasks.plan.for_comparison(self.name))]

    def with_score(self, record: TrialRecord, score: ProxyScore) -> TrialRecord:
        """Returns the record with the score added. An earlier score of the same proxy is replaced.

        Scores are ordered as in the proxy registry, because several workers may finish in any order.
        """
        score = dataclasses.replace(score, plan_hash=self.plan_hash)
        others = [other for other in record.other_scores if other.metric != score.metric]
        known = proxy_names()
        ordered = sorted(
            (*others, score), key=lambda own: known.index(own.metric) if own.metric in known else len(known)
        )
        return dataclasses.replace(record, other_scores=tuple(ordered))

    def finished_event(self, score: ProxyScore, done: int, total: int) -> Event:
        """Returns an `OtherProxyScored` event with the value of the score."""
        return OtherProxyScored(number=self.number, proxy=self.name, value=score.value, done=done, total=total)

    @property
    def description(self) -> str:
        """Name of the proxy."""
        return self.name


def run_pending(
    pending: Sequence[PendingWork],
    records: list[TrialRecord],
    tasks: StudyTasks,
    write: Callable[[TrialRecord], TrialRecord],
    tidy: Callable[[Collection[str]], None],
    evaluator: Evaluator,
    emit: Emit,
) -> None:
    """Runs pending work in order, as many items at once as the evaluator has slots.

    A network that cannot be scored becomes a warning. A task is repeated once if its worker is lost.

    Args:
        pending: The work. At most one training per network and seed.
        records: Records by number. Updated in place with the written records.
        tasks: Builds the tasks.
        write: Stores a record with a new score, and returns it as stored.
        tidy: Called at the start and after each item, with the checkpoints that other items still need.
        evaluator: Runs the tasks.
        emit: Receives all events.

    Raises:
        HiloNasError: The data, the device or the disk fails.
    """
    queue, total, done = deque(pending), len(pending), 0
    needed = {work.needed_checkpoint for work in pending if work.needed_checkpoint is not None}

    def steps(work: PendingWork) -> Steps[None]:
        nonlocal done
        outcome: Event
        try:
            for task in work.score_tasks(tasks):
                score = (yield task).score
                records[work.number] = write(work.with_score(records[work.number], score))
            outcome = work.finished_event(score, done + 1, total)
        except HiloNasError as error:
            if error.is_fatal:
                raise
            outcome = Notice(level="warning", text=f"network {work.number}, {work.description}: {error}")
        done += 1
        emit(outcome)
        if work.needed_checkpoint is not None:
            needed.discard(work.needed_checkpoint)
        tidy(needed)

    tidy(needed)
    drive(
        lambda: steps(queue.popleft()) if queue else None,
        evaluator,
        emit,
        at_once=evaluator.slots(Score.kind),
    )
