"""Optuna's side of a study: a SQLite file that says what the records say, and is rebuilt whenever it does not."""

from __future__ import annotations

import contextlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
import sqlalchemy.exc
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from hilo_nas.errors import StorageError
from hilo_nas.records import TrialRecord
from hilo_nas.search.samplers import distributions_of
from hilo_nas.space import SearchSpace
from hilo_nas.states import TrialState

__all__ = ["FITS", "Memory", "impute"]

FITS = "fits_memory"
"""A constraint that stands for networks that did not fit into memory while they were timed."""


def impute(records: Sequence[TrialRecord], *, chance_top1: float) -> dict[str, float]:
    """Returns what the sampler is told for a network that broke a limit: the study's median top-1 and lowest speed.

    The constraint tells it to keep away; a middling top-1 keeps the model of accuracy from bending. Before any score is
    there, chance stands in (`Manifest.chance`).
    """
    records = [record for record in records if not record.is_peer]
    scores = [score.value for record in records if record.state != TrialState.STOPPED and (score := record.score)]
    speeds = [record.measurement.images_per_s for record in records if record.measurement]
    return {
        "value": statistics.median(scores) if scores else chance_top1,
        "images_per_s": min(speeds, default=1.0),
    }


class Memory:
    """The Optuna study behind a search.

    Args:
        path: The SQLite file; None keeps everything in this process, for searches that nobody goes on with.
        space: The space; its parameters are Optuna's.
        sampler: What proposes.
        records: All records of the study.
        limits: The limits in force; the space's if left out.
        prune: Whether stopped networks are told as pruned, without values, not with what they would have reached.
    """

    def __init__(
        self,
        path: Path | None,
        space: SearchSpace,
        sampler: optuna.samplers.BaseSampler,
        records: Sequence[TrialRecord],
        *,
        limits: Mapping[str, float] | None = None,
        prune: bool = False,
    ) -> None:
        self._prune = prune
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._path = path
        self._limits = tuple(space.limits if limits is None else limits)
        self._distributions = distributions_of(space)
        self._sampler = sampler
        self._constraints = self._constraint_keys(records)
        self.fault: str | None = None
        """What was wrong with the database; None where nothing was, or where the records had merely moved on."""
        self._open(records)

    def ask(self, params: dict[str, int] | None = None) -> optuna.Trial:
        """Returns Optuna's next trial: the parameters given, or the sampler's proposal.

        Raises:
            SpaceExhaustedError: The sampler found nothing left to propose.
            StorageError: The database cannot be written.
        """
        with self._guarded():
            if params is not None:
                self._study.enqueue_trial(params)
            return self._study.ask(self._distributions)

    def note(self, trial: optuna.Trial) -> dict[str, Any]:
        """Returns what the sampler noted with its proposal and needs again after a rebuild (NSGA-II's generation)."""
        with self._guarded():
            attributes = self._study.get_trials(deepcopy=False)[trial.number].system_attrs
        return {name: value for name, value in attributes.items() if name.startswith("NSGA")}

    def tell(self, record: TrialRecord, records: Sequence[TrialRecord]) -> None:
        """Tells Optuna of a finished record, which is on disk already.

        Args:
            record: The record, the last one.
            records: All records.
        """
        keys = self._constraint_keys(records)
        with self._guarded():
            asked = self._study.get_trials(deepcopy=False)
            if keys != self._constraints or len(asked) != len(records) or asked[-1].state.is_finished():
                # A network outside the space, or the first one that did not fit: the database is made anew.
                self._constraints = keys
                self._rebuild(records)
                return
            want = self._told(record)
            trial = optuna.Trial(self._study, asked[-1]._trial_id)
            for key, value in want.constraints.items():
                trial.set_constraint(key, value)
            for key, value in want.user_attrs.items():
                trial.set_user_attr(key, value)
            self._study.tell(trial, want.values or None, state=want.state)

    def refresh(self, records: Sequence[TrialRecord]) -> None:
        """Tells Optuna anew of all records, some of which have changed."""
        with self._guarded():
            self._rebuild(records)

    def close(self) -> None:
        """Lets go of the database file."""
        with contextlib.suppress(Exception):
            self._study._storage.remove_session()
        backend = getattr(self._storage, "_backend", self._storage)
        engine = getattr(backend, "engine", None)
        if engine is not None:
            engine.dispose()

    def _open(self, records: Sequence[TrialRecord]) -> None:
        was_there = self._path is not None and self._path.exists()
        fault = None
        with self._guarded():
            try:
                self._study = self._load()
                agrees = self._agrees(records)
                if not was_there or not self._holds(records):
                    fault = "it held other trials" if was_there else "it was not there"
            except Exception:  # torn, foreign or of another Optuna: the records are the truth
                agrees, fault = False, "it could not be read"
            if not agrees:
                self._rebuild(records)
                self.fault = fault if records else None

    def _load(self) -> optuna.Study:
        self._storage = _open_storage(self._path)
        return optuna.create_study(
            study_name="search",
            storage=self._storage,
            directions=["maximize", "maximize"],
            sampler=self._sampler,
            load_if_exists=True,
        )

    def _rebuild(self, records: Sequence[TrialRecord]) -> None:
        if hasattr(self, "_storage"):
            self.close()
        if self._path is not None:
            for ending in ("", "-journal", "-wal", "-shm"):
                self._path.with_name(f"{self._path.name}{ending}").unlink(missing_ok=True)
        self._study = self._load()
        self._study.add_trials([self._told(record) for record in records])

    def _agrees(self, records: Sequence[TrialRecord]) -> bool:
        known = self._study.get_trials(deepcopy=False)
        return len(known) == len(records) and all(
            _essence(trial) == _essence(self._told(record)) for trial, record in zip(known, records, strict=True)
        )

    def _holds(self, records: Sequence[TrialRecord]) -> bool:
        """Whether the database holds these trials, whatever it says of their values.

        That it lags behind is the rule: networks were timed again, as a front is at the end of each search, or the last
        trial was cut off before it was told.
        """
        trials = self._study.get_trials(deepcopy=False)
        told = [trial.user_attrs.get("key") for trial in trials if trial.state.is_finished()]
        keys = [record.key for record in records]
        return told in (keys, keys[:-1])

    def _constraint_keys(self, records: Sequence[TrialRecord]) -> tuple[str, ...]:
        """The same for all trials, as GPSampler wants it."""
        misfits = any(record.violations.get(FITS, 0) > 0 for record in records)
        return (*self._limits, *([FITS] if misfits else []))

    def _told(self, record: TrialRecord) -> FrozenTrial:
        """Returns what Optuna knows of a record."""
        attributes: dict[str, Any] = {"key": record.key, "state": record.state, "origin": record.origin}
        if record.reason:
            attributes["reason"] = record.reason
        measurement, score = record.measurement, record.score
        speed = measurement.images_per_s if measurement else record.imputed.get("images_per_s")
        top1 = record.imputed.get("value", score.value if score else None)
        if record.params is None or not record.is_measured or speed is None or top1 is None:
            return create_trial(state=OptunaState.FAIL, user_attrs=attributes)
        # What was not measured, because the network did not fit, is told as lying on the limit's edge.
        constraints = {key: record.violations.get(key, -1.0 if key == FITS else 0.0) for key in self._constraints}
        # optuna-dashboard does not know constraints by key.
        attributes["constraints"] = json.dumps(constraints)
        if self._prune and record.state == TrialState.STOPPED:
            return create_trial(
                state=OptunaState.PRUNED,
                params=record.params,
                distributions=self._distributions,
                user_attrs=attributes,
                system_attrs=record.sampler_memory,
                constraints=constraints,
            )
        return create_trial(
            state=OptunaState.COMPLETE,
            values=[math.log(speed), top1],
            params=record.params,
            distributions=self._distributions,
            user_attrs=attributes,
            system_attrs=record.sampler_memory,
            constraints=constraints,
        )

    @contextlib.contextmanager
    def _guarded(self) -> Any:
        try:
            yield
        except (OSError, sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            text = str(error.__cause__ or error).split("\n")[0]
            raise StorageError(
                f"cannot write {self._path}: {text}. Free some space or make the folder writable; the trials' records "
                "are kept."
            ) from error


def _open_storage(path: Path | None) -> optuna.storages.BaseStorage:
    if path is None:
        return optuna.storages.InMemoryStorage()
    url = sqlalchemy.URL.create("sqlite", database=str(path))  # a path may hold signs that a URL may not
    return optuna.storages.RDBStorage(url.render_as_string())


def _essence(trial: FrozenTrial) -> tuple[Any, ...]:
    """What two trials must share to be one; a failed trial's parameters do not matter."""
    if trial.state != OptunaState.COMPLETE:
        return (trial.state, trial.user_attrs.get("key"))
    return (trial.state, tuple(trial.values), trial.params, dict(trial.constraints), trial.user_attrs.get("key"))
