"""Timing and training of a given list of networks, as data for proxy checks and search replays.

There is no sampler and no early stopping. Networks are timed in shared rounds, then trained. Several trainings run at
once, each on its share of the cores, because networks for small images hardly profit from a second thread.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence

from hilo_nas.clock import utc_now
from hilo_nas.errors import StudyMismatchError
from hilo_nas.evaluation import Evaluator, evaluator_or_local
from hilo_nas.events import Emit, NetworksTimed, Notice
from hilo_nas.measurement import ProxyPlan
from hilo_nas.measurement.verdicts import verdict_name
from hilo_nas.proxy.kinds import proxy_named
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.halving.checkpoint_retention import checkpoint_name, discardable_checkpoints
from hilo_nas.searching.opening.event_log import EventLog
from hilo_nas.searching.opening.resume import reopen
from hilo_nas.searching.opening.study_lock import locked
from hilo_nas.searching.opening.study_setup import StudySetup, local_settings_of, set_up_study
from hilo_nas.searching.sweeps.pending_work import PendingScore, PendingTraining, PendingWork, run_pending
from hilo_nas.searching.tasks.study_tasks import StudyTasks
from hilo_nas.searching.tasks.timing_only import time_networks
from hilo_nas.space import SearchSpace
from hilo_nas.study.local_settings import write_local
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import Subject, TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.study.transitions import complete
from hilo_nas.text.commands import command

__all__ = ["ALL", "Sweep", "SweepNetwork", "SweepTraining", "run_sweep"]

ALL = "all"
"""Value of the manifest's `sampler` for a study created by a sweep."""
_TIMED_TOGETHER = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepNetwork:
    """Network that a sweep times and trains, with its parameters in the space (None if outside) and its origin."""

    subject: Subject
    params: dict[str, int] | None
    origin: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepTraining:
    """One seed with which the first `networks` networks of the list are trained."""

    seed: int
    images: int
    """Full budget in training images. Networks are also scored at each smaller budget of the plan."""
    networks: int
    """Number of networks to train, from the start of the list."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """List of networks and the work to do on them."""

    space: SearchSpace
    """Search space of the networks."""
    networks: Sequence[SweepNetwork]
    """The list. A stored study is resumed if one of the two lists begins with the other. Stored networks beyond this
    list are not changed."""
    plan: ProxyPlan
    """Plan of the training with every budget at which networks are scored. Budgets of a stored study are kept."""
    trainings: Sequence[SweepTraining]
    """Trainings in order."""
    proxies: Sequence[str] = ()
    """Names of quick proxies (`Proxy.is_quick`) that also score the networks, for comparison."""
    reuse: Callable[[Manifest], Sequence[TrialRecord]] | None = None
    """Returns records of networks trained elsewhere, for this study's manifest. Their scores are copied. If it raises
    an error, the study is not changed."""


def run_sweep(
    config: SearchConfig, sweep: Sweep, study: StoredStudy, emit: Emit, *, evaluator: Evaluator | None = None
) -> list[TrialRecord]:
    """Times and trains every network of a list and returns the records. Resumes a stored study.

    Args:
        config: Device, conditions and data.
        sweep: Networks and their trainings.
        study: Study that stores the records.
        emit: Receives all events.
        evaluator: Times and trains networks; workers on this machine if left out.

    Raises:
        StudyMismatchError: The stored study has other networks, conditions or data.
        HiloNasError: The device, the data or the disk fails. A network that cannot be trained only causes a warning.
    """
    with (
        locked(study),
        EventLog(study.logs_path / "events.jsonl", emit) as event_log,
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
        manifest, setup, reused = _open(config, sweep, study, evaluator, event_log)
        setup.draw_sheet(study, evaluator, event_log)
        tasks, networks, trainings = setup.tasks, sweep.networks, sweep.trainings
        records = _timed(study, networks, tasks, evaluator, event_log)
        further = study.records[len(networks) :]
        _warn_of_disturbed(records, study, event_log)
        seeds = {manifest.seed, *(training.seed for training in trainings)}

        def write(record: TrialRecord) -> TrialRecord:
            record = _closed(record, manifest, trainings)
            study.write(record)
            return record

        records = _copy_scores(records, reused, write)
        pending = _pending_work(records, manifest, trainings, sweep.proxies)

        def tidy(needed: Collection[str]) -> None:
            evaluator.discard(discardable_checkpoints([*records, *further], seeds, needed))

        run_pending(pending, records, tasks, write, tidy, evaluator, event_log)
        study.write_csv_files()
        return list(study.records[: len(networks)])


def _open(
    config: SearchConfig, sweep: Sweep, study: StoredStudy, evaluator: Evaluator, emit: Emit
) -> tuple[Manifest, StudySetup, Sequence[TrialRecord]]:
    is_new, count = not study.exists, len(sweep.networks)
    if not is_new:
        manifest = study.manifest
        if manifest.sampler != ALL:
            raise StudyMismatchError(
                f"study {study.name} must be one of this command, but was created by a search. Use another --study."
            )
        _check_networks(study, sweep.networks)
        # Budgets may grow between calls, because the training does not depend on its full budget. None is removed.
        budgets = ("proxy.images", "proxy.rungs", "proxy.reduction_factor", "proxy.rung_ratio")
        unbudgeted = config.replace(dict.fromkeys(budgets))
        setup = reopen(unbudgeted, study, manifest, sweep.space, evaluator, emit)
        plan = manifest.plan.with_budgets((*sweep.plan.rungs, sweep.plan.images))
        manifest = dataclasses.replace(manifest, trials=max(count, manifest.trials))
    else:
        setup = set_up_study(config, sweep.space, evaluator, emit)
        plan = dataclasses.replace(setup.plan, images=sweep.plan.images, rungs=sweep.plan.rungs)
        manifest = setup.build_manifest(study.name, sampler=ALL, seed=0, trials=count, reduction_factor=None)
    manifest = dataclasses.replace(manifest, plan=plan)
    reused = sweep.reuse(manifest) if sweep.reuse else ()
    if is_new:
        write_local(study.local_path, local_settings_of(config))
    study.write_manifest(manifest)
    return manifest, dataclasses.replace(setup, plan=plan), reused


def _check_networks(study: StoredStudy, networks: Sequence[SweepNetwork]) -> None:
    """Raises StudyMismatchError unless one of the stored and the requested lists begins with the other."""
    asked = [network.subject.key for network in networks]
    stored = [record.key for record in study.records]
    count = min(len(asked), len(stored))
    if stored[:count] != asked[:count]:
        raise StudyMismatchError(
            f"study {study.name} must begin with the requested networks, but contains others. Leave out SPACE "
            "and the sizes to keep those of the study, or use another --study."
        )


def _timed(
    study: StoredStudy, networks: Sequence[SweepNetwork], tasks: StudyTasks, evaluator: Evaluator, emit: Emit
) -> list[TrialRecord]:
    """Returns the records of the networks, timed if they were not yet. Networks that cannot be timed are failed."""
    stored = study.records
    new = [
        TrialRecord(
            number=number,
            subject=network.subject,
            state=TrialState.WAITING,
            params=network.params,
            origin=network.origin,
        )
        for number, network in enumerate(networks[len(stored) :], start=len(stored))
    ]
    # A stopped sweep may have timed networks under some conditions only.
    due = [*(record for record in stored[: len(networks)] if record.state == TrialState.WAITING), *new]
    done = len(networks) - len(due)
    for first in range(0, len(due), _TIMED_TOGETHER):
        group = due[first : first + _TIMED_TOGETHER]
        time_networks(group, study, evaluator, tasks, emit)
        done += len(group)
        emit(NetworksTimed(done=done, total=len(networks)))
    return list(study.records[: len(networks)])


def _warn_of_disturbed(records: Sequence[TrialRecord], study: StoredStudy, emit: Emit) -> None:
    verdicts = [verdict_name(record.measurement) for record in records if record.measurement]
    if disturbed := sum(verdict not in (None, "steady") for verdict in verdicts):
        text = (
            f"{disturbed} of {len(verdicts)} networks were timed on an unsteady machine, so networks of different "
            "rounds may differ by more than their intervals. Time all again when nothing else runs: "
            f"{command('remeasure', study.address, '--all')}"
        )
        emit(Notice(level="warning", text=text))


def _copy_scores(
    records: Sequence[TrialRecord], reused: Sequence[TrialRecord], write: Callable[[TrialRecord], TrialRecord]
) -> list[TrialRecord]:
    """Returns the records with the missing scores copied from records of other studies."""
    sources = {item.key: item for item in reused}
    found = []
    for record in records:
        if (item := sources.get(record.key)) and record.measurements:
            known = {(score.seed, score.images_seen) for score in record.scores}
            if missing := [score for score in item.scores if (score.seed, score.images_seen) not in known]:
                origin = record.origin if known else item.origin
                record = write(dataclasses.replace(record, origin=origin, scores=(*record.scores, *missing)))
        found.append(record)
    return found


def _pending_work(
    records: Sequence[TrialRecord],
    manifest: Manifest,
    trainings: Sequence[SweepTraining],
    proxies: Sequence[str],
) -> list[PendingWork]:
    """Returns the pending work: scores of other proxies, which take seconds, then the trainings in order."""
    timed = [record for record in records if record.measurements]
    names = {name: proxy_named(name).comparison_hash(manifest.plan.to_dict(), manifest.data.hash) for name in proxies}
    pending: list[PendingWork] = [
        PendingScore(number=record.number, subject=record.subject, seed=manifest.seed, name=name, plan_hash=plan_hash)
        for name, plan_hash in names.items()
        for record in timed
        if plan_hash not in {score.plan_hash for score in record.other_scores}
    ]
    for training in trainings:
        for record in timed:
            missing = _missing(record, manifest, training)
            if record.number < training.networks and missing:
                pending.append(
                    PendingTraining(
                        number=record.number,
                        subject=record.subject,
                        seed=training.seed,
                        budgets=missing,
                        checkpoint=checkpoint_name(record.key, training.seed),
                    )
                )
    return pending


def _missing(record: TrialRecord, manifest: Manifest, training: SweepTraining) -> tuple[int, ...]:
    """Returns the budgets of a training that a network has not reached yet.

    Budgets below the last score count as reached, even without a score.
    """
    reached = max((score.images_seen for score in record.scores if score.seed == training.seed), default=0)
    return tuple(images for images in manifest.plan.budgets if reached < images <= training.images)


def _closed(record: TrialRecord, manifest: Manifest, trainings: Sequence[SweepTraining]) -> TrialRecord:
    """Returns the record, marked complete if no training is missing."""
    own = [training for training in trainings if record.number < training.networks]
    if any(_missing(record, manifest, training) for training in own):
        return record
    seconds = sum(score.seconds for score in record.scores)
    return complete(record, finished_at=utc_now(), seconds=seconds)
