"""Benchmark table: the networks of a space with their speeds and scores.

`table_making.py` makes a table as a study. A published table has two files: the study's `manifest.yaml`, and
`table.csv` with a row per network. A replay needs no other files.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import statistics
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.command import command_of
from hilo_nas.errors import NotFoundError, RecordError, StorageError, UsageError
from hilo_nas.measurement import ProxyScore
from hilo_nas.measurement.verdicts import verdict_name
from hilo_nas.searching.sweeps.listing import list_within
from hilo_nas.searching.sweeps.sweep import ALL
from hilo_nas.space import SearchSpace
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord, write_atomically
from hilo_nas.study.stored_study import StoredStudy, open_study

__all__ = [
    "TABLE_NAME",
    "Table",
    "TableRow",
    "TableScore",
    "build_score",
    "collect_table",
    "find_table",
    "load_table",
    "refresh_table",
    "study_of",
    "write_table",
]

TABLE_NAME = "table.csv"
"""File name of the table, in the folder of `manifest.yaml`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableScore:
    """Score of a network at one budget."""

    top1: float
    top1_se: float
    """Standard error due to the finite number of held-out images, as in `ProxyScore.standard_error`."""
    seconds: float
    """Seconds of the training from its start to this budget, including scoring."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableRow:
    """A network of a table."""

    key: str
    params: dict[str, int]
    """Parameters of the space: integers by name, as for Optuna."""
    parameters: int
    macs: int
    images_per_s: float
    images_per_s_spread: float
    images_per_s_low: float | None
    """Lower end of the 95 % interval; None if the timing has no interval."""
    images_per_s_high: float | None
    verdict: str | None
    """State of the machine during the timing."""
    timing_seconds: float
    scores: dict[int, TableScore]
    """Scores by number of images seen. An unfinished table has only some of them."""
    other_top1: dict[int, float] = dataclasses.field(default_factory=dict)
    """Top-1 at the full budget by further training seed."""

    def judged_top1(self, images: int) -> float:
        """Returns the top-1 that judges a search: the mean over further seeds, or else that of the table's seed.

        Args:
            images: The full budget in training images.
        """
        return statistics.fmean(self.other_top1.values()) if self.other_top1 else self.scores[images].top1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Networks of a space with their speeds and their scores at each budget."""

    manifest: Manifest
    rows: tuple[TableRow, ...]
    """Rows of the networks that were timed."""

    @property
    def space(self) -> SearchSpace:
        """Search space of the networks."""
        return self.manifest.space

    @property
    def budgets(self) -> tuple[int, ...]:
        """Numbers of images at which networks are scored, the full budget last."""
        return self.manifest.plan.budgets

    @cached_property
    def by_key(self) -> dict[str, TableRow]:
        """Rows by the keys of their networks."""
        return {row.key: row for row in self.rows}

    def check_complete(self) -> None:
        """Raises an error unless every network within the space's limits has a speed and all scores.

        Raises:
            UsageError: Some values are missing, or the space is too large for a complete table.
        """
        try:
            listed = list_within(self.space, self.manifest.objective.img_size)
        except UsageError:
            raise UsageError(
                f"a table for replays must be complete, but {self.manifest.name} has only a sample of "
                f"{self.space.name}, which has {self.space.n_configs:,} settings. Use a table of a small space: "
                "python -m benchmarks.tables litv2_tabular ..."
            ) from None
        complete = {row.key for row in self.rows if row.scores.keys() >= set(self.budgets)}
        if missing := {arch.key() for arch, _ in listed} - complete:
            raise UsageError(
                f"a table for replays must be complete, but {len(missing)} of the {len(listed)} networks of "
                f"{self.space.name} have no speed or lack a score in {self.manifest.name}. Complete it with "
                f"{command_of('tables', self.space.name, '--study', self.manifest.name)} ..."
            )


def refresh_table(study: StoredStudy) -> None:
    """Writes `table.csv` from the records of a study. Does nothing if the study is not a table.

    Raises:
        RecordError: A file of the study is invalid.
        StorageError: A file cannot be read or written.
    """
    if study.exists and study.manifest.sampler == ALL and study.trials_path.is_dir():
        write_table(collect_table(study), study.path / TABLE_NAME)


def build_score(row: TableRow, images: int, table: Table, *, since: int = 0, seed: int | None = None) -> ProxyScore:
    """Returns a network's score at a budget, with the values that the table has.

    Args:
        row: Row of the network.
        images: Budget of the score. The row must have a score there.
        table: Table of the row.
        since: Budget from which the training resumes; 0 for its start. The score's seconds count from there.
        seed: Seed of the training. Defaults to the table's seed.
    """
    manifest, score = table.manifest, row.scores[images]
    return ProxyScore(
        plan_hash=manifest.plan_hash,
        metric=manifest.plan.metric,
        value=score.top1,
        standard_error=score.top1_se,
        loss=None,
        n_val=manifest.plan.val_images,
        images_seen=images,
        seconds=score.seconds - (row.scores[since].seconds if since else 0.0),
        seed=manifest.seed if seed is None else seed,
        micro_batch_size=manifest.plan.batch_size,
        device=manifest.objective.device,
        versions=manifest.versions,
        scored_at=manifest.created_at,
    )


def collect_table(study: StoredStudy) -> Table:
    """Returns the table from the records of a study.

    Raises:
        RecordError: A file of the study is invalid.
        StorageError: A file cannot be read.
    """
    rows = [_row_of(record, study.manifest) for record in study.records]
    return Table(manifest=study.manifest, rows=tuple(row for row in rows if row is not None))


def _row_of(record: TrialRecord, manifest: Manifest) -> TableRow | None:
    measurement = record.measurement
    if measurement is None or record.params is None or record.parameters is None or record.macs is None:
        return None
    scores: dict[int, TableScore] = {}
    others: dict[int, float] = {}
    seconds = 0.0
    for score in sorted(record.scores, key=lambda score: score.images_seen):
        if score.seed == manifest.seed:
            seconds += score.seconds  # a record stores the seconds since the previous budget
            scores[score.images_seen] = TableScore(top1=score.value, top1_se=score.standard_error, seconds=seconds)
        elif score.images_seen == manifest.plan.budgets[-1]:
            others[score.seed] = score.value
    return TableRow(
        key=record.key,
        params=record.params,
        parameters=record.parameters,
        macs=record.macs,
        images_per_s=measurement.images_per_s,
        images_per_s_spread=measurement.images_per_s_spread,
        images_per_s_low=measurement.images_per_s_low,
        images_per_s_high=measurement.images_per_s_high,
        verdict=verdict_name(measurement),
        timing_seconds=measurement.seconds,
        scores={images: scores[images] for images in manifest.plan.budgets if images in scores},
        other_top1=dict(sorted(others.items())),
    )


_VALUES = (
    "parameters",
    "macs",
    "images_per_s",
    "images_per_s_spread",
    "images_per_s_low",
    "images_per_s_high",
    "verdict",
    "timing_seconds",
)
_SCORE_COLUMNS = {"top1": "top1", "se": "top1_se", "seconds": "seconds"}
"""Fields of `TableScore` by the prefix of their columns, which are called PREFIX@IMAGES."""
_SEED = "top1_of_seed_"
"""Prefix of the columns of `TableRow.other_top1`."""


def write_table(table: Table, path: Path) -> None:
    """Writes the table as a CSV file. `load_table` restores all numbers exactly.

    Raises:
        StorageError: The file cannot be written.
    """
    columns = ["key", *table.space.dimensions, *_VALUES]
    columns += [f"{name}@{images}" for images in table.budgets for name in _SCORE_COLUMNS]
    columns += [f"{_SEED}{seed}" for seed in sorted({seed for row in table.rows for seed in row.other_top1})]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        values: dict[str, Any] = {"key": row.key, **row.params, **{name: getattr(row, name) for name in _VALUES}}
        for images, score in row.scores.items():
            values |= {f"{name}@{images}": getattr(score, field) for name, field in _SCORE_COLUMNS.items()}
        values |= {f"{_SEED}{seed}": top1 for seed, top1 in row.other_top1.items()}
        writer.writerow(values)
    write_atomically(path, text.getvalue())


def find_table(name: str) -> Path:
    """Returns the folder of a study, given its name or path. The path of a CSV file is returned unchanged.

    Raises:
        NotFoundError: The study does not exist.
    """
    path = Path(name)
    return path if path.suffix == ".csv" else open_study(name).path


def study_of(path: Path) -> StoredStudy:
    """Returns the study of a table's folder or file.

    Raises:
        NotFoundError: The folder has no manifest.
    """
    study = StoredStudy(path if path.is_dir() else path.parent)
    if not study.exists:
        raise NotFoundError(f"a table must have a manifest.yaml in its folder, but {study.path} has none")
    return study


def load_table(path: Path) -> Table:
    """Returns the table at a path.

    A folder's table comes from the study's records, or from `table.csv` if the folder has no records. A CSV file must
    have its `manifest.yaml` in the same folder.

    Raises:
        NotFoundError: There is no table.
        RecordError: The file is not a table of the manifest's space.
        StorageError: A file cannot be read.
    """
    study = study_of(path)
    if path.is_dir():
        if study.trials_path.is_dir():
            return collect_table(study)
        path = path / TABLE_NAME
    manifest = study.manifest
    try:
        with open(path, encoding="utf-8", newline="") as file:
            read = list(csv.DictReader(file))
        rows = tuple(_read_row(values, manifest) for values in read)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except KeyError as error:
        raise RecordError(f"{path} is not a table of {manifest.space.name}: it has no column {error}") from error
    except (TypeError, ValueError, csv.Error, UsageError) as error:
        raise RecordError(f"{path} is not a table of {manifest.space.name}: {error}") from error
    return Table(manifest=manifest, rows=rows)


def _read_row(values: dict[str, str], manifest: Manifest) -> TableRow:
    scores = {
        images: TableScore(
            **{field: float(values[f"{name}@{images}"]) for name, field in _SCORE_COLUMNS.items()},
        )
        for images in manifest.plan.budgets
        if values[f"top1@{images}"]
    }
    params = {param: int(values[param]) for param in manifest.space.dimensions}
    key = manifest.space.decode(params).key()
    if values["key"] != key:
        raise ValueError(f"the key must be {key} for a network's parameters, but got {values['key']!r}")
    return TableRow(
        key=key,
        params=params,
        parameters=int(values["parameters"]),
        macs=int(values["macs"]),
        images_per_s=float(values["images_per_s"]),
        images_per_s_spread=float(values["images_per_s_spread"]),
        images_per_s_low=float(values["images_per_s_low"]) if values["images_per_s_low"] else None,
        images_per_s_high=float(values["images_per_s_high"]) if values["images_per_s_high"] else None,
        verdict=values["verdict"] or None,
        timing_seconds=float(values["timing_seconds"]),
        scores=scores,
        other_top1={
            int(name.removeprefix(_SEED)): float(text)
            for name, text in values.items()
            if name and name.startswith(_SEED) and text
        },
    )
