"""A table: the networks of a space with their speeds and scores, as a value, of a study's records or of a file.

It is made as a study (`making.py`). Stored for others it is two files: the study's `manifest.yaml`, and `table.csv`
with a row per network, which hold all that a replay needs.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from functools import cached_property
from pathlib import Path
from typing import Any

from hilo_nas.errors import NotFoundError, RecordError, StorageError, UsageError
from hilo_nas.measurement import ProxyScore
from hilo_nas.measurement.rounds import verdict_name
from hilo_nas.searching.sweeps.listing import list_within
from hilo_nas.searching.sweeps.sweep import ALL
from hilo_nas.space import SearchSpace
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord, write_atomically
from hilo_nas.study.stored_study import StoredStudy, open_study
from hilo_nas.text.commands import command

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
"""The table's file, beside `manifest.yaml`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableScore:
    """One network's score at one budget."""

    top1: float
    top1_se: float
    """From the finite number of held-out images, as `ProxyScore.standard_error`."""
    seconds: float
    """Of the training from its beginning up to this budget, scoring on the way included."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableRow:
    """One network of a table."""

    key: str
    params: dict[str, int]
    """Optuna's flat integers."""
    parameters: int
    macs: int
    images_per_s: float
    images_per_s_spread: float
    images_per_s_low: float | None
    """Ends of the 95 % interval, where the timing has one."""
    images_per_s_high: float | None
    verdict: str | None
    """How the machine behaved while the network was timed."""
    timing_seconds: float
    scores: dict[int, TableScore]
    """By images seen; of a table that is not finished, those that are there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """The networks of a space with their speeds and, at each budget, their scores."""

    manifest: Manifest
    rows: tuple[TableRow, ...]
    """Of the networks that were timed."""

    @property
    def space(self) -> SearchSpace:
        """What the networks are of."""
        return self.manifest.space

    @property
    def budgets(self) -> tuple[int, ...]:
        """Images seen at each score, the full budget last."""
        return self.manifest.plan.budgets

    @cached_property
    def by_key(self) -> dict[str, TableRow]:
        """The rows by their networks' keys."""
        return {row.key: row for row in self.rows}

    def check_whole(self) -> None:
        """Checks that every network of the space, within its limits, has its speed and all its scores.

        Raises:
            UsageError: Some are missing, or the space is so large that some must be.
        """
        try:
            listed = list_within(self.space, self.manifest.objective.img_size)
        except UsageError:
            raise UsageError(
                f"a search can be replayed on a whole table alone, but {self.manifest.name} is of a sample of "
                f"{self.space.name}, which has {self.space.n_configs:,} settings. Replay on a table of a small space: "
                "python -m benchmarks.tables litv2_tabular ..."
            ) from None
        whole = {row.key for row in self.rows if row.scores.keys() >= set(self.budgets)}
        if missing := {arch.key() for arch, _ in listed} - whole:
            raise UsageError(
                f"a search can be replayed on a whole table alone, but {len(missing)} of the {len(listed)} networks of "
                f"{self.space.name} lack their speed or a score in {self.manifest.name}. Go on with it: "
                f"{command('bench', 'table', self.space.name, '--study', self.manifest.name)} ..."
            )


def refresh_table(study: StoredStudy) -> None:
    """Writes the `table.csv` of a study that is a table, from its records; of any other study, none.

    Raises:
        RecordError: A file of the study cannot be understood.
        StorageError: One cannot be read, or the folder cannot be written.
    """
    if study.exists and study.manifest.sampler == ALL and study.trials_path.is_dir():
        write_table(collect_table(study), study.path / TABLE_NAME)


def build_score(row: TableRow, images: int, table: Table, *, since: int = 0, seed: int | None = None) -> ProxyScore:
    """Returns a network's score as far as the table has kept it.

    Args:
        row: The network's.
        images: The budget, one of those it has a score at.
        table: The row's.
        since: The budget that its training goes on from; 0 where it begins. The seconds are those from there.
        seed: Of the training; the table's own if left out.
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
    """Returns the table that a study's records hold.

    Raises:
        RecordError: A file of the study cannot be understood.
        StorageError: One cannot be read.
    """
    rows = [_row_of(record, study.manifest) for record in study.records]
    return Table(manifest=study.manifest, rows=tuple(row for row in rows if row is not None))


def _row_of(record: TrialRecord, manifest: Manifest) -> TableRow | None:
    measurement = record.measurement
    if measurement is None or record.params is None or record.parameters is None or record.macs is None:
        return None
    scores: dict[int, TableScore] = {}
    seconds = 0.0
    for score in sorted(record.scores, key=lambda score: score.images_seen):
        if score.seed == manifest.seed:
            seconds += score.seconds  # a record's are those of a leg
            scores[score.images_seen] = TableScore(top1=score.value, top1_se=score.standard_error, seconds=seconds)
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
_OF_A_SCORE = {"top1": "top1", "se": "top1_se", "seconds": "seconds"}
"""How a score's columns begin, before `@` and the images seen, and which field each is."""


def write_table(table: Table, path: Path) -> None:
    """Writes the table as one CSV file; every figure comes back as it was.

    Raises:
        StorageError: The folder cannot be written.
    """
    columns = ["key", *table.space.dimensions, *_VALUES]
    columns += [f"{name}@{images}" for images in table.budgets for name in _OF_A_SCORE]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        values: dict[str, Any] = {"key": row.key, **row.params, **{name: getattr(row, name) for name in _VALUES}}
        for images, score in row.scores.items():
            values |= {f"{name}@{images}": getattr(score, field) for name, field in _OF_A_SCORE.items()}
        writer.writerow(values)
    write_atomically(path, text.getvalue())


def find_table(name: str) -> Path:
    """Returns the folder of the study with a name or path, or the table's file that is named itself.

    Raises:
        NotFoundError: There is none.
    """
    path = Path(name)
    return path if path.suffix == ".csv" else open_study(name).path


def study_of(path: Path) -> StoredStudy:
    """Returns the study that a table's folder or file belongs to.

    Raises:
        NotFoundError: There is none.
    """
    study = StoredStudy(path if path.is_dir() else path.parent)
    if not study.exists:
        raise NotFoundError(f"a table's manifest.yaml must lie beside it, but {study.path} has none")
    return study


def load_table(path: Path) -> Table:
    """Returns the table of a study's folder: of its records, or, stored without them, of its file; or of a named file.

    A file's manifest lies beside it.

    Raises:
        NotFoundError: There is no table.
        RecordError: It is no table of its manifest's space.
        StorageError: It cannot be read.
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
        raise RecordError(f"{path} is no table of the space {manifest.space.name}: it has no column {error}") from error
    except (TypeError, ValueError, csv.Error, UsageError) as error:
        raise RecordError(f"{path} is no table of the space {manifest.space.name}: {error}") from error
    return Table(manifest=manifest, rows=rows)


def _read_row(values: dict[str, str], manifest: Manifest) -> TableRow:
    scores = {
        images: TableScore(
            **{field: float(values[f"{name}@{images}"]) for name, field in _OF_A_SCORE.items()},
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
    )
