"""Making a table: the networks of a space, and their trainings, done here or copied from another study."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path

from benchmarks.tables.table import (
    TABLE_NAME,
    Table,
    TableRow,
    build_score,
    find_table,
    load_table,
    refresh_table,
    study_of,
)
from hilo_nas.errors import UsageError
from hilo_nas.evaluation import Evaluator
from hilo_nas.events import Emit
from hilo_nas.measurement import ProxyScore
from hilo_nas.searching.configuration.resolve import plan_of
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.opening.copied_results import check_plan, check_same
from hilo_nas.searching.sweeps.listing import list_swept
from hilo_nas.searching.sweeps.sweep import Sweep, SweepTraining, run_sweep
from hilo_nas.space import SearchSpace
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import Subject, TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.text.commands import setting_text

__all__ = ["make_table"]


def make_table(
    config: SearchConfig,
    space: SearchSpace,
    folder: StoredStudy,
    emit: Emit,
    *,
    count: int | None = None,
    evaluator: Evaluator | None = None,
) -> list[TrialRecord]:
    """Times and trains networks of a space, and returns their records; goes on where it stopped.

    However it ends, what is there is in the study's `table.csv`.

    Args:
        config: Device, conditions, data, budget and rungs; `study.reuse` is a study, or a table's file, whose
            trainings are copied, so that networks are only timed.
        space: The space, of up to 20,000 settings where all its networks are asked for.
        folder: The study that keeps the records.
        emit: Told of all of it.
        count: How many networks, at random; None for all.
        evaluator: See `run_sweep`.

    Raises:
        UsageError: The space is too large, the count too small, no network is within the space's limits, or the folder
            holds a table without its records.
        StudyMismatchError: The trainings to take over were others.
        HiloNasError: See `run_sweep`.
    """
    if (folder.path / TABLE_NAME).is_file() and not folder.trials_path.is_dir():
        raise UsageError(
            f"study {folder.name} is a stored table without its records: it can be replayed, but not resumed. "
            f"Make another that copies its trainings: --study NAME {setting_text('study.reuse', folder.address)}"
        )
    networks = list_swept(space, config, folder, count, emit)
    plan = plan_of(config, space)
    courses = [SweepTraining(seed=0, images=plan.budgets[-1], networks=len(networks))]
    load_reused = None
    if config.study.reuse is not None:
        reuse = find_table(config.study.reuse)
        check_plan(study_of(reuse), plan)  # before a device is read and images are decoded
        load_reused = functools.partial(_load_reused, reuse)
    sweep = Sweep(space=space, networks=networks, plan=plan, trainings=courses, reuse=load_reused)
    try:
        return run_sweep(config, sweep, folder, emit, evaluator=evaluator)
    finally:
        refresh_table(StoredStudy(folder.path))


def _load_reused(source: Path, manifest: Manifest) -> list[TrialRecord]:
    """Returns what a study, or a table of which only the file is left, knows of trainings as a manifest has them."""
    study = study_of(source)
    check_same(study.manifest, manifest.plan, manifest.data)
    if source.is_dir() and study.trials_path.is_dir():
        found = [(record.number, record.subject, record.params, record.scores) for record in study.records]
    else:
        table = load_table(source)
        found = [
            (number, Subject(arch=table.space.decode(row.params)), row.params, _list_scores(row, table))
            for number, row in enumerate(table.rows)
        ]
    return [
        TrialRecord(
            number=number,
            subject=subject,
            state=TrialState.WAITING,
            params=params,
            origin=f"reuse:{study.name}/{number}",
            scores=tuple(score for score in scores if score.images_seen <= manifest.plan.budgets[-1]),
        )
        for number, subject, params, scores in found
    ]


def _list_scores(row: TableRow, table: Table) -> tuple[ProxyScore, ...]:
    budgets = sorted(row.scores)
    return tuple(build_score(row, images, table, since=since) for since, images in itertools.pairwise((0, *budgets)))
