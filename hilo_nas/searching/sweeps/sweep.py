"""A given list of networks, all timed and all trained: what a proxy is checked with, and what searches are replayed on.

No sampler and no stopping: the study that comes of it is a table. Networks are timed side by side; then as many are
trained at once as there is room for, each on its share of the cores: networks for small images leave a second thread
little to do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence

from hilo_nas.clock import utc_now
from hilo_nas.errors import StudyMismatchError
from hilo_nas.evaluation import Evaluator, evaluator_or_local
from hilo_nas.events import Emit, NetworksTimed, Notice
from hilo_nas.measurement import ProxyPlan
from hilo_nas.measurement.rounds import verdict_name
from hilo_nas.proxy.kinds import proxy_named
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.halving.checkpoint_retention import checkpoint_of, dispensable
from hilo_nas.searching.opening.event_log import Journal
from hilo_nas.searching.opening.resume import reopen
from hilo_nas.searching.opening.study_lock import locked
from hilo_nas.searching.opening.study_setup import Setting, local_of, set_up
from hilo_nas.searching.sweeps.pending_work import Errand, ProxyErrand, TrainingErrand, run_errands
from hilo_nas.searching.tasks.study_tasks import StudyTasks
from hilo_nas.searching.tasks.timing_only import time_list
from hilo_nas.space import SearchSpace
from hilo_nas.study.local_settings import write_local
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import Subject, TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.study.transitions import complete
from hilo_nas.text.commands import command

__all__ = ["ALL", "Course", "Sweep", "Swept", "run_sweep"]

ALL = "all"
"""Stands for the sampler in the manifest of a study that a sweep made."""
_TIMED_TOGETHER = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Swept:
    """A network of the list."""

    subject: Subject
    params: dict[str, int] | None
    origin: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Course:
    """One training that networks of the list are given; courses are gone through in their order."""

    seed: int
    images: int
    """Training images seen at its end; scored there and at each smaller budget of the plan."""
    networks: int
    """How many of the list, from its beginning."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """A list of networks and all that is done with them."""

    space: SearchSpace
    """Search space of the networks."""
    networks: Sequence[Swept]
    """The list. A stored list is resumed where one of both begins with the other; of a longer stored one, the networks
    beyond this list are left alone."""
    plan: ProxyPlan
    """Conditions of the training and every budget at which it is scored; those of a stored study stay."""
    courses: Sequence[Course]
    """The trainings."""
    proxies: Sequence[str] = ()
    """Names of quick proxies (`Proxy.is_quick`) that score the networks as well, for comparison."""
    reuse: Callable[[Manifest], Sequence[TrialRecord]] | None = None
    """Returns records of networks that were trained elsewhere, for this study's manifest: their scores are copied.
    An error that it raises leaves the study as it was."""


def run_sweep(
    config: SearchConfig, sweep: Sweep, study: StoredStudy, emit: Emit, *, evaluator: Evaluator | None = None
) -> list[TrialRecord]:
    """Times and trains every network of a list and returns the records; resumes what was begun.

    Args:
        config: Device, conditions and data.
        sweep: The networks and their trainings.
        study: The study that keeps the records.
        emit: Receives all events.
        evaluator: Times and trains; this machine if left out.

    Raises:
        StudyMismatchError: The stored study is of other networks, conditions or data.
        HiloNasError: The device, the data or the disk cannot serve. A network that cannot be trained is a warning.
    """
    with (
        locked(study),
        Journal(study.logs_path / "events.jsonl", emit) as journal,
        evaluator_or_local(
            evaluator,
            study.logs_path,
            purpose=f"study {study.name}",
            checkpoints=study.checkpoints_path,
            checkpoint_mib=config.study.checkpoint_mib,
            idle_timeout_s=config.study.idle_timeout_s,
            jobs=None,
        ) as evaluator,
    ):
        study = StoredStudy(study.path)
        manifest, setting, reused = _open(config, sweep, study, evaluator, journal)
        setting.draw_sheet(study, evaluator, journal)
        tasks, networks, courses = setting.tasks, sweep.networks, sweep.courses
        records = _timed(study, networks, tasks, evaluator, journal)
        beyond = study.records[len(networks) :]
        _tell_of_disturbed(records, study, journal)
        seeds = {manifest.seed, *(course.seed for course in courses)}

        def write(record: TrialRecord) -> TrialRecord:
            record = _closed(record, manifest, courses)
            study.write(record)
            return record

        records = _take_over(records, reused, write)
        errands = _errands(records, manifest, courses, sweep.proxies)

        def tidy(needed: Collection[str]) -> None:
            evaluator.discard(dispensable([*records, *beyond], seeds, needed))

        run_errands(errands, records, tasks, write, tidy, evaluator, journal)
        study.write_csv_files()
        return list(study.records[: len(networks)])


def _open(
    config: SearchConfig, sweep: Sweep, study: StoredStudy, evaluator: Evaluator, emit: Emit
) -> tuple[Manifest, Setting, Sequence[TrialRecord]]:
    is_new, count = not study.exists, len(sweep.networks)
    if not is_new:
        manifest = study.manifest
        if manifest.sampler != ALL:
            raise StudyMismatchError(
                f"study {study.name} was made by a search, not by this command. Use another --study."
            )
        _check_networks(study, sweep.networks)
        # Budgets may grow from one call to the next, for a training without a horizon goes on; none is ever dropped.
        budgets = ("proxy.images", "proxy.rungs", "proxy.reduction_factor", "proxy.rung_ratio")
        unbudgeted = config.replace(dict.fromkeys(budgets))
        setting = reopen(unbudgeted, study, manifest, sweep.space, evaluator, emit)
        plan = manifest.plan.with_budgets((*sweep.plan.rungs, sweep.plan.images))
        manifest = dataclasses.replace(manifest, trials=max(count, manifest.trials))
    else:
        setting = set_up(config, sweep.space, evaluator, emit)
        plan = dataclasses.replace(setting.plan, images=sweep.plan.images, rungs=sweep.plan.rungs)
        manifest = setting.build_manifest(study.name, sampler=ALL, seed=0, trials=count, eta=None)
    manifest = dataclasses.replace(manifest, plan=plan)
    reused = sweep.reuse(manifest) if sweep.reuse else ()
    if is_new:
        write_local(study.local_path, local_of(config))
    study.write_manifest(manifest)
    return manifest, dataclasses.replace(setting, plan=plan), reused


def _check_networks(study: StoredStudy, networks: Sequence[Swept]) -> None:
    """Raises StudyMismatchError unless of the stored networks and those asked for one begins with the other."""
    asked = [network.subject.key for network in networks]
    stored = [record.key for record in study.records]
    count = min(len(asked), len(stored))
    if stored[:count] != asked[:count]:
        raise StudyMismatchError(
            f"study {study.name} must begin with the networks asked for, but holds others. Leave SPACE "
            "and the sizes out to keep those of the study, or use another --study."
        )


def _timed(
    study: StoredStudy, networks: Sequence[Swept], tasks: StudyTasks, evaluator: Evaluator, emit: Emit
) -> list[TrialRecord]:
    """Returns a record with its speed for each network that can be timed; those that cannot have failed."""
    for first in range(len(study.records), len(networks), _TIMED_TOGETHER):
        group = [
            TrialRecord(
                number=number,
                subject=network.subject,
                state=TrialState.WAITING,
                params=network.params,
                origin=network.origin,
            )
            for number, network in enumerate(networks[first : first + _TIMED_TOGETHER], start=first)
        ]
        time_list(group, study, evaluator, tasks, emit)
        emit(NetworksTimed(done=first + len(group), total=len(networks)))
    return list(study.records[: len(networks)])


def _tell_of_disturbed(records: Sequence[TrialRecord], study: StoredStudy, emit: Emit) -> None:
    verdicts = [verdict_name(record.measurement) for record in records if record.measurement]
    if disturbed := sum(verdict not in (None, "steady") for verdict in verdicts):
        text = (
            f"{disturbed} of {len(verdicts)} networks were timed on a machine that was not steady: those that were not "
            "timed in the same rounds may differ by more than their intervals say. Time all again when nothing else "
            f"runs: {command('remeasure', study.address, '--all')}"
        )
        emit(Notice(level="warning", text=text))


def _take_over(
    records: Sequence[TrialRecord], reused: Sequence[TrialRecord], write: Callable[[TrialRecord], TrialRecord]
) -> list[TrialRecord]:
    """Returns the records with the scores that their networks were given elsewhere, where they lack them."""
    given = {item.key: item for item in reused}
    found = []
    for record in records:
        if (item := given.get(record.key)) and record.measurements:
            known = {(score.seed, score.images_seen) for score in record.scores}
            if lacking := [score for score in item.scores if (score.seed, score.images_seen) not in known]:
                origin = record.origin if known else item.origin
                record = write(dataclasses.replace(record, origin=origin, scores=(*record.scores, *lacking)))
        found.append(record)
    return found


def _errands(
    records: Sequence[TrialRecord],
    manifest: Manifest,
    courses: Sequence[Course],
    proxies: Sequence[str],
) -> list[Errand]:
    """Returns what is not done: the other proxies, which take seconds, then the trainings, course by course."""
    timed = [record for record in records if record.measurements]
    names = {name: proxy_named(name).comparison_hash(manifest.plan.to_dict(), manifest.data.hash) for name in proxies}
    errands: list[Errand] = [
        ProxyErrand(number=record.number, subject=record.subject, seed=manifest.seed, name=name, plan_hash=plan_hash)
        for name, plan_hash in names.items()
        for record in timed
        if plan_hash not in {score.plan_hash for score in record.other_scores}
    ]
    for course in courses:
        for record in timed:
            missing = _missing(record, manifest, course)
            if record.number < course.networks and missing:
                errands.append(
                    TrainingErrand(
                        number=record.number,
                        subject=record.subject,
                        seed=course.seed,
                        budgets=missing,
                        checkpoint=checkpoint_of(record.key, course.seed),
                    )
                )
    return errands


def _missing(record: TrialRecord, manifest: Manifest, course: Course) -> tuple[int, ...]:
    """The budgets of a course that a network is still to reach; those that it went past unscored are not."""
    reached = max((score.images_seen for score in record.scores if score.seed == course.seed), default=0)
    return tuple(images for images in manifest.plan.budgets if reached < images <= course.images)


def _closed(record: TrialRecord, manifest: Manifest, courses: Sequence[Course]) -> TrialRecord:
    """The record, complete where no course is left to it."""
    mine = [course for course in courses if record.number < course.networks]
    if any(_missing(record, manifest, course) for course in mine):
        return record
    seconds = sum(score.seconds for score in record.scores)
    return complete(record, finished_at=utc_now(), seconds=seconds)
