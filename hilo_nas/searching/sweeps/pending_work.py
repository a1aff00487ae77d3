"""Work that networks of a list still need, several at once; every score is on disk when it is known.

An errand is one thing to be found out about one network: a course of a training, leg by leg, or what another proxy says
of it.
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

__all__ = ["Errand", "ProxyErrand", "TrainingErrand", "run_errands"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Errand(abc.ABC):
    """One thing to be found out about one network."""

    number: int
    """Of its record."""
    subject: Subject
    seed: int

    @abc.abstractmethod
    def legs(self, tasks: StudyTasks) -> list[Score]:
        """Returns its tasks, each of which needs what the one before leaves behind."""

    @abc.abstractmethod
    def added(self, record: TrialRecord, score: ProxyScore) -> TrialRecord:
        """Returns the network's record with a score in it."""

    @abc.abstractmethod
    def told(self, score: ProxyScore, done: int, total: int) -> Event:
        """Returns the news that it is over, with its last score."""

    @property
    @abc.abstractmethod
    def title(self) -> str:
        """What it finds out, in words."""

    @property
    def needs(self) -> str | None:
        """A checkpoint that must be kept until its last score is on disk."""
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingErrand(Errand):
    """A training, from where it was left."""

    budgets: tuple[int, ...]
    """Images seen at which it is scored, those that are to come."""
    checkpoint: str
    """Checkpoint that it resumes from, where it is kept, and leaves behind."""

    def legs(self, tasks: StudyTasks) -> list[Score]:
        """See `Errand.legs`."""
        return [
            tasks.score(self.subject, self.seed, until=images, checkpoint=self.checkpoint) for images in self.budgets
        ]

    def added(self, record: TrialRecord, score: ProxyScore) -> TrialRecord:
        """See `Errand.added`."""
        return dataclasses.replace(record, scores=(*record.scores, score))

    def told(self, score: ProxyScore, done: int, total: int) -> Event:
        """See `Errand.told`."""
        return SeedScored(number=self.number, seed=self.seed, value=score.value, done=done, total=total)

    @property
    def title(self) -> str:
        """See `Errand.title`."""
        return f"seed {self.seed}"

    @property
    def needs(self) -> str:
        """See `Errand.needs`."""
        return self.checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProxyErrand(Errand):
    """Score of another proxy than the study's, for comparison."""

    name: str
    """Of a quick proxy (`Proxy.is_quick`)."""
    plan_hash: str
    """Name under which the score is comparable; see `Proxy.comparison_hash`."""

    def legs(self, tasks: StudyTasks) -> list[Score]:
        """See `Errand.legs`."""
        return [tasks.score(self.subject, self.seed, plan=tasks.plan.for_comparison(self.name))]

    def added(self, record: TrialRecord, score: ProxyScore) -> TrialRecord:
        """See `Errand.added`; one that is not comparable any more is replaced.

        The scores are in the order of the registry, whichever of several workers ended first.
        """
        score = dataclasses.replace(score, plan_hash=self.plan_hash)
        others = [other for other in record.other_scores if other.metric != score.metric]
        known = proxy_names()
        ordered = sorted(
            (*others, score), key=lambda own: known.index(own.metric) if own.metric in known else len(known)
        )
        return dataclasses.replace(record, other_scores=tuple(ordered))

    def told(self, score: ProxyScore, done: int, total: int) -> Event:
        """See `Errand.told`."""
        return OtherProxyScored(number=self.number, proxy=self.name, value=score.value, done=done, total=total)

    @property
    def title(self) -> str:
        """See `Errand.title`."""
        return self.name


def run_errands(
    errands: Sequence[Errand],
    records: list[TrialRecord],
    tasks: StudyTasks,
    write: Callable[[TrialRecord], TrialRecord],
    tidy: Callable[[Collection[str]], None],
    evaluator: Evaluator,
    emit: Emit,
) -> None:
    """Runs errands in their order, as many at once as the evaluator has slots.

    A network that cannot be scored is a warning; a task whose worker is lost is repeated once.

    Args:
        errands: What is to be found out; of one network and seed, one errand at most.
        records: By number; replaced by what is written.
        tasks: Builds the tasks.
        write: Stores a record that has a score more, and returns it as it is stored.
        tidy: Called at the beginning and whenever one is over, with the checkpoints that others need.
        evaluator: Does the work.
        emit: Receives all events.

    Raises:
        HiloNasError: The data, the device or the disk cannot serve.
    """
    todo, total, done = deque(errands), len(errands), 0
    needed = {errand.needs for errand in errands if errand.needs is not None}

    def steps(errand: Errand) -> Steps[None]:
        nonlocal done
        news: Event
        try:
            for leg in errand.legs(tasks):
                score = (yield leg).score
                records[errand.number] = write(errand.added(records[errand.number], score))
            news = errand.told(score, done + 1, total)
        except HiloNasError as error:
            if error.is_fatal:
                raise
            news = Notice(level="warning", text=f"network {errand.number}, {errand.title}: {error}")
        done += 1
        emit(news)
        if errand.needs is not None:
            needed.discard(errand.needs)
        tidy(needed)

    tidy(needed)
    drive(
        lambda: steps(todo.popleft()) if todo else None,
        evaluator,
        emit,
        at_once=evaluator.slots(Score.kind),
    )
