"""The Optuna study behind a search: it lives in memory and says what the records say."""

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
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState

__all__ = ["FITS", "OptunaStudy", "Proposal", "impute"]

FITS = "fits_memory"
"""Constraint of networks that did not fit into memory while they were timed."""


def impute(records: Sequence[TrialRecord], *, chance_top1: float) -> dict[str, float]:
    """Returns what the sampler is told for a network that broke a limit: the study's median value and lowest speed.

    The constraint tells it to keep away; a middling value keeps the model of the scores from bending. Before any score
    is there, chance stands in (`Manifest.chance`).
    """
    records = [record for record in records if not record.is_peer and record.state != TrialState.WAITING]
    scores = [score.value for record in records if record.state != TrialState.STOPPED and (score := record.score)]
    speeds = [record.measurement.images_per_s for record in records if record.measurement]
    return {
        "value": statistics.median(scores) if scores else chance_top1,
        "images_per_s": min(speeds, default=1.0),
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proposal:
    """What a sampler proposes."""

    params: dict[str, int]
    sampler_memory: dict[str, Any]
    """Notes of the sampler that a resumed search gives back to it (NSGA-II: the generation)."""


@dataclasses.dataclass(frozen=True)
class _Held:
    """What the study holds of a record."""

    record: TrialRecord
    trial: FrozenTrial | None
    """As it was told; None for a record that tells a sampler nothing."""
    asked: optuna.Trial | None = None
    """The running trial that waits for the record's end."""


class OptunaStudy:
    """A study in memory for one search.

    The study follows from the records alone, so it is never stored: each proposal first brings it up to date, by one
    added trial for each record that ended since the last one, or from scratch where an earlier record changed.

    Args:
        space: The space; its parameters are Optuna's.
        sampler: What proposes.
        limits: The limits in force; the space's if left out. Only those that need a measurement become constraints:
            the sampler's proposals keep the others anyway (`FeasibleSampler`), and a model of each costs time.
        prune: Tell stopped networks as pruned, without values, instead of with what they would have reached.
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
        """Returns the sampler's next proposal.

        Args:
            records: All records of the study, in the order of their numbers; running ones among them.

        Raises:
            SpaceExhaustedError: The sampler found nothing left to propose.
        """
        self.update(records)
        self._asked = asked = self._study.ask(self._distributions)
        notes = self.trials[-1].system_attrs
        return Proposal(
            params={name: int(asked.params[name]) for name in self._distributions},
            sampler_memory={name: value for name, value in notes.items() if name.startswith("NSGA")},
        )

    def update(self, records: Sequence[TrialRecord]) -> None:
        """Brings the study up to date with all records."""
        constraints = self._constraint_keys(records)
        if constraints != self._constraints or len(self._held) > len(records) or not all(map(self._take, records)):
            self._constraints = constraints
            self._clear()
            for record in records:
                self._take(record)

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials, in the order of their records; those that tell a sampler nothing may be missing."""
        return self._study.get_trials(deepcopy=False)

    def _clear(self) -> None:
        self._study = optuna.create_study(directions=["maximize", "maximize"], sampler=self._sampler)
        self._held: dict[int, _Held] = {}
        self._last = -1
        self._asked = None

    def _take(self, record: TrialRecord) -> bool:
        """Adds what is new in a record; returns False where an earlier one changed, which an addition cannot say."""
        held = self._held.get(record.number)
        if held is not None and held.record is record:
            return True
        told = self._told(record)
        if held is None:
            if record.number < self._last:
                return False
            self._last = record.number
            self._held[record.number] = self._add(record, told)
            return True
        if _essence(told) == _essence(held.trial):
            self._held[record.number] = dataclasses.replace(held, record=record)
            return True
        if held.asked is None:
            return False
        _finish(self._study, held.asked, told)
        self._held[record.number] = _Held(record, told)
        return True

    def _add(self, record: TrialRecord, told: FrozenTrial | None) -> _Held:
        asked, self._asked = self._asked, None
        if asked is not None and asked.params == record.params:
            if told is not None and told.state == OptunaState.RUNNING:
                return _Held(record, told, asked)
            _finish(self._study, asked, told)
            return _Held(record, told)
        if told is None:
            return _Held(record, told)
        self._study.add_trial(told)
        is_running = told.state == OptunaState.RUNNING
        return _Held(record, told, optuna.Trial(self._study, self.trials[-1]._trial_id) if is_running else None)

    def _constraint_keys(self, records: Sequence[TrialRecord]) -> tuple[str, ...]:
        """The same for all trials, as GPSampler wants it."""
        misfits = any(record.violations.get(FITS, 0) > 0 for record in records)
        return (*self._limits, *([FITS] if misfits else []))

    def _told(self, record: TrialRecord) -> FrozenTrial | None:
        """Returns a record as a trial; None for one that tells a sampler nothing."""
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
        # What was not measured, because the network did not fit, is told as lying on the limit's edge.
        known["constraints"] = {
            key: record.violations.get(key, -1.0 if key == FITS else 0.0) for key in self._constraints
        }
        if self._prune and record.state == TrialState.STOPPED:
            return create_trial(state=OptunaState.PRUNED, **known)
        return create_trial(state=OptunaState.COMPLETE, values=[math.log(speed), value], **known)


def _finish(study: optuna.Study, asked: optuna.Trial, told: FrozenTrial | None) -> None:
    """Tells how a running trial ended."""
    if told is None:
        study.tell(asked, state=OptunaState.FAIL)
        return
    for key, value in told.constraints.items():
        asked.set_constraint(key, value)
    study.tell(asked, told.values, state=told.state)


def _essence(trial: FrozenTrial | None) -> tuple[Any, ...] | None:
    """Parts of a trial that a sampler reads."""
    return None if trial is None else (trial.state, trial.values, trial.params, trial.system_attrs)
