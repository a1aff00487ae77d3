"""Work that networks of a list still need, done by several workers at once; every score is on disk when it is known.

An errand is one thing to be found out about one network: a course of a training, leg by leg, or what another proxy says
of it.
"""

from __future__ import annotations

import abc
import dataclasses
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from hilo_nas.errors import HiloNasError
from hilo_nas.events import Emit, Event, Notice, OtherProxyScored, SeedScored
from hilo_nas.measure import TUNED_ENVIRONMENT, Worker
from hilo_nas.measurement import ProxyPlan, ProxyScore
from hilo_nas.proxy.kinds import proxy_named
from hilo_nas.records import Subject, TrialRecord
from hilo_nas.search.setting import Setting

__all__ = ["Caller", "Errand", "ProxyErrand", "StartWorker", "TrainingErrand", "run_errands"]

"""What is wrong with more than one network."""


class Caller(Protocol):
    """What runs functions of other rooms; see `hilo_nas.measure.Worker`."""

    def call(self, function: str, arguments: Mapping[str, Any], emit: Emit) -> Any:
        """Returns what `module:function` returns."""

    def close(self) -> None:
        """Ends it, in the middle of a call, too."""


StartWorker = Callable[..., Caller]
"""Takes what `Worker` takes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Errand(abc.ABC):
    """One thing to be found out about one network."""

    number: int
    """Of its record."""
    subject: Subject
    seed: int

    @abc.abstractmethod
    def scores(self, worker: Caller, setting: Setting, emit: Emit) -> Iterator[ProxyScore]:
        """Yields each score as soon as it is known.

        Raises:
            HiloNasError: The network cannot be scored.
        """

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
    def needs(self) -> Path | None:
        """A file that must not be dropped before its last score is on disk."""
        return None

    def _call(self, worker: Caller, plan: ProxyPlan, setting: Setting, emit: Emit, **arguments: Any) -> ProxyScore:
        common = {
            "subject": self.subject.to_dict(),
            "plan": plan.to_dict(),
            "data": setting.described,
            "prepared": setting.prepared,
            "seed": self.seed,
            "device": setting.training_device,
        }
        scored = worker.call("hilo_nas.proxy.run:score_network", {**common, **arguments}, emit)
        return ProxyScore.from_dict(scored["score"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingErrand(Errand):
    """A training, from where it was left."""

    budgets: tuple[int, ...]
    """Images seen at which it is scored, those that are to come."""
    checkpoint: Path
    """What it goes on from where it is there, and leaves behind."""

    def scores(self, worker: Caller, setting: Setting, emit: Emit) -> Iterator[ProxyScore]:
        """See `Errand.scores`."""
        checkpoint = str(self.checkpoint.absolute())
        for images in self.budgets:
            yield self._call(worker, setting.plan, setting, emit, until=images, checkpoint=checkpoint)

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
    def needs(self) -> Path:
        """See `Errand.needs`."""
        return self.checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProxyErrand(Errand):
    """The score of another proxy than the study's, for comparison."""

    name: str
    """Of a quick proxy (`Proxy.is_quick`)."""

    def scores(self, worker: Caller, setting: Setting, emit: Emit) -> Iterator[ProxyScore]:
        """See `Errand.scores`."""
        score = self._call(worker, setting.plan.for_comparison(self.name), setting, emit)
        name = proxy_named(self.name).comparison_hash(setting.plan.to_dict(), setting.data.hash)
        yield dataclasses.replace(score, plan_hash=name)

    def added(self, record: TrialRecord, score: ProxyScore) -> TrialRecord:
        """See `Errand.added`; one that is not comparable any more is replaced."""
        others = [other for other in record.other_scores if other.metric != score.metric]
        return dataclasses.replace(record, other_scores=(*others, score))

    def told(self, score: ProxyScore, done: int, total: int) -> Event:
        """See `Errand.told`."""
        return OtherProxyScored(number=self.number, proxy=self.name, value=score.value, done=done, total=total)

    @property
    def title(self) -> str:
        """See `Errand.title`."""
        return self.name


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Scored:
    errand: Errand
    score: ProxyScore


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Ended:
    errand: Errand | None
    """None where a worker has nothing left to do."""
    error: Exception | None = None


def run_errands(
    errands: Sequence[Errand],
    records: list[TrialRecord],
    setting: Setting,
    write: Callable[[TrialRecord], TrialRecord],
    tidy: Callable[[Collection[Path]], None],
    emit: Emit,
    *,
    logs: Path,
    jobs: int,
    idle_timeout_s: float,
    start_worker: StartWorker = Worker,
) -> None:
    """Runs errands in their order, several at once; a network that cannot be scored is a warning.

    Args:
        errands: What is to be found out; of one network and seed, one errand at most.
        records: By number; replaced by what is written.
        setting: The plan, the data and the device.
        write: Stores a record that has a score more, and returns it as it is stored.
        tidy: Called at the beginning and whenever one is over, with the files that others need.
        emit: Told of all of it.
        logs: Folder for what the workers print.
        jobs: Errands at once; each has its share of the cores.
        idle_timeout_s: Seconds of silence after which a worker counts as hung.
        start_worker: Makes the workers.

    Raises:
        HiloNasError: The data, the device or the disk cannot serve.
    """
    todo, total, done = deque(errands), len(errands), 0
    jobs = max(1, min(jobs, total))
    threads = max(1, (os.cpu_count() or 1) // jobs)
    environment = {"OMP_WAIT_POLICY": TUNED_ENVIRONMENT["OMP_WAIT_POLICY"], "OMP_NUM_THREADS": str(threads)}
    workers = [
        start_worker(
            f"training-{i}", logs / f"training-{i}.log", idle_timeout_s=idle_timeout_s, environment=environment
        )
        for i in range(jobs)
    ]
    news: queue.Queue[Event | _Scored | _Ended] = queue.Queue()

    def run(worker: Caller) -> None:
        """A thread's life: one errand after the other, its news to the main thread, which alone writes."""
        while True:
            try:
                errand = todo.popleft()
            except IndexError:
                news.put(_Ended(errand=None))
                return
            try:
                for score in errand.scores(worker, setting, news.put):
                    news.put(_Scored(errand=errand, score=score))
                news.put(_Ended(errand=errand))
            except Exception as error:
                news.put(_Ended(errand=errand, error=error))

    last: dict[Errand, ProxyScore] = {}
    needed = {errand.needs for errand in errands if errand.needs is not None}
    try:
        tidy(needed)
        for worker in workers:
            threading.Thread(target=run, args=(worker,), daemon=True).start()
        working = len(workers)
        while working:
            item = news.get()
            if isinstance(item, Event):
                emit(item)
            elif isinstance(item, _Scored):
                number = item.errand.number
                records[number] = write(item.errand.added(records[number], item.score))
                last[item.errand] = item.score
            elif item.errand is None:
                working -= 1
            elif item.error is not None and _is_fatal(item.error):
                raise item.error
            else:
                done += 1
                if item.error is None:
                    emit(item.errand.told(last.pop(item.errand), done, total))
                else:
                    text = f"network {item.errand.number}, {item.errand.title}: {item.error}"
                    emit(Notice(level="warning", text=text))
                needed.discard(item.errand.needs)
                tidy(needed)
    finally:
        todo.clear()
        for worker in workers:
            worker.close()


def _is_fatal(error: Exception) -> bool:
    return not isinstance(error, HiloNasError) or error.is_fatal
