"""Making a table: the networks of a space, and their trainings, done here or copied from another study."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path

from hilo_nas.bench.table import (
    TABLE_NAME,
    Table,
    TableRow,
    build_score,
    find_table,
    list_within,
    load_table,
    refresh_table,
    study_of,
)
from hilo_nas.errors import UsageError
from hilo_nas.evaluation import Evaluator
from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import ProxyScore
from hilo_nas.proxy.kinds import DEFAULT_PROXY, proxy_named
from hilo_nas.searching.config import SearchConfig
from hilo_nas.searching.resolve import plan_of
from hilo_nas.searching.setting import find_study
from hilo_nas.searching.sweep import Course, Sweep, Swept, run_sweep
from hilo_nas.searching.takeover import check_plan, check_same
from hilo_nas.space import SearchSpace, limit_text
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import Subject, TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored import StoredStudy
from hilo_nas.text.commands import setting_text

__all__ = ["check_training", "list_swept", "make_table", "read_sweep"]

_OF_A_SEARCH = (
    *("proxy.reduction_factor", "proxy.confirm", "proxy.raise_budget", "study.speeds"),
    *("search.sampler", "search.seed", "search.trials", "search.until_trials", "search.timeout_s"),
    *("search.baselines", "search.networks"),
)
"""Settings that mean nothing to a list of networks, of which none is proposed, stopped or tried twice."""


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
    courses = [Course(seed=0, images=plan.budgets[-1], networks=len(networks))]
    load_reused = None
    if config.study.reuse is not None:
        reuse = find_table(config.study.reuse)
        check_plan(study_of(reuse), plan)  # before a device is read and images are decoded
        load_reused = functools.partial(_load_reused, reuse)
    sweep = Sweep(space=space, networks=networks, plan=plan, courses=courses, reuse=load_reused)
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


def read_sweep(
    config: SearchConfig, emit: Emit, *, unread: Sequence[str] = ()
) -> tuple[SearchConfig, SearchSpace, StoredStudy]:
    """Returns the configuration of a table or a check, without the settings of a search alone, its space and its study.

    Args:
        config: What is asked for. Without a space, a stored study keeps its own.
        emit: Receives a warning that names the settings that are not read.
        unread: Further settings that are not read.

    Raises:
        UsageError: The study has no name, or another proxy than the training is asked for.
        NotFoundError: There is no such space or study.
    """
    if config.study.name is None:
        raise UsageError("study.name must be given, but was left out. Use --study NAME.")
    check_training(config)
    nothing = SearchConfig()
    if skipped := [name for name in (*_OF_A_SEARCH, *unread) if config.value(name) not in (nothing.value(name), 0)]:
        emit(Notice(level="warning", text=f"not read here, because they are of a search alone: {', '.join(skipped)}"))
    config = config.replace({name: nothing.value(name) for name in (*_OF_A_SEARCH, *unread)})
    space, study = find_study(config)
    return config, study.manifest.space if space is None else space, study


def check_training(config: SearchConfig) -> None:
    """Raises UsageError where a configuration asks for another proxy than the short training."""
    if config.proxy.name is not None and not proxy_named(config.proxy.name).has_rungs:
        raise UsageError(f"proxy.name must be {DEFAULT_PROXY.name} or left out, but got {config.proxy.name!r}")


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
