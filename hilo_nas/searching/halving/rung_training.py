"""Training of a network from rung to rung, until it is stopped or reaches the full budget."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import cast

from hilo_nas.evaluation import Steps
from hilo_nas.events import Emit, RungReached
from hilo_nas.measurement import ProxyScore
from hilo_nas.proxy.recorded import score_record
from hilo_nas.searching.halving.checkpoint_retention import checkpoint_name
from hilo_nas.searching.halving.rungs import RungEntry, RungTable
from hilo_nas.searching.tasks.study_tasks import Resources, StudyTasks
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.transitions import complete, stop

__all__ = ["RungTraining", "extrapolate"]


class RungTraining:
    """Trains networks of one study from rung to rung.

    Promotion decisions are computed from the study's records each time; no other state is kept.

    Args:
        manifest: Manifest of the study. Its `plan` defines the rungs, and its `reduction_factor` the share of networks
            that are promoted.
        resources: Target device and references that the tasks use.
        emit: Receives `RungReached` events.
        decide: Returns True if the training of a network continues beyond a number of images, given the other records.
            Successive halving (`RungTable`) decides if left out.
    """

    def __init__(
        self,
        manifest: Manifest,
        resources: Resources,
        emit: Emit,
        *,
        decide: Callable[[TrialRecord, int, Sequence[TrialRecord]], bool] | None = None,
    ) -> None:
        self._manifest, self._emit, self._decide = manifest, emit, decide
        self._tasks = StudyTasks.of(manifest, resources)
        self._budgets = manifest.plan.budgets

    def train(
        self,
        record: TrialRecord,
        known: Callable[[], Sequence[TrialRecord]],
        keep: Callable[[TrialRecord], None],
        *,
        must_resume: bool = False,
        is_resumed: bool = False,
    ) -> Steps[TrialRecord]:
        """Trains and scores a network at each rung; returns its record when it is stopped or fully trained.

        Existing scores are reused. Each promotion decision uses the records that are known at that moment.

        Args:
            record: Record of a network that has a speed.
            known: Returns the records of the study, with or without this one.
            keep: Called with the record each time it gains a score.
            is_resumed: True to train beyond the last rung without a decision, because the network was stopped there and
                chosen again.
            must_resume: True to raise `NoCheckpointError` instead of training from scratch if no checkpoint was kept.

        Raises:
            NoCheckpointError: `must_resume` is true and no checkpoint was kept.
            HiloNasError: The training failed.
        """
        reached = max((score.images_seen for score in record.scores), default=0)
        for images in self._budgets:
            if images < reached:
                continue  # a network with a score at a higher rung was promoted at this one
            if images > reached:
                score = yield from self._score(record, images, must_resume)
                record = dataclasses.replace(record, scores=(*record.scores, score))
                keep(record)
            others = known()
            is_promoted = images < self._budgets[-1] and (
                (is_resumed and images == reached) or self.is_promoted(record, images, others)
            )
            rung_score = record.score_at(images)
            if rung_score is not None:
                self._emit(
                    RungReached(
                        number=record.number,
                        images_seen=images,
                        images_total=self._budgets[-1],
                        value=rung_score.value,
                        goes_on=is_promoted,
                        metric=rung_score.metric,
                        compared=sum(self._entry(other, images) is not None for other in others),
                    )
                )
            if not is_promoted:
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
            checkpoint=checkpoint_name(record.key, seed),
            must_resume=must_resume,
        )
        found = yield task
        return cast(ProxyScore, found.score)

    def is_fully_trained(self, record: TrialRecord) -> bool:
        """Returns True if a network has a score at the full budget."""
        return record.score_at(self._budgets[-1]) is not None

    def finish(self, record: TrialRecord, records: Sequence[TrialRecord]) -> TrialRecord:
        """Returns the final record of a trained network: complete at the full budget, otherwise stopped.

        Args:
            record: Record of the network.
            records: Records of the study, used to extrapolate the value of a stopped network.
        """
        if self.is_fully_trained(record):
            return complete(record)
        assert record.score is not None, "a stopped trial must have a score"
        reason = f"others did better after {record.score.images_seen:,} of {self._budgets[-1]:,} images"
        return stop(record, reason, imputed={"value": extrapolate(record, records, self._budgets[-1])})

    def is_promoted(self, record: TrialRecord, images: int, others: Sequence[TrialRecord]) -> bool:
        """Returns True if training of a network continues beyond a rung that it has reached.

        Baselines are always promoted. They are not compared at rungs, because they would take the places of networks of
        the space.
        """
        if self._manifest.reduction_factor is None or record.is_baseline:
            return True
        if self._decide is not None:
            return self._manifest.is_reference(record) or self._decide(record, images, others)
        entries = [self._entry(other, images) for other in others if other.key != record.key]
        own = self._entry(record, images)
        assert own is not None, "the network must have reached the rung"
        table = RungTable(
            (images,), self._manifest.reduction_factor, [*(entry for entry in entries if entry is not None), own]
        )
        return table.is_promoted(record.key, images)

    def _entry(self, record: TrialRecord, images: int) -> RungEntry | None:
        score, measurement = record.score_at(images), record.measurement
        is_excluded = record.state in (TrialState.INFEASIBLE, TrialState.WAITING) or record.is_baseline
        if score is None or measurement is None or is_excluded:
            return None
        return RungEntry(
            key=record.key,
            images=images,
            images_per_s=measurement.images_per_s,
            value=score.value,
            always_promoted=self._manifest.is_reference(record),
        )


def extrapolate(record: TrialRecord, records: Sequence[TrialRecord], images: int) -> float:
    """Returns the estimated value of a stopped network at the full budget. Only the sampler uses it.

    The estimate is the value at the last rung plus the median gain of the fully trained networks from that rung.
    Without fully trained networks, the gain is 0. At equal training cost, GPSampler reached a larger hypervolume with
    these estimates than with pruned trials, and TPE the same (`python -m benchmarks.samplers
    benchmarks/results/cifar10-tabular`, report in benchmarks/results/).

    Args:
        record: Record of a stopped network.
        records: Records of the study.
        images: The full budget in training images.
    """
    last = record.score
    assert last is not None
    gains = [
        full.value - rung.value
        for other in records
        if not other.is_baseline and (full := other.score_at(images)) and (rung := other.score_at(last.images_seen))
    ]
    return last.value + (statistics.median(gains) if gains else 0.0)
