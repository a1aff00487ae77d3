"""Search loop: choose a network, measure it, train it, write its record.

Runs as many trials at once as the evaluator has slots. Each trial is a sequence of tasks. Decisions within a trial
(rivals, limits, rungs) use the records that are known at that moment. With one slot, trials run one after the other.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from hilo_nas.arch.config import ArchConfig, describe_arch
from hilo_nas.arch.cost import NetworkCost, count_cost
from hilo_nas.clock import utc_now
from hilo_nas.errors import HiloNasError, NotEnoughMemoryError, OutOfMemoryError, SpaceExhaustedError
from hilo_nas.evaluation import Evaluator, Score, Steps, Time, drive
from hilo_nas.events import Emit, FrontChanged, Notice, SearchFinished, TrialFinished, TrialStarted
from hilo_nas.measurement import Measurement, devices_of
from hilo_nas.measurement.verdicts import verdict_name
from hilo_nas.searching.forecast.study_forecast import forecast_study
from hilo_nas.searching.halving.budget_increase import train_to_larger_budget
from hilo_nas.searching.halving.chance_scores import warn_of_guessing
from hilo_nas.searching.halving.checkpoint_retention import checkpoint_name, discardable_checkpoints
from hilo_nas.searching.halving.rung_training import RungTraining
from hilo_nas.searching.sampling.candidates import measure_excess
from hilo_nas.searching.sampling.model_sampler import LookAhead, ModelSampler
from hilo_nas.searching.sampling.optuna_study import OptunaStudy, impute
from hilo_nas.searching.sampling.samplers import FeasibleSampler, build_sampler
from hilo_nas.searching.tasks.network_timing import NetworkTiming
from hilo_nas.searching.tasks.reasons import describe_failures, describe_retries, error_kind, explain_violations
from hilo_nas.searching.tasks.signals import defer_signals
from hilo_nas.searching.tasks.study_tasks import Resources, StudyTasks
from hilo_nas.space import (
    broken_limits,
    free_violations,
    measured_violations,
)
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import FITS, SAMPLED, Subject, TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.study.transitions import begin, fail, interrupt, mark_timed, rule_out
from hilo_nas.text.commands import command
from hilo_nas.text.plurals import count_of

__all__ = ["SearchLoop"]

HILO = "hilo"
"""Sampler that uses models of speed and value (`ModelSampler`). The others are Optuna's."""
_NEXT, _FORECAST_EVERY = 10, 5
"""Number of further networks whose expected gain may end a search, and of trained networks between two predictions."""
_FAILURES_IN_A_ROW = 5
"""Number of consecutive failed trials that end the search.

Failed trials do not count towards the total. After this many in a row, the cause is probably not the networks, so the
trials become due again in the next search. Baselines do not count, because some of them cannot process small images.
"""
_MOST_FAILURES = 2
"""Number of failures after which a network is not tried again, also if many networks in a row failed."""


class SearchLoop:
    """Runs trials of one study until the total, the timeout or the end of the space is reached.

    Args:
        study: The study; this process holds its lock.
        manifest: Manifest of the study.
        evaluator: Measures and trains networks.
        resources: Target device and references that the tasks use.
        emit: Receives all events.
        prune: True to report stopped networks to the sampler as pruned, instead of with an extrapolated value.
        between: Called with the records after a trial when none is running. Returns True if it rewrote records on disk.
        clock: Returns the monotonic time in seconds.
    """

    def __init__(
        self,
        study: StoredStudy,
        manifest: Manifest,
        evaluator: Evaluator,
        resources: Resources,
        emit: Emit,
        *,
        prune: bool = False,
        between: Callable[[Sequence[TrialRecord]], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study, self._manifest, self._emit, self._clock = study, manifest, emit, clock
        self._evaluator, self._tasks = evaluator, StudyTasks.of(manifest, resources)
        self._timing = NetworkTiming(study, manifest, self._tasks, emit)
        self._space, self._limits, self._between = manifest.space, manifest.limits_in_force, between
        self._has_ended = False
        """True if a trial has ended since the last call of `between`."""
        self._looks_ahead, self._is_looking_ahead = True, False
        """True if networks may be timed before a proposal, and True while they are."""
        self._forecast_at = 0
        """Number of fully trained networks when the gain of further ones was predicted."""
        self._failures: list[tuple[int, HiloNasError]] = []
        """Numbers and errors of the latest consecutive failed trials."""
        self._reported_front: tuple[tuple[float, float], ...] = ()
        self._known: set[str] = set()
        """Keys of networks that are not tried again."""
        for record in study.records:
            if record.state == TrialState.RUNNING:  # left by a killed search; keep its measurements
                self._write(interrupt(record, finished_at=utc_now()))
        self._refresh_known()
        candidates = self._candidates() if manifest.speeds is not None else None
        pool = None if candidates is None else [r.params for r in candidates if r.params is not None]
        self._sampler = self._build_sampler(pool, prune=prune)
        decide = self._sampler.is_worth_more if isinstance(self._sampler, ModelSampler) else None
        self._rung_training = RungTraining(manifest, resources, emit, decide=decide)

    def _build_sampler(self, pool: Sequence[Mapping[str, int]] | None, *, prune: bool) -> ModelSampler | OptunaStudy:
        manifest = self._manifest
        if manifest.sampler == HILO:
            return ModelSampler(manifest, is_known=lambda key: key in self._known, pool=pool)
        sampler = FeasibleSampler(
            functools.partial(build_sampler, manifest.sampler),
            self._space,
            excess=measure_excess(manifest),
            is_known=self._is_known,
            seed=manifest.seed,
            count_proposals=lambda: len({record.key for record in self.records if record.is_proposal}),
            pool=pool,
        )
        return OptunaStudy(self._space, sampler, limits=self._limits, prune=prune)

    @property
    def records(self) -> Sequence[TrialRecord]:
        """Records of the study, ordered by trial number."""
        return self._study.records

    @property
    def measured(self) -> int:
        """Number of networks measured so far in the study."""
        return sum(record.is_measured for record in self.records)

    def run(self, *, timeout_s: float | None = None, min_gain: float | None = None) -> SearchFinished:
        """Runs trials up to the manifest's total, and all baselines of the manifest.

        Args:
            timeout_s: Seconds after which no new trial begins; None for no limit.
            min_gain: Expected growth of the hypervolume by ten more networks, as a share, below which no new network is
                proposed; None to run up to the total.

        Raises:
            HiloNasError: The device, the data or the disk fails, or consecutive trials fail.
            KeyboardInterrupt: The user stopped the search. Running trials are closed and queued again.
        """
        start = self._clock()
        stopped_by = "total"

        def begin_next() -> Steps[None] | None:
            nonlocal stopped_by
            self._remeasure_if_idle()
            self._report_front()
            running = sum(r.state == TrialState.RUNNING and not r.is_baseline for r in self.records)
            if self.measured + running >= self._manifest.trials and self._due_baseline() is None:
                return None
            if timeout_s is not None and self._clock() - start >= timeout_s:
                stopped_by = "timeout"
            elif stopped_by == "total":
                try:
                    due = self._due()
                    if due is None and min_gain is not None and self._expects_less(min_gain):
                        stopped_by = "gain"
                        return None
                    if due is None and self._is_looking_ahead:
                        return None  # the next network depends on the timings under way
                    if due is None and self._looks_ahead and (ahead := self._sampler.look_ahead(self.records)):
                        self._is_looking_ahead = True
                        return self._look_ahead(ahead)
                    record = due or self._proposed()
                    return self._trial(self._start(record).number, is_resumed=record.state == TrialState.STOPPED)
                except SpaceExhaustedError:
                    stopped_by = "exhausted"
            return None

        slots = max(self._evaluator.slots(kind) for kind in (Time.kind, Score.kind))
        train_to_larger_budget(
            self._study, self._rung_training, self._write, self._prune, self._evaluator, self._emit, self._clock
        )
        self._report_front()
        drive(begin_next, self._evaluator, self._emit, at_once=slots)
        return SearchFinished(
            study=self._study.name,
            measured=self.measured,
            total=self._manifest.trials,
            stopped_by=stopped_by,
            seconds=self._clock() - start,
        )

    def _expects_less(self, min_gain: float) -> bool:
        """Returns True if further networks are expected to add less than a share of the hypervolume.

        The models are asked again after every few trained networks, because they take seconds.
        """
        trained = sum(record.state == TrialState.COMPLETE for record in self.records)
        if trained < self._forecast_at + _FORECAST_EVERY:
            return False
        self._forecast_at = trained
        found = forecast_study(self.records, self._manifest)
        gains = [own.hypervolume_gain for own in found.outlook if own.networks <= _NEXT] if found is not None else []
        return bool(gains) and gains[-1] < min_gain

    def _refresh_known(self) -> None:
        self._known = {record.key for record in self.records if not record.is_open}

    def _record(self, number: int) -> TrialRecord:
        return self._study.front().by_number[number]

    def _candidates(self) -> list[TrialRecord]:
        """Returns the networks with copied timings that are in the space and meet the limits."""
        return [r for r in self.records if r.state == TrialState.TIMED and not r.is_baseline and self._can_be_tried(r)]

    def _can_be_tried(self, record: TrialRecord) -> bool:
        """Returns True if a network can be tried here.

        With copied timings (`Manifest.speeds`), only networks that were timed and meet the limits can be tried.
        """
        if self._manifest.speeds is None:
            return True
        limits = {} if record.is_baseline else self._limits
        return self._timing.is_timed(record) and not broken_limits(measured_violations(limits, record.measurements))

    def _remeasure_if_idle(self) -> None:
        """Calls `between` if a trial has ended since the last call and nothing is running.

        The new timings may change which limits a network meets, so the set of known networks is rebuilt afterwards.
        """
        if not self._has_ended or self._is_looking_ahead:
            return
        if any(record.state == TrialState.RUNNING for record in self.records):
            return
        self._has_ended = False
        if self._between is not None and self._between(self.records):
            self._refresh_known()

    def _give_up(self, failures: Sequence[tuple[int, HiloNasError]]) -> NoReturn:
        """Marks failed trials as due again, unless their network has failed before, and ends the search."""
        failed = [self._record(number) for number, _ in failures]
        again = [record for record in failed if record.failures < _MOST_FAILURES]
        for record in again:
            self._write(interrupt(record, record.reason or ""))
        target = self._tasks.resources.target  # several devices; a single one is the default
        is_named = len(devices_of(target)) > 1 and "@" not in target  # a cluster names its devices anew
        options = ("--device", target) if is_named else ()
        raise HiloNasError(
            f"{describe_failures([error for _, error in failures])}. {failures[-1][1].remedy}. The output of the "
            f"workers is in {self._study.logs_path}. {describe_retries(len(again), len(failed))} Resume with: "
            f"{command('search', '--study', self._study.address, *options)}"
        )

    def _report_front(self) -> None:
        """Emits `FrontChanged` if the front has changed."""
        measured = [(record.measurement, record.score) for record in self._study.front().members]
        points = tuple((speed.images_per_s, score.value) for speed, score in measured if speed and score)
        if points != self._reported_front:
            self._reported_front = points
            self._emit(FrontChanged(points=points))

    def _due(self) -> TrialRecord | None:
        """Returns the record of the next network that the sampler need not propose; None if there is none.

        Anchors come first, then baselines, interrupted trials and queued trials.
        """
        for anchor in self._space.anchors if self.measured < self._manifest.trials else ():
            params = None if anchor.outside else self._space.encode(anchor.arch)
            record = self._record_of(Subject(arch=anchor.arch), f"anchor:{anchor.name}", params)
            if self._is_due(record):
                return record
        if (baseline := self._due_baseline()) is not None:
            return baseline
        queued = [record for record in self.records if record.state == TrialState.WAITING and not record.is_baseline]
        for record in (*(record for record in self.records if record.is_interrupted), *queued):
            if self._is_due(record):
                return record
        return None

    def _due_baseline(self) -> TrialRecord | None:
        """Returns the record of the next baseline; None if there is none. Failed baselines are not tried again."""
        for baseline in self._manifest.baselines:
            subject = Subject(timm=baseline.removeprefix("timm:"))
            record = self._record_of(subject, f"baseline:{subject.timm}", None)
            if self._is_due(record):
                return record
        return None

    def _is_due(self, record: TrialRecord) -> bool:
        return record.key not in self._known and self._can_be_tried(record)

    def _record_of(self, subject: Subject, origin: str, params: dict[str, int] | None) -> TrialRecord:
        """Returns the newest record of the network whose trial must still run.

        Without such a record, returns a new one with the next trial number.
        """
        for record in reversed(self.records):
            if record.key == subject.key and record.is_open:
                return record
        number = max((record.number for record in self.records), default=-1) + 1
        return TrialRecord(number=number, subject=subject, state=TrialState.WAITING, params=params, origin=origin)

    def _proposed(self) -> TrialRecord:
        """Returns the record of the sampler's next proposal."""
        if not self._space.dimensions:  # Optuna does not call the sampler for an empty space
            only = self._record_of(Subject(arch=self._space.decode({})), SAMPLED, {})
            if not self._is_due(only):
                raise SpaceExhaustedError
        proposal = self._sampler.propose(self.records)
        subject = Subject(arch=self._space.decode(proposal.params))
        for record in self.records:
            if record.key == subject.key and record.state == TrialState.STOPPED:
                return record  # its training continues
        record = self._record_of(subject, SAMPLED, proposal.params)
        return dataclasses.replace(record, sampler_memory=proposal.sampler_memory)

    def _look_ahead(self, ahead: LookAhead) -> Steps[None]:
        """Times networks before a proposal and writes their records.

        A network that cannot be timed is not proposed again. If a timing of several networks fails as a whole, the
        search continues without such timings.
        """
        found = [self._record_of(Subject(arch=self._space.decode(own)), SAMPLED, own) for own in ahead.networks]
        failures: Mapping[str, HiloNasError] = {}
        measured: dict[str, tuple[Measurement, ...]] = {}
        try:
            if ahead.is_brief:
                task = self._tasks.time([r.subject for r in found], self._manifest.objective, is_brief=True)
                timing = yield task
                measured = {key: (found,) for key, found in timing.measurements.items()}
                failures = {key: _as_of_one_network(error) for key, error in timing.failures.items()}
                seconds = sum(measurement.seconds for measurement in timing.measurements.values())
                count = count_of(len(measured), "network")
                self._emit(Notice(text=f"{count} timed briefly in {seconds:.0f} s to choose the next one"))
            else:
                (record,) = found
                timed = yield from self._timing.time(record, functools.partial(self._keep_ahead, ahead.memory))
                measured[record.key] = timed.measurements
        except HiloNasError as error:
            if error.is_fatal:
                raise
            if len(found) > 1:
                self._looks_ahead = False
                self._emit(Notice(level="warning", text=f"networks are no longer timed before a proposal: {error}"))
            failures = {record.key: error for record in found if len(found) == 1}
        finally:
            self._is_looking_ahead = False
        for own in found:
            record = self._ahead(own, ahead.memory)
            if record.key in failures:
                self._finish(self._ended_by(failures[record.key], record))
            elif record.key in measured:
                # `_keep_ahead` may have added the seconds of the same timings.
                self._write_timed(dataclasses.replace(record, seconds=own.seconds), measured[record.key])
        if any(record.key in measured or self._is_misfit(failures.get(record.key)) for record in found):
            self._failures = []
        elif failures:
            failed = [record for record in self.records if record.key in failures]
            self._failures += [(record.number, failures[record.key]) for record in failed]
            self._give_up_if_all_fail()

    def _ahead(self, record: TrialRecord, memory: dict[str, Any]) -> TrialRecord:
        """Returns the stored or a new record of a network that is timed before a proposal.

        Trials that began meanwhile may have taken the number of `record`.
        """
        found = self._with_cost(self._record_of(record.subject, SAMPLED, record.params))
        return dataclasses.replace(found, sampler_memory=memory)

    def _keep_ahead(self, memory: dict[str, Any], timed: TrialRecord) -> None:
        """Writes the timings so far of a network that is timed before a proposal."""
        seconds = timed.seconds + sum(measurement.seconds for measurement in timed.measurements)
        self._write(mark_timed(self._ahead(timed, memory), measurements=timed.measurements, seconds=seconds))

    def _write_timed(self, record: TrialRecord, timings: tuple[Measurement, ...]) -> None:
        """Writes the record of a network that was timed before a proposal.

        A full timing may show that the network violates a limit. A brief one is not certain enough for that.
        """
        violations = {**record.violations, **measured_violations(self._limits, timings)}
        record = dataclasses.replace(
            record,
            measurements=timings,
            violations=violations,
            seconds=record.seconds + sum(measurement.seconds for measurement in timings),
        )
        over = broken_limits(violations)
        if over and not timings[0].is_preliminary:
            reason = explain_violations(over, record, self._limits)
            self._finish(rule_out(record, reason, imputed=self._impute(record.measurement)))
        else:
            self._write(mark_timed(record))

    def _with_cost(self, record: TrialRecord) -> TrialRecord:
        """Returns the record with the costs of its network and the violations that follow from them."""
        if record.subject.arch is None:
            return record
        cost = self._cost(record.subject.arch)
        return dataclasses.replace(
            record,
            parameters=cost.parameters,
            macs=cost.macs,
            violations=free_violations(self._limits, parameters=cost.parameters, macs=cost.macs),
        )

    def _start(self, record: TrialRecord) -> TrialRecord:
        """Returns the record of the next trial, written as running before the trial begins."""
        record = begin(self._with_cost(record), started_at=utc_now())
        self._write(record)
        self._emit(
            TrialStarted(
                number=record.number,
                key=record.key,
                params_m=None if record.parameters is None else record.parameters / 1e6,
                gmacs=None if record.macs is None else record.macs / 1e9,
                origin=record.origin,
            )
        )
        return record

    def _trial(self, number: int, *, is_resumed: bool) -> Steps[None]:
        """Measures, trains and closes one trial.

        Args:
            number: Number of the trial.
            is_resumed: True if its training was stopped at a rung and continues.
        """
        start = self._clock()
        failure: HiloNasError | None = None
        try:
            ended = yield from self._evaluate(self._record(number), is_resumed)
        except BaseException as error:
            if not isinstance(error, HiloNasError) or error.is_fatal:
                self._close(interrupt(self._record(number)), start)
                raise
            failure, ended = error, self._ended_by(error, self._record(number))
        closed = self._close(ended, start)
        self._prune()
        if closed.is_baseline and closed.state == TrialState.FAILED:
            text = f"{closed.key} is excluded from the comparison and not tried again in this study: {closed.reason}"
            self._emit(Notice(level="warning", text=text))
        self._has_ended = True
        if closed.is_baseline:
            return
        if failure is not None and closed.state == TrialState.FAILED:
            self._failures = [*self._failures, (number, failure)]
        else:
            self._failures = []
        self._give_up_if_all_fail()

    def _give_up_if_all_fail(self) -> None:
        if len(self._failures) >= _FAILURES_IN_A_ROW:
            self._give_up(self._failures)

    @staticmethod
    def _is_misfit(error: HiloNasError | None) -> bool:
        return isinstance(error, NotEnoughMemoryError)

    def _ended_by(self, error: HiloNasError, record: TrialRecord) -> TrialRecord:
        """Returns the final record of a network that caused an error."""
        if not self._is_misfit(error):
            return fail(record, f"{error_kind(error)}: {error}")
        reason = f"out of memory while timing: {error}"
        if record.is_baseline:
            return fail(record, reason)
        imputed = self._impute(record.measurement)
        return rule_out(record, reason, violations={**record.violations, FITS: 1.0}, imputed=imputed)

    def _close(self, ended: TrialRecord, start: float) -> TrialRecord:
        """Writes the final record of a trial that began at `start` on the clock, and emits `TrialFinished`."""
        return self._finish(dataclasses.replace(ended, seconds=ended.seconds + self._clock() - start))

    def _finish(self, ended: TrialRecord) -> TrialRecord:
        """Writes the final record of a network and emits `TrialFinished`."""
        closed = dataclasses.replace(ended, finished_at=utc_now())
        self._write(closed)
        measurement, score = closed.measurement, closed.score
        self._emit(
            TrialFinished(
                number=closed.number,
                key=closed.key,
                state=closed.state,
                reason=closed.reason,
                images_per_s=measurement.images_per_s if measurement else None,
                verdict=verdict_name(measurement) if measurement else None,
                value=score.value if score else None,
                seconds=closed.seconds,
                measured=self.measured,
                total=self._manifest.trials,
                is_baseline=closed.is_baseline,
                metric=self._manifest.plan.score_metric,
                network=describe_arch(closed.subject.arch) if closed.subject.arch else "",
            )
        )
        if warning := warn_of_guessing(self._manifest, closed):
            self._emit(warning)
        return closed

    def _evaluate(self, record: TrialRecord, is_resumed: bool) -> Steps[TrialRecord]:
        """Returns the final record of a trial, evaluated in order of cost: limits, timing, training.

        Each measurement is written as soon as it is made. Baselines have no limits, because they are never proposed and
        only serve as comparison.
        """
        if record.is_baseline:
            cost = yield self._tasks.count(record.subject, self._manifest.objective.img_size)
            record = dataclasses.replace(record, parameters=cost.parameters, macs=cost.macs)
        if over := broken_limits(record.violations):
            # Only anchors or changed limits lead here, because proposals meet the limits on parameters and MACs.
            return rule_out(record, explain_violations(over, record, self._limits))
        record = yield from self._timing.time(record, self._write)
        limits = {} if record.is_baseline else self._limits
        violations = {**record.violations, **measured_violations(limits, record.measurements)}
        record = dataclasses.replace(record, violations=violations)
        self._write(record)
        if over := broken_limits(violations):
            return rule_out(
                record, explain_violations(over, record, self._limits), imputed=self._impute(record.measurement)
            )
        record = yield from self._rung_training.train(record, lambda: self.records, self._keep, is_resumed=is_resumed)
        return self._rung_training.finish(record, self.records)

    def _keep(self, record: TrialRecord) -> None:
        """Writes an intermediate score. The score at the full budget is written when the trial is closed."""
        if not self._rung_training.is_fully_trained(record):
            self._write(record)

    def _impute(self, measurement: Measurement | None) -> dict[str, float]:
        """Returns the values that the sampler receives instead of missing results, such as `{"value": 0.1}`."""
        found = impute(self.records, chance_top1=self._manifest.chance)
        return {name: value for name, value in found.items() if name != "images_per_s" or measurement is None}

    def _cost(self, arch: ArchConfig) -> NetworkCost:
        classes = self._manifest.data.num_classes
        return count_cost(arch, self._manifest.objective.img_size, num_classes=classes)

    def _is_known(self, params: Mapping[str, int]) -> bool:
        return self._space.decode(params).key() in self._known

    def _prune(self) -> None:
        """Discards checkpoints of trainings that are neither running nor due again."""
        seed = self._manifest.seed
        under_way = [r for r in self.records if r.is_raised or r.state == TrialState.RUNNING]
        needed = {checkpoint_name(record.key, seed) for record in under_way}
        self._evaluator.discard(discardable_checkpoints(self.records, [seed], needed))

    def _write(self, record: TrialRecord) -> None:
        with defer_signals():
            self._study.write(record)
            if record.is_open:
                self._known.discard(record.key)
            else:
                self._known.add(record.key)


def _as_of_one_network(error: HiloNasError) -> HiloNasError:
    """Returns the error of a network in shared rounds as its own timing would raise it.

    Such rounds split until a network that does not fit into memory is alone.
    """
    return NotEnoughMemoryError(str(error)) if isinstance(error, OutOfMemoryError) else error
