"""Export of a study to an SQLite file that Optuna and optuna-dashboard read."""

from __future__ import annotations

import contextlib
import datetime
import shlex
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hilo_nas.arch.config import describe_arch
from hilo_nas.errors import ConversionError, UsageError
from hilo_nas.export.export_options import ExportOptions
from hilo_nas.export.source import StudySource
from hilo_nas.space import SearchSpace
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState

if TYPE_CHECKING:
    import optuna

__all__ = ["OPTUNA", "OptunaExporter"]

_STATES = {
    TrialState.RUNNING: "RUNNING",
    TrialState.TIMED: "PRUNED",
    TrialState.COMPLETE: "COMPLETE",
    TrialState.STOPPED: "PRUNED",
    TrialState.INFEASIBLE: "COMPLETE",
    TrialState.FAILED: "FAIL",
}
"""Optuna's name of each state. A trial without both values becomes `PRUNED` where this table has `COMPLETE`."""


class OptunaExporter:
    """Writer of one Optuna study that found the records of a study under the same trial numbers.

    The two values are images/s and the value of the proxy. Both are maximized. The parameters have the choices of the
    search space. Rungs become intermediate values, with the number of images seen as the step. Each limit becomes a
    constraint of the same name: the logarithm of the ratio by which a value exceeds the limit. Baselines become pruned
    trials without values, so that they do not appear on the front.
    """

    name = "optuna"
    source_type = StudySource
    files = ("optuna.db",)
    options: frozenset[str] = frozenset()
    can_replace = False

    def check(self, source: StudySource, options: ExportOptions) -> None:
        """Raises a UsageError if the study has no trials."""
        if not source.records:
            raise UsageError(f"format optuna needs a study with trials, but {source.name} has none yet")

    def write(self, source: StudySource, folder: Path, options: ExportOptions) -> list[str]:
        """Writes the database."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        manifest = source.manifest
        with _open_storage(folder / self.files[0], is_new=True) as storage:
            study = optuna.create_study(study_name=manifest.name, storage=storage, directions=["maximize", "maximize"])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(["images_per_s", manifest.plan.score_metric])
            attributes = {
                "space": manifest.space.name,
                "space_hash": manifest.space.hash(),
                "condition": manifest.objective.label(),
                "device": manifest.device.model,
                "proxy": manifest.plan.proxy,
                "limits": manifest.limits_in_force,
                "hilo_nas": manifest.versions.get("hilo-nas"),
            }
            for name, value in attributes.items():
                study.set_user_attr(name, value)
            limits = tuple(dict.fromkeys(name for record in source.records for name in record.violations))
            study.add_trials([_build_trial(record, manifest.space, limits) for record in source.records])
        imputed = sum(bool(_imputed(record)) for record in source.records)
        return [f"{imputed} trials have estimated values, which are named in the user attribute `imputed`"] * (
            imputed > 0
        )

    def verify(self, source: StudySource, folder: Path) -> str:
        """Opens the database with Optuna and compares each trial with its record."""
        import optuna

        space = source.manifest.space
        choices = {knob.param: knob.choices for knob in space.knobs}
        try:
            with _open_storage(folder / self.files[0]) as storage:
                trials = optuna.load_study(study_name=source.manifest.name, storage=storage).get_trials()
        except Exception as error:  # SQLAlchemy, Optuna and json raise different errors
            raise ConversionError(
                f"Optuna must be able to read the exported file, but failed: {error}. Export it again."
            ) from error
        if len(trials) != len(source.records):
            raise ConversionError(
                f"{len(source.records)} trials were written, but Optuna reads {len(trials)}. Export it again."
            )
        for trial, record in zip(trials, source.records, strict=True):
            params = {name: choices[name].index(value) for name, value in trial.params.items()}
            found = {"params": params or None, "values": trial.values, "key": trial.user_attrs.get("key")}
            expected = {"params": record.params or None, "values": _values(record), "key": record.key}
            if found != expected or any(
                trial.constraints.get(name) != value for name, value in record.violations.items()
            ):
                raise ConversionError(
                    f"trial {record.number} must be {expected}, but Optuna reads {found}. Export it again."
                )
        return f"verified: Optuna reads {len(trials)} trials that equal the records"

    def next_step(self, source: StudySource, files: Sequence[Path]) -> str:
        """Returns commands that open the file."""
        url = f"sqlite:///{files[0]}"
        return (
            f"Open the dashboard: optuna-dashboard {shlex.quote(url)}\n"
            f"Load it in Python: optuna.load_study(study_name={source.manifest.name!r}, storage={url!r})"
        )


OPTUNA = OptunaExporter()


@contextlib.contextmanager
def _open_storage(path: Path, *, is_new: bool = False) -> Iterator[optuna.storages.RDBStorage]:
    """Opens a database file and closes it at the end."""
    import optuna

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, check_same_thread=False)  # the path would need escaping in a URL
        connection.execute("PRAGMA synchronous = OFF")  # the temporary file need not survive a power cut
        return connection

    if not is_new and not path.stat().st_size:
        raise ConversionError(f"{path.name} is empty")  # Optuna would create a new database in it
    storage = optuna.storages.RDBStorage(f"sqlite:///{path.name}", engine_kwargs={"creator": connect})
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _values(record: TrialRecord) -> list[float] | None:
    """Returns images/s and the proxy's value, measured or imputed. None if the trial did not end with both."""
    if _STATES[record.state] != "COMPLETE" or record.is_baseline:
        return None
    measurement, score = record.measurement, record.score
    speed = measurement.images_per_s if measurement else record.imputed.get("images_per_s")
    value = record.imputed.get("value", score.value if score else None)
    return None if speed is None or value is None else [speed, value]


def _imputed(record: TrialRecord) -> list[str]:
    return sorted(record.imputed) if _values(record) else []


def _build_trial(record: TrialRecord, space: SearchSpace, limits: Sequence[str]) -> optuna.trial.FrozenTrial:
    """Returns a record as an Optuna trial."""
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import TrialState as OptunaState
    from optuna.trial import create_trial

    values = _values(record)
    state = _STATES[record.state]
    if state == "COMPLETE" and values is None:
        state = "PRUNED"
    choices = {knob.param: knob.choices for knob in space.knobs}
    params = record.params or {}
    # Optuna's samplers need every constraint of every trial, so an unmeasured value counts as equal to its limit.
    constraints = {name: record.violations.get(name, 0.0) for name in limits} if record.violations else {}
    trial = create_trial(
        state=OptunaState[state],
        values=values,
        params={name: choices[name][index] for name, index in params.items()},
        distributions={name: CategoricalDistribution(choices[name]) for name in params},
        user_attrs={name: value for name, value in _attributes(record).items() if value not in (None, [])},
        # optuna-dashboard does not read named constraints. It takes this list to tell if a trial is feasible.
        system_attrs={"constraints": [max(constraints.values())]} if constraints else {},
        intermediate_values={
            score.images_seen: mean.value for score in record.scores if (mean := record.score_at(score.images_seen))
        },
        constraints=constraints,
    )
    trial.datetime_start = _local_time(record.started_at) or trial.datetime_start
    if trial.state.is_finished():
        trial.datetime_complete = _local_time(record.finished_at) or trial.datetime_start
    return trial


def _attributes(record: TrialRecord) -> dict[str, Any]:
    measurement, score = record.measurement, record.score
    found: dict[str, Any] = {
        "number": record.number,
        "key": record.key,
        "network": describe_arch(record.subject.arch) if record.subject.arch else record.key,
        "state": str(record.state),
        "origin": record.origin,
        "reason": record.reason,
        "imputed": _imputed(record),
        "params_m": None if record.parameters is None else record.parameters / 1e6,
        "gmacs": None if record.macs is None else record.macs / 1e9,
    }
    if measurement is not None:
        found |= {
            "images_per_s": measurement.images_per_s,
            "is_preliminary": measurement.is_preliminary or None,
            "images_per_s_95": list(measurement.images_per_s_interval or ()),
            "latency_ms_p95": measurement.latency_ms_p95,
            "memory_mib": measurement.memory_mib,
        }
    if score is not None:
        found |= {score.metric: score.value, "standard_error": score.standard_error, "images_seen": score.images_seen}
    return found


def _local_time(text: str | None) -> datetime.datetime | None:
    """Returns a record's time as a local time without a zone, as in Optuna. None if the record has no time."""
    try:
        return datetime.datetime.fromisoformat(text or "").astimezone().replace(tzinfo=None)
    except ValueError:
        return None
