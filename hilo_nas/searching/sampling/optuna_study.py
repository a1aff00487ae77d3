"""In-memory Optuna study of a search, derived from the records."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from hilo_nas.searching.sampling.samplers import distributions_of
from hilo_nas.space import LIMITS, SearchSpace
from hilo_nas.study.records import FITS, TrialRecord
from hilo_nas.study.states import TrialState

__all__ = ["OptunaStudy", "Proposal", "impute"]


def impute(records: Sequence[TrialRecord], *, chance_top1: float) -> dict[str, float]:
    """Returns the values that the sampler receives for an infeasible network: median value and lowest speed.

    The constraint keeps the sampler away from the network. A medium value avoids distorting the sampler's model of the
    scores. Before the first score, the value is `chance_top1` (`Manifest.chance`).
    """
    records = [record for record in records if not record.is_baseline and record.state != TrialState.WAITING]
    scores = [score.value for record in records if record.state != TrialState.STOPPED and (score := record.score)]
    speeds = [timing.images_per_s for record in records for timing in record.full_measurements[:1]]
    return {
        "value": statistics.median(scores) if scores else chance_top1,
        "images_per_s": min(speeds, default=1.0),
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proposal:
    """Network that the sampler proposes for the next trial, as flat integer parameters."""

    params: dict[str, int]
    sampler_memory: dict[str, Any]
    """Attributes that the sampler needs when a search resumes (NSGA-II: the generation)."""


@dataclasses.dataclass(frozen=True)
class _SyncedTrial:
    """Optuna trial that corresponds to a record."""

    record: TrialRecord
    trial: FrozenTrial | None
    """Optuna trial with the results of the record; None if the record contains nothing for the sampler."""
    asked: optuna.Trial | None = None
    """Running Optuna trial, which is finished when the trial of the record ends."""


class OptunaStudy:
    """In-memory Optuna study of one search.

    The study is never stored, because it follows from the records. Each proposal first updates it: one trial is added
    per record that has ended since. The study is rebuilt if an earlier record has changed.

    Args:
        space: Search space; its parameters are Optuna's parameters.
        sampler: Sampler of the proposals.
        limits: Limits in force; the limits of the space if left out. Only limits that need a measurement become
            constraints. Proposals of `FeasibleSampler` meet the other limits anyway, and each constraint costs model
            time.
        prune: True to report stopped networks as pruned, without values, instead of with extrapolated values.
    """

    def __init__(
        self,
        space: SearchSpace,
        sampler: optuna.samplers.BaseSampler,
        *,
        limits: Mapping[str, float] | None = None,
        prune: bool = False,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._prune, self._sampler = prune, sampler
        names = space.limits if limits is None else limits
        self._limits = tuple(name for name in names if not LIMITS[name.partition("@")[0]].is_free)
        self._distributions = distributions_of(space)
        self._constraints = self._limits
        self._asked: optuna.Trial | None = None
        self._clear()

    def propose(self, records: Sequence[TrialRecord]) -> Proposal:
        """Returns the next proposal of the sampler.

        Args:
            records: All records of the study, ordered by number, including running ones.

        Raises:
            SpaceExhaustedError: The sampler found no new network.
        """
        self.update(records)
        self._asked = asked = self._study.ask(self._distributions)
        attributes = self.trials[-1].system_attrs
        return Proposal(
            params={name: int(asked.params[name]) for name in self._distributions},
            sampler_memory={name: value for name, value in attributes.items() if name.startswith("NSGA")},
        )

    def look_ahead(self, records: Sequence[TrialRecord]) -> None:
        """Returns None, because Optuna's samplers do not use speeds without a score."""

    def update(self, records: Sequence[TrialRecord]) -> None:
        """Updates the study to match all records."""
        constraints = self._constraint_keys(records)
        if constraints != self._constraints or len(self._synced) > len(records) or not all(map(self._sync, records)):
            self._constraints = constraints
            self._clear()
            for record in records:
                self._sync(record)

    @property
    def trials(self) -> list[FrozenTrial]:
        """Trials in the order of their records. Records without information for a sampler have no trial."""
        return self._study.get_trials(deepcopy=False)

    def _clear(self) -> None:
        self._study = optuna.create_study(directions=["maximize", "maximize"], sampler=self._sampler)
        self._synced: dict[int, _SyncedTrial] = {}
        self._last = -1
        self._asked = None

    def _sync(self, record: TrialRecord) -> bool:
        """Adds or updates the Optuna trial of a record.

        Returns False if an earlier record changed, so that the Optuna study must be rebuilt.
        """
        synced = self._synced.get(record.number)
        if synced is not None and synced.record is record:
            return True
        trial = self._as_trial(record)
        if synced is None:
            if record.number < self._last:
                return False
            self._last = record.number
            self._synced[record.number] = self._add(record, trial)
            return True
        if _sampler_view(trial) == _sampler_view(synced.trial):
            self._synced[record.number] = dataclasses.replace(synced, record=record)
            return True
        if synced.asked is None:
            return False
        _finish(self._study, synced.asked, trial)
        self._synced[record.number] = _SyncedTrial(record, trial)
        return True

    def _add(self, record: TrialRecord, trial: FrozenTrial | None) -> _SyncedTrial:
        asked, self._asked = self._asked, None
        if asked is not None and asked.params == record.params:
            if trial is not None and trial.state == OptunaState.RUNNING:
                return _SyncedTrial(record, trial, asked)
            _finish(self._study, asked, trial)
            return _SyncedTrial(record, trial)
        if trial is None:
            return _SyncedTrial(record, trial)
        self._study.add_trial(trial)
        is_running = trial.state == OptunaState.RUNNING
        return _SyncedTrial(record, trial, optuna.Trial(self._study, self.trials[-1]._trial_id) if is_running else None)

    def _constraint_keys(self, records: Sequence[TrialRecord]) -> tuple[str, ...]:
        """Returns the names of the constraints. All trials get the same ones, because GPSampler requires it."""
        misfits = any(record.violations.get(FITS, 0) > 0 for record in records)
        return (*self._limits, *([FITS] if misfits else []))

    def _as_trial(self, record: TrialRecord) -> FrozenTrial | None:
        """Returns a record as a trial; None if the record contains nothing for a sampler."""
        if record.params is None:
            return None
        known: dict[str, Any] = {
            "params": record.params,
            "distributions": self._distributions,
            "system_attrs": record.sampler_memory,
        }
        if record.state == TrialState.RUNNING:
            return create_trial(state=OptunaState.RUNNING, **known)
        measurement, score = record.measurement, record.score
        speed = measurement.images_per_s if measurement else record.imputed.get("images_per_s")
        value = record.imputed.get("value", score.value if score else None)
        if not record.is_measured or speed is None or value is None:
            return None
        # A network that did not fit into memory has no measurement. Its other constraints count as exactly met.
        known["constraints"] = {
            key: record.violations.get(key, -1.0 if key == FITS else 0.0) for key in self._constraints
        }
        if self._prune and record.state == TrialState.STOPPED:
            return create_trial(state=OptunaState.PRUNED, **known)
        return create_trial(state=OptunaState.COMPLETE, values=[math.log(speed), value], **known)


def _finish(study: optuna.Study, asked: optuna.Trial, trial: FrozenTrial | None) -> None:
    """Tells the study the outcome of a running trial."""
    if trial is None:
        study.tell(asked, state=OptunaState.FAIL)
        return
    for key, value in trial.constraints.items():
        asked.set_constraint(key, value)
    study.tell(asked, trial.values, state=trial.state)


def _sampler_view(trial: FrozenTrial | None) -> tuple[Any, ...] | None:
    """Returns the parts of an Optuna trial that a sampler reads, to detect changes."""
    return None if trial is None else (trial.state, trial.values, trial.params, trial.system_attrs)
