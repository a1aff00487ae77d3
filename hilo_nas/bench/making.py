"""Making a table: which networks of a space it is of, and their trainings, done here or taken over from elsewhere."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from pathlib import Path

from hilo_nas.bench.table import (
    TABLE_NAME,
    Table,
    TableRow,
    build_score,
    list_within,
    load_table,
    refresh_table,
    study_of,
)
from hilo_nas.errors import UsageError
from hilo_nas.evaluation import Evaluator
from hilo_nas.events import Emit, Notice
from hilo_nas.manifest import Manifest
from hilo_nas.measurement import ProxyScore
from hilo_nas.records import Subject, TrialRecord
from hilo_nas.searching.config import SearchConfig
from hilo_nas.searching.resolve import plan_of
from hilo_nas.searching.sweep import Course, Swept, run_sweep
from hilo_nas.searching.takeover import check_plan, check_same
from hilo_nas.space import SearchSpace, limit_text
from hilo_nas.states import TrialState
from hilo_nas.study import StoredStudy

__all__ = ["limit_space", "list_swept", "make_table"]


def make_table(
    config: SearchConfig,
    space: SearchSpace,
    folder: StoredStudy,
    emit: Emit,
    *,
    count: int | None = None,
    jobs: int | None = None,
    reuse: Path | None = None,
    evaluator: Evaluator | None = None,
) -> list[TrialRecord]:
    """Times and trains networks of a space, and returns their records; goes on where it stopped.

    However it ends, what is there is in the study's `table.csv`.

    Args:
        config: Device, conditions, data, budget and rungs.
        space: The space, of up to 20,000 settings where all its networks are asked for.
        folder: The study that keeps the records.
        emit: Told of all of it.
        count: How many networks, at random; None for all.
        jobs: Trainings at once; see `run_sweep`.
        reuse: Folder of a study, or a table's file, whose trainings are taken over, so that networks are only timed.
        evaluator: See `run_sweep`.

    Raises:
        UsageError: The space is too large, the count too small, no network is within the space's limits, or the folder
            holds a table without its records.
        StudyMismatchError: The trainings to take over were others.
        HiloNasError: See `run_sweep`.
    """
    if (folder.path / TABLE_NAME).is_file() and not folder.trials_path.is_dir():
        raise UsageError(
            f"study {folder.name} is a stored table without its records: it can be replayed, but not gone on with. "
            f"Make another that takes its trainings over: --study NAME --reuse {folder.name}"
        )
    networks = list_swept(space, config, folder, count, emit)
    plan = plan_of(config, space)
    courses = [Course(seed=0, images=plan.budgets[-1], networks=len(networks))]
    load_reused = None
    if reuse is not None:
        check_plan(study_of(reuse), plan)  # before a device is read and images are decoded
        load_reused = functools.partial(_load_reused, reuse)
    try:
        return run_sweep(
            config, space, folder, networks, plan, courses, emit, jobs=jobs, reuse=load_reused, evaluator=evaluator
        )
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


def limit_space(space: SearchSpace, folder: StoredStudy, limits: Mapping[str, float | None]) -> SearchSpace:
    """Returns a space within further limits; where none is given, within those of the stored study, if it is of it.

    Raises:
        UsageError: A limit is no number above 0.
        HiloNasError: The stored study cannot be read.
    """
    if folder.exists and all(limit is None for limit in limits.values()):
        stored = StoredStudy(folder.path).manifest.space
        if dataclasses.replace(stored, limits=space.limits).hash() == space.hash():
            return stored
    return space.limited(limits)


def list_swept(
    space: SearchSpace, config: SearchConfig, folder: StoredStudy, count: int | None, emit: Emit
) -> list[Swept]:
    """Returns the networks of a table or a check, in the order that both share, so that one goes on with the other.

    Args:
        space: What they are of.
        config: Says the image size, at which MACs are limited, unless the folder's study does.
        folder: The study's.
        count: How many; None for all.
        emit: Told where there are fewer.

    Raises:
        UsageError: All networks of a large space are asked for, or less than one, or none is within the limits.
        HiloNasError: The stored study cannot be read.
    """
    if count is not None and count < 1:
        raise UsageError(f"networks must be at least 1, but got {count}")
    stored = StoredStudy(folder.path).manifest.objective.img_size if folder.exists else None
    listed = list_within(space, config.timing.img_size or stored or space.defaults.get("img_size", 224), count)
    if not listed:
        limits = ", ".join(limit_text(name, limit) for name, limit in space.limits.items())
        raise UsageError(f"no network of {space.name} was found within its limits ({limits}). Use wider ones.")
    if count is not None and len(listed) < count:
        text = f"{count} networks of {space.name} were asked for, but only {len(listed)} were found within its limits"
        emit(Notice(level="warning", text=text))
    return [Swept(subject=Subject(arch=arch), params=params, origin="list") for arch, params in listed]
