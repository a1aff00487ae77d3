"""Searches replayed on a benchmark table. The real search loop runs, but a table replaces timings and trainings.

The result of a search after a trial is the hypervolume of the networks that it has fully trained so far. The objectives
are log images/s and full-budget top-1 from the table, both scaled to the range of the table. If the table has trainings
with further seeds, top-1 is their mean, which the search does not see. The reference point is the worst value of each
objective in the table, so the measure does not depend on the search. Results are shares of the hypervolume of all
networks in the table. Stopped networks do not count.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.samplers.model_checks import ModelCheck, check_models
from benchmarks.samplers.processes import map_unordered
from benchmarks.tables.table import Table, TableRow, build_score
from hilo_nas.errors import UsageError
from hilo_nas.evaluation import DeviceReport, Finished, Message, Score, Scoring, Task, Time, Timing
from hilo_nas.events import BenchStepped, Emit, Event, TrialFinished
from hilo_nas.measurement import Measurement, ProxyScore
from hilo_nas.searching.configuration.resolve import DEFAULT_REDUCTION_FACTOR
from hilo_nas.searching.configuration.search_config import SAMPLERS
from hilo_nas.searching.loop import HILO, SearchLoop
from hilo_nas.searching.tasks.study_tasks import Resources
from hilo_nas.study.front import speed_hypervolume
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import COPIED_SPEEDS, Subject, TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy

__all__ = [
    "EXTRAPOLATED",
    "FULL",
    "ORACLE",
    "PRUNED",
    "Replay",
    "SamplersPlan",
    "Step",
    "TableEvaluator",
    "Truth",
    "list_checkpoints",
    "replay_search",
    "run_samplers",
]

FULL = "none"
"""No rungs: every network is fully trained."""
EXTRAPOLATED = "extrapolated"
"""Rungs. The sampler receives an extrapolated top-1 for a stopped network."""
PRUNED = "pruned"
"""Rungs. The sampler receives the state pruned without a value for a stopped network."""
ORACLE = "foreseen"
"""Rungs whose scores are those of the full training. Real searches do not have such scores. The saving is an upper
bound, which perfect scores at the same rungs would reach."""
BRIEF_S, BRIEF_ERROR, BRIEF_COHORT_ERROR = 0.4, 0.06, 0.09
"""Assumed seconds per network of brief timings before a proposal, their relative error, and an error that all networks
timed together share. The table has only full timings.

The values are those of 6 x 31 networks of `litv2_tabular` in groups of eight on two shared cores (Intel Xeon, November
2026): 0.35 to 0.47 s, compared with 2.8 s of full timings, and errors of 3 to 9 % and 6 to 12 %."""
_MODEL_BASED = ("gp", "tpe")
"""Samplers that fit a model to earlier trials. Only they are also replayed with the rungs `PRUNED`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplersPlan:
    """Settings of the replays."""

    samplers: tuple[str, ...] = ("random", "nsga2", "tpe", "gp", "hilo")
    seeds: int = 10
    """Number of replays of each search, which differ only in the seed."""
    first_seed: int = 0
    """Seed of the first replay. Settings of a sampler must be chosen with other seeds than those of a claim."""
    trials_share: float = 0.12
    """Share of the table that a search without rungs trains. Results are also given at 1/2 and 1/4 of it."""
    reduction_factor: float = DEFAULT_REDUCTION_FACTOR
    """Reduction factor of the rungs: 1 of `reduction_factor` networks continues at each rung of the table."""
    speeds: bool = False
    """True if the speeds of all networks are known before the search, as with `hilo-nas search --speeds`."""
    jobs: int = 1
    """Number of parallel replays, each in a process. With 1, replays run in this process."""

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
        if self.first_seed < 0:
            faults.append(f"first_seed must be at least 0, but got {self.first_seed}")
        if not 0 < self.trials_share <= 1:
            faults.append(f"trials_share must be above 0 and at most 1, but got {self.trials_share:g}")
        if not 1 < self.reduction_factor < math.inf:
            faults.append(f"reduction_factor must be a number above 1, but got {self.reduction_factor:g}")
        if faults:
            raise UsageError("\n".join(faults))

    def trials_of(self, table: Table) -> int:
        """Returns the number of networks that a search without rungs trains."""
        return max(1, round(self.trials_share * len(table.rows)))

    def list_seeds(self) -> range:
        """Returns the seeds of the replays."""
        return range(self.first_seed, self.first_seed + self.seeds)

    def list_cells(self) -> list[tuple[str, str]]:
        """Returns the searches as pairs of a sampler and a kind of rungs (`FULL`, `EXTRAPOLATED`, ...)."""
        return [
            (sampler, rungs)
            for sampler in self.samplers
            for rungs in (FULL, EXTRAPOLATED, *[PRUNED] * (sampler in _MODEL_BASED), ORACLE)
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """State of a replay after a trial."""

    evaluations: int
    """Number of networks measured so far, including this trial's."""
    key: str
    """Key of the trial's network."""
    state: str
    """State of the trial: `complete` or `stopped`."""
    images: int
    """Number of training images so far."""
    seconds: float
    """Seconds of trainings and timings so far, from the table."""
    timing_seconds: float
    """Seconds of timings so far."""
    share: float
    """Share of the table's hypervolume found so far."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replay:
    """A replayed search."""

    sampler: str
    rungs: str
    """`FULL`, `EXTRAPOLATED`, `PRUNED` or `ORACLE`."""
    seed: int
    steps: tuple[Step, ...]
    models: tuple[ModelCheck, ...] = ()
    """Checks of the models of the sampler hilo after a quarter, half and all of the trainings, without rungs."""
    replay_seconds: float
    """Seconds of the replay itself."""


class Truth:
    """Hypervolumes of sets of networks, from the true values in a table.

    Args:
        table: Complete table.

    Raises:
        UsageError: All networks are equal in one of the objectives.
    """

    def __init__(self, table: Table) -> None:
        self._points = {row.key: (row.images_per_s, row.judged_top1(table.budgets[-1])) for row in table.rows}
        (slowest, fastest), (worst, best) = (
            (min(column), max(column)) for column in zip(*self._points.values(), strict=True)
        )
        if slowest == fastest or worst == best:
            raise UsageError("the networks of a table must differ in both speed and top-1, but they do not")
        self._ref_point = slowest, worst
        self._square: float = math.log(fastest / slowest) * (best - worst)

    @cached_property
    def total(self) -> float:
        """Hypervolume of all networks above the slowest speed and the worst top-1. At most 1."""
        return self._volume(self._points)

    def share_of(self, keys: Iterable[str]) -> float:
        """Returns the hypervolume of the networks with these keys, divided by that of the table."""
        return self._volume(keys) / self.total

    def _volume(self, keys: Iterable[str]) -> float:
        return speed_hypervolume((self._points[key] for key in keys), self._ref_point) / self._square


class TableEvaluator:
    """Evaluator that looks up results in a table and sums their cost. Tasks end immediately.

    Args:
        table: Table with every network of the search.
        seed: Seed of the errors of brief timings.
        is_oracle: True to return the score of the full budget at each rung, at the cost of the rung.
    """

    def __init__(self, table: Table, *, is_oracle: bool = False, seed: int = 0) -> None:
        self._table, self._is_oracle, self._seed = table, is_oracle, seed
        self._reached: dict[str, int] = {}
        self._ids, self._ended = itertools.count(), list[Message]()
        self.images = 0
        """Number of training images so far."""
        self.seconds = 0.0
        """Training seconds so far."""
        self.timing_seconds = 0.0
        """Timing seconds so far."""

    def submit(self, task: Task[Any]) -> str:
        """Looks up the result of a task and returns the task's id."""
        id = str(next(self._ids))
        if isinstance(task, Time):
            rows = [self._table.by_key[key] for key in task.entries]
            cohort = "/".join(sorted(task.entries)) if task.is_brief else None
            result: Any = Timing(measurements={row.key: self._time(row, cohort) for row in rows})
        else:
            assert isinstance(task, Score), "a table has only speeds and scores"
            result = Scoring(score=self._score(task))
        self._ended.append(Finished(id=id, result=result, seconds=0.0))
        return id

    def wait(self, timeout: float | None = None) -> list[Message]:
        """Returns the results of all tasks submitted since the last call."""
        ended, self._ended = self._ended, []
        return ended

    def _time(self, row: TableRow, cohort: str | None) -> Measurement:
        """Returns a timing from the table, a brief one if there is a cohort."""
        measurement = build_measurement(row, self._table)
        if cohort is not None:
            error = Random(f"{self._seed}/{row.key}").gauss(0.0, BRIEF_ERROR)
            error += Random(f"{self._seed}/{cohort}").gauss(0.0, BRIEF_COHORT_ERROR)
            measurement = dataclasses.replace(
                measurement,
                ratio=measurement.ratio * math.exp(error),
                seconds=BRIEF_S,
                is_preliminary=True,
                cohort=cohort,
            )
        self.timing_seconds += measurement.seconds
        return measurement

    def _score(self, task: Score) -> ProxyScore:
        """Returns the score of a task. A training resumes from the network's last score."""
        row, until = self._table.by_key[Subject.from_dict(task.subject).key], task.until
        assert until is not None, "a search must give the budget"
        reached = self._reached.get(row.key, 0)
        score = build_score(row, until, self._table, since=reached, seed=task.seed)
        self._reached[row.key] = until
        self.images += until - reached
        self.seconds += score.seconds
        if not self._is_oracle:
            return score
        full = build_score(row, self._table.budgets[-1], self._table, since=reached, seed=task.seed)
        return dataclasses.replace(full, images_seen=score.images_seen, seconds=score.seconds)

    def cancel(self, id: str) -> None:
        """Drops the result of a task."""
        self._ended = [message for message in self._ended if message.id != id]

    def slots(self, kind: str) -> int:
        """Returns 1: the replay runs one task at a time."""
        return 1

    def devices(self) -> list[DeviceReport]:
        """Returns an empty list, because a table has no devices."""
        return []

    def discard(self, references: Iterable[str]) -> None:
        """Does nothing, because a table has no checkpoints."""

    def close(self) -> None:
        """Does nothing."""


def build_measurement(row: TableRow, table: Table) -> Measurement:
    """Returns a network's timing with the values that the table has, without the samples of the rounds."""
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


class _InMemoryStudy(StoredStudy):
    """Study that writes no files."""

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
    speeds: bool = False,
) -> Replay:
    """Returns the replay of one search, with the training images of `trials` full trainings as its budget.

    Without rungs, the search trains `trials` networks. With rungs, it trains more, because most are stopped early.

    Args:
        table: Complete table.
        truth: True values of the table.
        sampler: One of `SAMPLERS`.
        rungs: `FULL`, `EXTRAPOLATED`, `PRUNED` or `ORACLE`.
        seed: Seed of the search. The trainings of the table have another seed.
        trials: Budget in full trainings.
        reduction_factor: Reduction factor of the rungs: 1 of `reduction_factor` networks continues at each rung.
        speeds: True if the speeds of all networks are known before the search.
    """
    start = time.monotonic()
    evaluator = TableEvaluator(table, is_oracle=rungs == ORACLE, seed=seed)
    steps: list[Step] = []
    found: list[str] = []
    models: list[ModelCheck] = []
    checked = list_checkpoints(trials) if (sampler, rungs) == (HILO, FULL) else ()

    def follow(event: Event) -> None:
        if not isinstance(event, TrialFinished):
            return
        if event.state == TrialState.COMPLETE:
            found.append(event.key)
            if len(found) in checked and (check := check_models(study.records, manifest, table)) is not None:
                models.append(check)
        steps.append(
            Step(
                evaluations=event.measured,
                key=event.key,
                state=event.state,
                images=evaluator.images,
                seconds=evaluator.seconds + evaluator.timing_seconds,
                timing_seconds=evaluator.timing_seconds,
                share=truth.share_of(found),
            )
        )

    manifest = dataclasses.replace(
        table.manifest,
        sampler=sampler,
        seed=seed,
        trials=len(table.rows),
        reduction_factor=None if rungs == FULL else reduction_factor,
        speeds=table.manifest.name if speeds else None,
    )
    study = _InMemoryStudy(manifest)
    for number, row in enumerate(table.rows if speeds else ()):
        study.write(_timed_record(number, row, table))
    loop = SearchLoop(
        study,
        manifest,
        evaluator,
        Resources(data=table.manifest.data.name),
        follow,
        prune=rungs == PRUNED,
        clock=lambda: evaluator.images,  # time is counted in images, so the timeout is a budget
    )
    loop.run(timeout_s=trials * table.budgets[-1])
    return Replay(
        sampler=sampler,
        rungs=rungs,
        seed=seed,
        steps=tuple(steps),
        models=tuple(models),
        replay_seconds=time.monotonic() - start,
    )


def list_checkpoints(trials: int) -> tuple[int, ...]:
    """Returns the numbers of trainings at which results are given: a quarter, a half, and all of them."""
    return tuple(max(1, round(trials / part)) for part in (4, 2, 1))


def _timed_record(number: int, row: TableRow, table: Table) -> TrialRecord:
    """Returns the record of a network whose timing was copied from the table."""
    return TrialRecord(
        number=number,
        subject=Subject(arch=table.space.decode(row.params)),
        state=TrialState.TIMED,
        params=row.params,
        origin=f"{COPIED_SPEEDS}{table.manifest.name}/{number}",
        parameters=row.parameters,
        macs=row.macs,
        measurements=(build_measurement(row, table),),
    )


def run_samplers(
    table: Table, plan: SamplersPlan, emit: Emit, *, keep: Callable[[Sequence[Replay]], None] = lambda found: None
) -> list[Replay]:
    """Returns all replays of a plan, sorted by search and seed.

    Args:
        table: Table with all networks of the space.
        plan: Settings of the replays.
        emit: Receives an event at the start of each search.
        keep: Function that is called with all replays so far, each time the replays of a search are complete.

    Raises:
        UsageError: The table is not complete.
        WorkerDiedError: One of several processes died.
        KeyboardInterrupt: The user interrupted the run. Only replays passed to `keep` are available.
    """
    table.check_complete()
    truth, cells = Truth(table), plan.list_cells()
    runs = [(sampler, rungs, seed) for sampler, rungs in cells for seed in plan.list_seeds()]
    found: dict[tuple[str, str, int], Replay] = {}
    done = 0
    emit(_build_event(cells, 0))
    for replay in map_unordered(_replay, runs, jobs=plan.jobs, initializer=_initialize, initargs=(table, truth, plan)):
        found[replay.sampler, replay.rungs, replay.seed] = replay
        while done < len(cells) and all((*cells[done], seed) in found for seed in plan.list_seeds()):
            done += 1
            keep([found[run] for run in runs[: done * plan.seeds]])
            if done < len(cells):
                emit(_build_event(cells, done))
    return [found[run] for run in runs]


def _build_event(cells: Sequence[tuple[str, str]], done: int) -> BenchStepped:
    sampler, rungs = cells[done]
    return BenchStepped(text=f"{sampler}, rungs: {rungs}", done=done, total=len(cells))


_shared: tuple[Table, Truth, SamplersPlan]


def _initialize(table: Table, truth: Truth, plan: SamplersPlan) -> None:
    """Stores the values that all replays in a process share."""
    global _shared
    _shared = table, truth, plan
    if plan.jobs > 1 and "gp" in plan.samplers:
        import torch

        torch.set_num_threads(1)  # its matrices are small, and replays share the cores


def _replay(run: tuple[str, str, int]) -> Replay:
    table, truth, plan = _shared
    sampler, rungs, seed = run
    return replay_search(
        table,
        truth,
        sampler=sampler,
        rungs=rungs,
        seed=seed,
        trials=plan.trials_of(table),
        reduction_factor=plan.reduction_factor,
        speeds=plan.speeds,
    )
