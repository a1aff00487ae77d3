"""The loop: choose a network, measure it, train it, write the record. One trial at a time."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from hilo_nas.arch import ArchConfig, describe_arch
from hilo_nas.calibration import read_timings
from hilo_nas.clock import utc_now
from hilo_nas.cost import NetworkCost, count_cost
from hilo_nas.errors import HiloNasError, NotEnoughMemoryError, SpaceExhaustedError
from hilo_nas.events import Emit, FrontChanged, Notice, SearchFinished, TrialFinished, TrialStarted
from hilo_nas.figures import probability_text
from hilo_nas.front import Front
from hilo_nas.manifest import Manifest
from hilo_nas.measurement import Measurement, ProxyScore
from hilo_nas.records import SAMPLED, Subject, TrialRecord
from hilo_nas.rounds import verdict_name
from hilo_nas.search.checkpoints import Checkpoints
from hilo_nas.search.executors import Executor
from hilo_nas.search.guessing import warn_of_guessing
from hilo_nas.search.ladder import Ladder
from hilo_nas.search.optuna_study import FITS, OptunaStudy, impute
from hilo_nas.search.raising import climb_raised
from hilo_nas.search.reasons import beyond, explain, kind_of
from hilo_nas.search.samplers import FeasibleSampler, build_sampler
from hilo_nas.search.signals import signals_held
from hilo_nas.search.takeover import Scored
from hilo_nas.space import KEPT_HARDLY, free_violations, limit_text, measured_chances, measured_violations
from hilo_nas.speeds import SpeedFolder
from hilo_nas.states import TrialState
from hilo_nas.study import StudyFolder
from hilo_nas.transitions import fail, interrupt, rule_out

__all__ = ["SearchLoop"]

_FAILURES_IN_A_ROW = 5
"""Failed trials do not count towards the total; so many in a row end the search and are due again in the next one, for
the fault is hardly the networks'. Peers do not count here: that some cannot run on small images is their own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A network that is due before the sampler is asked: an anchor, a peer, or one that was cut off."""

    subject: Subject
    origin: str
    params: dict[str, int] | None
    retry_of: int | None = None


class SearchLoop:
    """Runs trials of one study until its total is reached, the time is up, or the space is used up.

    Args:
        folder: The study's folder; this process holds its lock.
        manifest: The study's manifest.
        executor: Who measures and trains.
        emit: Takes the events.
        speeds: A table that stands in for timing: only its networks are tried, and of these only those that keep the
            limits by that table.
        reused: Networks of another study that come first, with their scores; its peers only where they are asked for.
        checkpoint_mib: What trainings that may be gone on with may take on disk; 0 keeps none.
        prune: Whether the sampler is told that a network was stopped, instead of what it would have reached.
        between: Called with the records after each trial; returns whether it rewrote some of them on disk.
        clock: Returns seconds, monotonic.
    """

    def __init__(
        self,
        folder: StudyFolder,
        manifest: Manifest,
        executor: Executor,
        emit: Emit,
        *,
        speeds: SpeedFolder | None = None,
        reused: Sequence[Scored] = (),
        checkpoint_mib: float = 0.0,
        prune: bool = False,
        between: Callable[[Sequence[TrialRecord]], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reused = [item for item in reused if not item.is_peer]
        self._scores = {item.subject.key: item.scores for item in reused}
        self._folder, self._manifest, self._executor, self._emit, self._clock = folder, manifest, executor, emit, clock
        self._space, self._limits, self._between = manifest.space, manifest.limits_in_force, between
        self._timed = None if speeds is None else speeds.load_keeping(self._limits)
        self._checkpoints = Checkpoints(folder.checkpoints_path, budget_mib=checkpoint_mib, seed=manifest.seed)
        self._checkpoints.remove_drafts()
        self._ladder = Ladder(manifest, executor, self._checkpoints, emit)
        self.records = folder.load_records()
        self._front = Front.from_records(self.records)
        self._told_front: tuple[tuple[float, float], ...] = ()
        self._close_leftovers()
        self._known = {record.key for record in self.records if not record.is_interrupted}
        sampler = FeasibleSampler(
            functools.partial(build_sampler, manifest.sampler),
            self._space,
            excess=self._excess,
            is_known=self._is_known,
            seed=manifest.seed,
            count_proposals=lambda: sum(r.origin == SAMPLED and r.retry_of is None for r in self.records),
            pool=None if self._timed is None else [r.params for r in self._timed.values() if r.params is not None],
        )
        self._optuna = OptunaStudy(self._space, sampler, limits=self._limits, prune=prune)

    @property
    def measured(self) -> int:
        """Networks measured so far in the study."""
        return sum(record.is_measured for record in self.records)

    def run(self, *, timeout_s: float | None = None) -> SearchFinished:
        """Runs trials up to the manifest's total, and its peers whatever that is; returns how it ended.

        Raises:
            HiloNasError: The device, the data or the disk cannot serve, or trials fail one after the other.
            KeyboardInterrupt: The user stopped it; the trial under way is closed and queued again.
        """
        start = self._clock()
        stopped_by = "total"
        failures: list[int] = []
        climb_raised(self.records, self._ladder, self._checkpoints, self._write, self._emit, self._clock)
        self._tell_front()
        while self.measured < self._manifest.trials or self._due_peer() is not None:
            if timeout_s is not None and self._clock() - start >= timeout_s:
                stopped_by = "timeout"
                break
            try:
                record = self._choose()
            except SpaceExhaustedError:
                stopped_by = "exhausted"
                break
            record = self._run_trial(record)
            if self._between is not None and self._between(self.records):
                self._reload()
            self._tell_front()
            if record.is_peer:
                continue
            failures = [*failures, len(self.records) - 1] if record.state == TrialState.FAILED else []
            if len(failures) >= _FAILURES_IN_A_ROW:
                self._give_up(failures)
        return SearchFinished(
            study=self._folder.name,
            measured=self.measured,
            total=self._manifest.trials,
            stopped_by=stopped_by,
            seconds=self._clock() - start,
        )

    def _reload(self) -> None:
        """Takes up what was timed again: a network may keep its limits now, or break them, or be due for training."""
        self.records = self._folder.load_records()
        self._front = Front.from_records(self.records)
        self._known = {record.key for record in self.records if not record.is_interrupted}

    def _give_up(self, failures: Sequence[int]) -> NoReturn:
        """Marks failed trials, given by their places, as due again and ends the search."""
        reason = self.records[failures[-1]].reason
        for i in failures:
            self.records[i] = self._write(interrupt(self.records[i], self.records[i].reason or ""))
        raise HiloNasError(
            f"{len(failures)} trials failed one after the other, the last one because: {reason}. What the workers "
            f"printed is in {self._folder.logs_path}. The next search in this study tries these networks again."
        )

    def _close_leftovers(self) -> None:
        """Closes as failed what a killed search left running; what it measured stays in the record."""
        for i, record in enumerate(self.records):
            if record.state == TrialState.RUNNING:
                self.records[i] = self._write(interrupt(record, finished_at=utc_now()))

    def _tell_front(self) -> None:
        """Tells of the front where it has changed."""
        measured = [(record.measurement, record.score) for record in self._front.members]
        points = tuple((speed.images_per_s, score.value) for speed, score in measured if speed and score)
        if points != self._told_front:
            self._told_front = points
            self._emit(FrontChanged(points=points))

    def _due(self) -> _Candidate | None:
        """Returns the next network that does not wait for the sampler: anchors, peers, those cut off or taken over."""
        for anchor in self._space.anchors if self.measured < self._manifest.trials else ():
            subject = Subject(arch=anchor.arch)
            if self._is_due(subject):
                params = None if anchor.outside else self._space.encode(anchor.arch)
                return _Candidate(subject=subject, origin=f"anchor:{anchor.name}", params=params)
        if (peer := self._due_peer()) is not None:
            return peer
        for record in self.records:
            if record.is_interrupted and record.key not in self._known:
                return _Candidate(
                    subject=record.subject, origin=record.origin, params=record.params, retry_of=record.number
                )
        for item in self._reused:
            if self._is_due(item.subject):
                return _Candidate(subject=item.subject, origin=item.origin, params=item.params)
        return None

    def _due_peer(self) -> _Candidate | None:
        """Returns the next network of others; one that was cut off comes again, one that failed does not."""
        for peer in self._manifest.peers:
            subject = Subject(timm=peer.removeprefix("timm:"))
            if self._is_due(subject):
                return _Candidate(subject=subject, origin=f"peer:{subject.timm}", params=None)
        return None

    def _is_due(self, subject: Subject) -> bool:
        """Whether a network is not yet known, and can be tried at all where a table of speeds stands in for timing."""
        return subject.key not in self._known and (self._timed is None or subject.key in self._timed)

    def _choose(self) -> TrialRecord:
        """Returns the next trial's record, written as running before anything is spent on it."""
        due = self._due()
        memory, retry_of = {}, None
        if due is None:
            if not self._space.dimensions and not self._is_due(Subject(arch=self._space.decode({}))):
                raise SpaceExhaustedError  # Optuna asks no sampler where there is nothing to choose
            proposal = self._optuna.propose(self.records)
            params: dict[str, int] | None = proposal.params
            subject, origin = Subject(arch=self._space.decode(proposal.params)), SAMPLED
            memory = proposal.sampler_memory
        else:
            subject, origin, params, retry_of = due.subject, due.origin, due.params, due.retry_of
        cost = None if subject.arch is None else self._cost(subject.arch)
        record = TrialRecord(
            number=self.records[-1].number + 1 if self.records else 0,
            subject=subject,
            state=TrialState.RUNNING,
            params=params,
            origin=origin,
            retry_of=retry_of,
            parameters=None if cost is None else cost.parameters,
            macs=None if cost is None else cost.macs,
            violations=free_violations(self._limits, parameters=cost.parameters, macs=cost.macs) if cost else {},
            sampler_memory=memory,
            measurements=self._measured_before(subject.key),
            started_at=utc_now(),
        )
        self.records.append(self._write(record))
        self._known.add(record.key)
        self._emit(
            TrialStarted(
                number=record.number,
                key=record.key,
                params_m=None if cost is None else cost.parameters / 1e6,
                gmacs=None if cost is None else cost.macs / 1e9,
                origin=origin,
            )
        )
        return record

    def _run_trial(self, record: TrialRecord) -> TrialRecord:
        """Measures, trains and closes one trial."""
        start = self._clock()
        try:
            ended = self._evaluate(record)
        except NotEnoughMemoryError as error:
            ended, reason = self.records[-1], f"out of memory while timing: {error}"
            if record.is_peer:
                ended = fail(ended, reason)
            else:
                violations = {**record.violations, FITS: 1.0}
                ended = rule_out(ended, reason, violations=violations, imputed=self._impute(None))
        except BaseException as error:
            if not isinstance(error, HiloNasError) or error.is_fatal:
                self._close(interrupt(self.records[-1]), start)
                raise
            ended = fail(self.records[-1], f"{kind_of(error)}: {error}")
        closed = self._close(ended, start)
        self._checkpoints.prune(self.records)
        if closed.is_peer and closed.state == TrialState.FAILED:
            text = f"{closed.key} is left out of the comparison and not tried again here: {closed.reason}"
            self._emit(Notice(level="warning", text=text))
        return closed

    def _close(self, ended: TrialRecord, start: float) -> TrialRecord:
        """Writes how the trial under way ended, and tells of it."""
        closed = dataclasses.replace(ended, finished_at=utc_now(), seconds=self._clock() - start)
        self._rewrite(closed)
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
                is_peer=closed.is_peer,
                metric=self._manifest.plan.score_metric,
                network=describe_arch(closed.subject.arch) if closed.subject.arch else "",
            )
        )
        if warning := warn_of_guessing(self._manifest, closed):
            self._emit(warning)
        return closed

    def _evaluate(self, record: TrialRecord) -> TrialRecord:
        """Returns the trial as it ends, in the order of cost; what was measured is written before the training begins.

        A peer has no limits to keep: it is never proposed, and where it stands is worth knowing all the same.
        """
        if record.is_peer:
            cost = self._executor.count(record.subject, self._emit)
            record = dataclasses.replace(record, parameters=cost.parameters, macs=cost.macs)
        if over := beyond(record.violations):
            # Only an anchor or a changed limit comes here: the sampler's proposals keep what formulas can tell.
            return rule_out(record, explain(over, record, self._limits))
        if not self._is_timed(record):
            measurements = self._executor.measure(record.subject, self._emit, rivals=self._front.members)
            record = dataclasses.replace(record, measurements=measurements)
            record = self._timed_again_if_doubtful(record)
        limits = {} if record.is_peer else self._limits
        violations = {**record.violations, **measured_violations(limits, record.measurements)}
        record = dataclasses.replace(record, violations=violations)
        self._rewrite(record)
        if over := beyond(violations):
            return rule_out(record, explain(over, record, self._limits), imputed=self._impute(record.measurement))
        scores = self._scores.get(record.key) or self._scored_before(record.key)
        record = dataclasses.replace(record, scores=scores)
        for scored in self._ladder.climb(record, self.records):
            record = scored
            if not self._ladder.is_at_top(record):  # the last score is written with the ending
                self._rewrite(record)
        return self._ladder.end(record, self.records)

    def _timed_again_if_doubtful(self, record: TrialRecord) -> TrialRecord:
        """Times a network again that seems to break a limit but may keep it; the better timing counts."""
        limits = {} if record.is_peer or self._timed is not None else self._limits
        chances = measured_chances(limits, record.measurements)
        over = beyond(measured_violations(limits, record.measurements))
        if not over or min(chances[name] for name in over) < KEPT_HARDLY:
            return record
        doubtful = " and ".join(
            f"{limit_text(name, limits[name])} with {probability_text(chances[name])}" for name in over
        )
        self._emit(Notice(text=f"trial {record.number} is timed again, because it may keep {doubtful}"))
        again = self._executor.measure(record.subject, self._emit, rivals=self._front.members)
        joined = dataclasses.replace(record, measurements=(*again, *record.measurements))
        return read_timings([joined], self._manifest)[0]

    def _measured_before(self, key: str) -> tuple[Measurement, ...]:
        """What a trial that was cut off had measured of the same network."""
        return next((r.measurements for r in reversed(self.records) if r.key == key and r.measurements), ())

    def _scored_before(self, key: str) -> tuple[ProxyScore, ...]:
        """The scores of the same network where its trial was cut off, or its timing failed in a re-timing."""
        return next((r.scores for r in reversed(self.records) if r.key == key and r.scores), ())

    def _is_timed(self, record: TrialRecord) -> bool:
        """Whether the record has what its network's retry need not take again: a comparable value per condition."""
        timed = {m.condition.label() for m in record.measurements if self._manifest.is_comparable(m)}
        return timed >= {condition.label() for condition in self._manifest.conditions}

    def _impute(self, measurement: Measurement | None) -> dict[str, float]:
        """What the sampler is told in place of what was not taken."""
        found = impute(self.records, chance_top1=self._manifest.chance)
        return {name: value for name, value in found.items() if name != "images_per_s" or measurement is None}

    def _cost(self, arch: ArchConfig) -> NetworkCost:
        classes = self._manifest.data.num_classes
        return count_cost(arch, self._manifest.objective.img_size, num_classes=classes)

    def _excess(self, params: Mapping[str, int]) -> float:
        cost = self._cost(self._space.decode(params))
        found = free_violations(self._limits, parameters=cost.parameters, macs=cost.macs)
        return sum(max(value, 0.0) for value in found.values())

    def _is_known(self, params: Mapping[str, int]) -> bool:
        return self._space.decode(params).key() in self._known

    def _rewrite(self, record: TrialRecord) -> None:
        """Puts the trial under way in its new state; here first, so that a stop after the writing finds it so."""
        self.records[-1] = record
        self._write(record)

    def _write(self, record: TrialRecord) -> TrialRecord:
        with signals_held():
            self._folder.write_record(record)
        self._front = self._front.updated(record)
        return record
