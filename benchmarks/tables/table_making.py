"""Creation of a benchmark table: times the networks of a space, and trains them or copies trainings."""

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
    seeds: int = 1,
    evaluator: Evaluator | None = None,
) -> list[TrialRecord]:
    """Times and trains networks of a space, and returns their records. Resumes an interrupted table.

    All finished results are written to the study's `table.csv`, even after an error.

    Args:
        config: Device, conditions, data, budget and rungs. `study.reuse` names a study or a table's file whose
            trainings are copied. Networks are then only timed.
        space: Search space, with 20,000 settings at most if `count` is None.
        folder: Study that stores the records.
        emit: Receives an event for each step.
        count: Number of random networks; None for all.
        seeds: Number of training seeds. Replays of searches see the first one, and the others judge what they find.
        evaluator: Evaluator that times and trains. Defaults to local workers.

    Raises:
        UsageError: The space is too large, the count is too small, no network is within the space's limits, or the
            folder has a table without records.
        StudyMismatchError: The trainings of `study.reuse` have another plan or other data.
        HiloNasError: Any error of `run_sweep`.
    """
    if (folder.path / TABLE_NAME).is_file() and not folder.trials_path.is_dir():
        raise UsageError(
            f"study {folder.name} must have records to be resumed, but it has only a table. "
            f"Make a new table that copies its trainings: --study NAME {setting_text('study.reuse', folder.address)}"
        )
    networks = list_swept(space, config, folder, count, emit)
    plan = plan_of(config, space)
    courses = [SweepTraining(seed=seed, images=plan.budgets[-1], networks=len(networks)) for seed in range(seeds)]
    load_reused = None
    if config.study.reuse is not None:
        reuse = find_table(config.study.reuse)
        check_plan(study_of(reuse), plan)  # fail before images are decoded
        load_reused = functools.partial(_load_reused, reuse)
    sweep = Sweep(space=space, networks=networks, plan=plan, trainings=courses, reuse=load_reused)
    try:
        return run_sweep(config, sweep, folder, emit, evaluator=evaluator)
    finally:
        refresh_table(StoredStudy(folder.path))


def _load_reused(source: Path, manifest: Manifest) -> list[TrialRecord]:
    """Returns records with the scores of a study or of a table's file, up to the full budget of a manifest.

    Raises:
        StudyMismatchError: The trainings do not match the manifest.
    """
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
