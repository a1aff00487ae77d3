"""The way up: a network is trained from rung to rung and scored at each, until others do better or it is at the top."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import cast

from hilo_nas.evaluation import Steps
from hilo_nas.events import Emit, RungReached
from hilo_nas.measurement import ProxyScore
from hilo_nas.proxy.recorded import score_record
from hilo_nas.searching.halving.checkpoint_retention import checkpoint_of
from hilo_nas.searching.halving.rungs import RungEntry, RungTable
from hilo_nas.searching.tasks.study_tasks import Resources, StudyTasks
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.transitions import complete, stop

__all__ = ["Ladder", "extrapolate"]


class Ladder:
    """Trains networks of one study; the table of who reached which rung is rebuilt from its records each time.

    Args:
        manifest: The study's: its plan says where to score, its `eta` how many go on.
        resources: What the study's tasks refer to.
        emit: Takes `RungReached`.
    """

    def __init__(self, manifest: Manifest, resources: Resources, emit: Emit) -> None:
        self._manifest, self._emit = manifest, emit
        self._tasks = StudyTasks.of(manifest, resources)
        self._budgets = manifest.plan.budgets

    def climb(
        self,
        record: TrialRecord,
        known: Callable[[], Sequence[TrialRecord]],
        keep: Callable[[TrialRecord], None],
        *,
        must_resume: bool = False,
    ) -> Steps[TrialRecord]:
        """Scores a network at one rung after the other; returns its record where it is stopped or fully trained.

        Scores that the record has already are not paid for again. Whether it goes on is decided by the records that
        are known at that moment.

        Args:
            record: A network with its speed.
            known: Returns the study's records, with or without this one.
            keep: Called with the record whenever it has gained a score.
            must_resume: Whether its training is not to begin again where no checkpoint of it was kept.

        Raises:
            NoCheckpointError: None was kept.
            HiloNasError: The training failed.
        """
        reached = max((score.images_seen for score in record.scores), default=0)
        for images in self._budgets:
            if images < reached:
                continue  # what was scored beyond was allowed to go on
            if images > reached:
                score = yield from self._score(record, images, must_resume)
                record = dataclasses.replace(record, scores=(*record.scores, score))
                keep(record)
            others = known()
            goes_on = images < self._budgets[-1] and self.goes_on(record, images, others)
            told = record.score_at(images)
            if told is not None:
                self._emit(
                    RungReached(
                        number=record.number,
                        images_seen=images,
                        images_total=self._budgets[-1],
                        value=told.value,
                        goes_on=goes_on,
                        metric=told.metric,
                        compared=sum(self._entry(other, images) is not None for other in others),
                    )
                )
            if not goes_on:
                break
        return record

    def _score(self, record: TrialRecord, images: int, must_resume: bool) -> Steps[ProxyScore]:
        if self._manifest.plan.declaration.work is None:
            return score_record(record, self._manifest)
        seed = self._manifest.seed
        task = self._tasks.score(
            record.subject,
            seed,
            until=images,
            checkpoint=checkpoint_of(record.key, seed),
            must_resume=must_resume,
        )
        found = yield task
        return cast(ProxyScore, found.score)

    def is_at_top(self, record: TrialRecord) -> bool:
        """Returns whether a network has its score at the full budget."""
        return record.score_at(self._budgets[-1]) is not None

    def end(self, record: TrialRecord, records: Sequence[TrialRecord]) -> TrialRecord:
        """Returns a trained network's trial as it ends: complete with its budget full, else stopped.

        Args:
            record: The network's.
            records: The study's.
        """
        if self.is_at_top(record):
            return complete(record)
        assert record.score is not None, "a trial is stopped at a rung"
        reason = f"others did better after {record.score.images_seen:,} of {self._budgets[-1]:,} images"
        return stop(record, reason, imputed={"value": extrapolate(record, records, self._budgets[-1])})

    def goes_on(self, record: TrialRecord, images: int, others: Sequence[TrialRecord]) -> bool:
        """Returns whether a network is trained beyond a rung that it has reached.

        Peers always are, and are not compared there: they would take the places of the space's networks.
        """
        if self._manifest.eta is None or record.is_peer:
            return True
        entries = [self._entry(other, images) for other in others if other.key != record.key]
        own = self._entry(record, images)
        assert own is not None, "asked once the rung is reached"
        table = RungTable((images,), self._manifest.eta, [*(entry for entry in entries if entry is not None), own])
        return table.goes_on(record.key, images)

    def _entry(self, record: TrialRecord, images: int) -> RungEntry | None:
        score, measurement = record.score_at(images), record.measurement
        is_apart = record.state in (TrialState.INFEASIBLE, TrialState.WAITING) or record.is_peer
        if score is None or measurement is None or is_apart:
            return None
        return RungEntry(
            key=record.key,
            images=images,
            images_per_s=measurement.images_per_s,
            top1=score.value,
            always=self._manifest.is_reference(record),
        )


def extrapolate(record: TrialRecord, records: Sequence[TrialRecord], images: int) -> float:
    """Returns the estimated top-1 of a stopped network at the full budget. Only the sampler uses it.

    The estimate is the top-1 at the last rung plus the median gain from there of the fully trained networks, or no gain
    if there are none. With these estimates GPSampler found more for the same training than with pruned trials, and TPE
    as much (`python -m benchmarks.samplers benchmarks/results/cifar10-tabular`, report in benchmarks/results/).

    Args:
        record: A network that was stopped.
        records: The study's.
        images: The full budget in images seen.
    """
    last = record.score
    assert last is not None
    gains = [
        full.value - rung.value
        for other in records
        if not other.is_peer and (full := other.score_at(images)) and (rung := other.score_at(last.images_seen))
    ]
    return last.value + (statistics.median(gains) if gains else 0.0)
