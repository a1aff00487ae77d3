"""Searches replayed on a table: the real loop, with its sampler and its rungs, asks a file instead of a machine.

What a search has found after a trial is the hypervolume of the networks that it has fully trained by then, at their
true values: log images/s and full-budget top-1 as the table has them. Both are scaled to the table's own range, and the
reference point is its worst of each, so nothing about the measure depends on a search. It is given as a share of the
hypervolume of the whole table. A network that was stopped stands on no front and counts nothing.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.samplers.processes import map_unordered
from benchmarks.tables.table import Table, TableRow, build_score
from hilo_nas.errors import UsageError
from hilo_nas.evaluation import DeviceReport, Finished, Message, Score, Scoring, Task, Time, Timing
from hilo_nas.events import BenchStepped, Emit, Event, TrialFinished
from hilo_nas.measurement import Measurement, ProxyScore
from hilo_nas.searching.configuration.resolve import DEFAULT_REDUCTION_FACTOR
from hilo_nas.searching.configuration.search_config import SAMPLERS
from hilo_nas.searching.loop import SearchLoop
from hilo_nas.searching.tasks.study_tasks import Resources
from hilo_nas.study.front import speed_hypervolume
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import Subject, TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy

__all__ = [
    "EXTRAPOLATED",
    "FORESEEN",
    "FULL",
    "PRUNED",
    "Replay",
    "SamplersPlan",
    "Step",
    "TableEvaluator",
    "Truth",
    "replay_search",
    "run_samplers",
]

FULL = "none"
"""No rungs: every network is fully trained."""
EXTRAPOLATED = "extrapolated"
"""Rungs; the sampler is told the top-1 that a stopped network would hardly have missed."""
PRUNED = "pruned"
"""Rungs; the sampler is told that a network was stopped, and no value."""
FORESEEN = "foreseen"
"""Rungs that show what the full training will reach. No search has such: what these save is what perfect scores at the
same rungs would."""
_TELLS_PRUNED = ("gp", "tpe")
"""Samplers with a model, which may make something of it or not."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplersPlan:
    """Which searches to replay."""

    samplers: tuple[str, ...] = ("random", "nsga2", "tpe", "gp")
    seeds: int = 10
    """Replays of each search, which differ in nothing else."""
    trials_share: float = 0.12
    """Share of the table that a search without rungs trains; results are also given at a half and a quarter of it."""
    reduction_factor: float = DEFAULT_REDUCTION_FACTOR
    """One of how many networks continues at each of the table's rungs."""
    jobs: int = 1
    """Replays at once, each in a process; 1 is this one."""

    def __post_init__(self) -> None:
        faults = [
            f"a sampler must be one of {', '.join(SAMPLERS)}, but got {name!r}"
            for name in self.samplers
            if name not in SAMPLERS
        ]
        if not self.samplers or len(set(self.samplers)) < len(self.samplers):
            faults.append(f"samplers must be named, each once, but got {', '.join(self.samplers) or 'none'}")
        for name in ("seeds", "jobs"):
            if getattr(self, name) < 1:
                faults.append(f"{name} must be at least 1, but got {getattr(self, name)}")
        if not 0 < self.trials_share <= 1:
            faults.append(f"trials_share must be above 0 and at most 1, but got {self.trials_share:g}")
        if not 1 < self.reduction_factor < math.inf:
            faults.append(f"reduction_factor must be a number above 1, but got {self.reduction_factor:g}")
        if faults:
            raise UsageError("\n".join(faults))

    def trials_of(self, table: Table) -> int:
        """Returns how many networks a search without rungs trains."""
        return max(1, round(self.trials_share * len(table.rows)))

    def list_cells(self) -> list[tuple[str, str]]:
        """Returns the searches, each a sampler and what becomes of networks at rungs: `FULL` and so on."""
        return [
            (sampler, rungs)
            for sampler in self.samplers
            for rungs in (FULL, EXTRAPOLATED, *[PRUNED] * (sampler in _TELLS_PRUNED), FORESEEN)
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """Where a replay stands after a trial."""

    evaluations: int
    """Networks measured so far, this one included."""
    key: str
    """This one."""
    state: str
    """`complete` or `stopped`."""
    images: int
    """Training images spent so far."""
    seconds: float
    """Training seconds spent so far, as they were when the table was made."""
    timing_seconds: float
    """The same of the timings, which are no part of the training cost."""
    share: float
    """Of the table's hypervolume, found so far."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay:
    """One search, replayed."""

    sampler: str
    rungs: str
    """`FULL`, `EXTRAPOLATED`, `PRUNED` or `FORESEEN`."""
    seed: int
    steps: tuple[Step, ...]
    replay_seconds: float
    """What the replay itself took."""


class Truth:
    """What there is to be found in a table.

    Args:
        table: A whole one.

    Raises:
        UsageError: Its networks do not differ in both objectives, so there is nothing to find.
    """

    def __init__(self, table: Table) -> None:
        full = table.budgets[-1]
        self._points = {row.key: (row.images_per_s, row.scores[full].top1) for row in table.rows}
        (slowest, fastest), (worst, best) = (
            (min(column), max(column)) for column in zip(*self._points.values(), strict=True)
        )
        if slowest == fastest or worst == best:
            raise UsageError("the networks of a table must differ in both speed and top-1, but they do not")
        self._ref_point = slowest, worst
        self._square: float = math.log(fastest / slowest) * (best - worst)

    @cached_property
    def whole(self) -> float:
        """The whole table's hypervolume above its slowest speed and worst top-1; 1 if one network were best in both."""
        return self._volume(self._points)

    def share_of(self, keys: Iterable[str]) -> float:
        """Returns which share of the whole hypervolume these networks have."""
        return self._volume(keys) / self.whole

    def _volume(self, keys: Iterable[str]) -> float:
        return speed_hypervolume((self._points[key] for key in keys), self._ref_point) / self._square


class TableEvaluator:
    """An evaluator that looks up what others measured, and counts what it would have cost; a task ends at once.

    Args:
        table: Holds every network that will be asked for.
        foresees: Whether each score is that of the full budget, for the price of its own.
    """

    def __init__(self, table: Table, *, foresees: bool = False) -> None:
        self._table, self._foresees = table, foresees
        self._reached: dict[str, int] = {}
        self._ids, self._ended = itertools.count(), list[Message]()
        self.images = 0
        """Training images spent so far."""
        self.seconds = 0.0
        """Training seconds spent so far."""
        self.timing_seconds = 0.0

    def submit(self, task: Task[Any]) -> str:
        """See `Evaluator.submit`."""
        id = str(next(self._ids))
        if isinstance(task, Time):
            ((key, _),) = task.entries.items()
            result: Any = Timing(measurements={key: self._time(self._table.by_key[key])})
        else:
            assert isinstance(task, Score), "a table knows speeds and scores"
            result = Scoring(score=self._score(task))
        self._ended.append(Finished(id=id, result=result, seconds=0.0))
        return id

    def wait(self, timeout: float | None = None) -> list[Message]:
        """See `Evaluator.wait`."""
        ended, self._ended = self._ended, []
        return ended

    def _time(self, row: TableRow) -> Measurement:
        self.timing_seconds += row.timing_seconds
        return build_measurement(row, self._table)

    def _score(self, task: Score) -> ProxyScore:
        """A network is trained on from where it was scored last."""
        row, until = self._table.by_key[Subject.from_dict(task.subject).key], task.until
        assert until is not None, "a search says at which budget"
        reached = self._reached.get(row.key, 0)
        score = build_score(row, until, self._table, since=reached, seed=task.seed)
        self._reached[row.key] = until
        self.images += until - reached
        self.seconds += score.seconds
        if not self._foresees:
            return score
        full = build_score(row, self._table.budgets[-1], self._table, since=reached, seed=task.seed)
        return dataclasses.replace(full, images_seen=score.images_seen, seconds=score.seconds)

    def cancel(self, id: str) -> None:
        """See `Evaluator.cancel`."""
        self._ended = [message for message in self._ended if message.id != id]

    def slots(self, kind: str) -> int:
        """See `Evaluator.slots`."""
        return 1

    def devices(self) -> list[DeviceReport]:
        """See `Evaluator.devices`."""
        return []

    def discard(self, references: Iterable[str]) -> None:
        """See `Evaluator.discard`."""

    def close(self) -> None:
        """See `Evaluator.close`."""


def build_measurement(row: TableRow, table: Table) -> Measurement:
    """Returns a network's timing as far as the table has kept it: its figures, without the samples behind them."""
    manifest = table.manifest
    condition = manifest.objective
    calibration = manifest.calibrations[condition.label()]
    reference, latency_ms = calibration.images_per_s, 1000 * condition.batch_size / row.images_per_s
    return Measurement(
        condition=condition,
        device=manifest.device,
        ratio=row.images_per_s / reference,
        ratio_spread=row.images_per_s_spread / reference,
        reference_images_per_s=reference,
        images_per_s_raw=row.images_per_s,
        latency_ms_p50=latency_ms,
        latency_ms_p95=latency_ms,
        latency_ms_p99=latency_ms,
        memory_mib=None,
        call_seconds=(),
        reference_seconds=(),
        latency_seconds=(),
        steady=True,
        warmup_calls=0,
        seconds=row.timing_seconds,
        form="from a table",
        threads=condition.threads or 0,
        environment={},
        versions=manifest.versions,
        measured_at=manifest.created_at,
        ratio_low=None if row.images_per_s_low is None else row.images_per_s_low / reference,
        ratio_high=None if row.images_per_s_high is None else row.images_per_s_high / reference,
        verdict=row.verdict,
        protocol=calibration.protocol,
    )


class _Unstored(StoredStudy):
    """A study that leaves nothing behind."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(Path("replay"))
        self._manifest = manifest

    def _store(self, record: TrialRecord) -> None:
        pass


def replay_search(
    table: Table,
    truth: Truth,
    *,
    sampler: str,
    rungs: str,
    seed: int,
    trials: int,
    reduction_factor: float = DEFAULT_REDUCTION_FACTOR,
) -> Replay:
    """Returns one search, until it has spent the training images of so many full trainings.

    Without rungs that is after so many networks; with them after more, for most are stopped on the way.

    Args:
        table: A whole one.
        truth: Of that table.
        sampler: One of `SAMPLERS`.
        rungs: `FULL`, `EXTRAPOLATED`, `PRUNED` or `FORESEEN`.
        seed: Of the search; the table's trainings have their own.
        trials: Full trainings.
        reduction_factor: One of how many networks continues at each rung.
    """
    start = time.monotonic()
    evaluator = TableEvaluator(table, foresees=rungs == FORESEEN)
    steps: list[Step] = []
    found: list[str] = []

    def follow(event: Event) -> None:
        if not isinstance(event, TrialFinished):
            return
        if event.state == TrialState.COMPLETE:
            found.append(event.key)
        steps.append(
            Step(
                evaluations=event.measured,
                key=event.key,
                state=event.state,
                images=evaluator.images,
                seconds=evaluator.seconds,
                timing_seconds=evaluator.timing_seconds,
                share=truth.share_of(found),
            )
        )

    manifest = dataclasses.replace(
        table.manifest,
        sampler=sampler,
        seed=seed,
        trials=len(table.rows),
        eta=None if rungs == FULL else reduction_factor,
    )
    loop = SearchLoop(
        _Unstored(manifest),
        manifest,
        evaluator,
        Resources(data=table.manifest.data.name),
        follow,
        prune=rungs == PRUNED,
        clock=lambda: evaluator.images,  # images are the time here, so that a limit on it is a budget
    )
    loop.run(timeout_s=trials * table.budgets[-1])
    return Replay(sampler=sampler, rungs=rungs, seed=seed, steps=tuple(steps), replay_seconds=time.monotonic() - start)


def run_samplers(
    table: Table, plan: SamplersPlan, emit: Emit, *, keep: Callable[[Sequence[Replay]], None] = lambda found: None
) -> list[Replay]:
    """Returns all replays of a plan, search by search and by seed.

    Args:
        table: The table.
        plan: What to replay.
        emit: Told when the next search's turn has come.
        keep: Called with all replays so far whenever those of a search are whole.

    Raises:
        UsageError: The table is not whole.
        WorkerDiedError: One of several processes ended by itself.
        KeyboardInterrupt: The user stopped it; what `keep` was given is all there is.
    """
    table.check_whole()
    truth, cells = Truth(table), plan.list_cells()
    errands = [(sampler, rungs, seed) for sampler, rungs in cells for seed in range(plan.seeds)]
    found: dict[tuple[str, str, int], Replay] = {}
    done = 0
    emit(_stepped(cells, 0))
    for replay in map_unordered(_replay, errands, jobs=plan.jobs, begin=_begin, given=(table, truth, plan)):
        found[replay.sampler, replay.rungs, replay.seed] = replay
        while done < len(cells) and all((*cells[done], seed) in found for seed in range(plan.seeds)):
            done += 1
            keep([found[errand] for errand in errands[: done * plan.seeds]])
            if done < len(cells):
                emit(_stepped(cells, done))
    return [found[errand] for errand in errands]


def _stepped(cells: Sequence[tuple[str, str]], done: int) -> BenchStepped:
    sampler, rungs = cells[done]
    return BenchStepped(text=f"{sampler}, rungs: {rungs}", done=done, total=len(cells))


_given: tuple[Table, Truth, SamplersPlan]


def _begin(table: Table, truth: Truth, plan: SamplersPlan) -> None:
    """Gives a process what all its replays share, once."""
    global _given
    _given = table, truth, plan
    if plan.jobs > 1 and "gp" in plan.samplers:
        import torch

        torch.set_num_threads(1)  # its matrices are small, and replays share the cores


def _replay(errand: tuple[str, str, int]) -> Replay:
    table, truth, plan = _given
    sampler, rungs, seed = errand
    return replay_search(
        table,
        truth,
        sampler=sampler,
        rungs=rungs,
        seed=seed,
        trials=plan.trials_of(table),
        reduction_factor=plan.reduction_factor,
    )
