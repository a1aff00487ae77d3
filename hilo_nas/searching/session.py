"""A search from its configuration to its end: finds or makes the study, runs the loop, times the front side by side."""

from __future__ import annotations

import contextlib
import dataclasses
import time

from hilo_nas.errors import HiloNasError, UsageError
from hilo_nas.evaluation import Evaluator, Inspect, evaluator_or_local, run_task
from hilo_nas.events import CostForeseen, Emit, Notice, SearchFinished, SearchStarted
from hilo_nas.searching.configuration.resolve import DEFAULT_SAMPLER, eta_of, plan_of, resolve
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.finalists.confirmation import confirm_front
from hilo_nas.searching.finalists.quiet_moments import QuieterMoments
from hilo_nas.searching.finalists.recalibration import renew_calibrations
from hilo_nas.searching.finalists.remeasure import time_front
from hilo_nas.searching.forecast.dry_run import price_search, try_networks
from hilo_nas.searching.forecast.limit_forecast import has_measured_limits
from hilo_nas.searching.halving.budget_increase import raise_budget, raised
from hilo_nas.searching.loop import SearchLoop
from hilo_nas.searching.opening.baselines import check_baselines, join_baselines, tell_cost
from hilo_nas.searching.opening.copied_results import (
    check_plan,
    check_same,
    copy_scored,
    copy_timed,
    merge_copies,
    tell_of_missing,
    write_copies,
)
from hilo_nas.searching.opening.event_log import Journal
from hilo_nas.searching.opening.resume import reopen
from hilo_nas.searching.opening.study_lock import locked
from hilo_nas.searching.opening.study_setup import (
    DEFAULT_DATA,
    Setting,
    check_scoring,
    find_study,
    local_of,
    set_up,
    total_asked,
    trials_asked,
)
from hilo_nas.searching.tasks.study_tasks import Resources
from hilo_nas.searching.tasks.timing_only import time_only
from hilo_nas.space import SearchSpace
from hilo_nas.study.local_settings import load_local, write_local
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import Subject, TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy, open_study
from hilo_nas.text.commands import command

__all__ = ["run_search"]


def run_search(
    config: SearchConfig, emit: Emit, *, evaluator: Evaluator | None = None
) -> tuple[StoredStudy, SearchFinished]:
    """Runs a search and returns its study and how it ended.

    Args:
        config: What is asked for.
        emit: Told of all of it.
        evaluator: Who measures and trains; this machine if left out.

    Raises:
        UsageError: An option, the space or the study's name is not acceptable.
        StudyMismatchError: The stored study was made under other conditions than those asked for.
        StudyLockedError: Another process searches in it.
        HiloNasError: The device, the data or the disk cannot serve.
        KeyboardInterrupt: The user stopped it; everything finished is kept.
    """
    space, found = find_study(config)
    study = StoredStudy(found.path)  # nothing is loaded before the lock is held
    if config.proxy.raise_budget is not None and not study.exists:
        raise UsageError(f"a budget can be raised of a stored study alone, and there is no study {study.name} yet")
    start = time.monotonic()
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
        ) as evaluator,
        contextlib.ExitStack() as open_files,
    ):
        check_baselines(config.search.baselines, config.study.speeds, study, evaluator, journal)
        if study.exists:
            manifest, setting = _resume(config, study, space, evaluator, journal)
            manifest, setting = _renew(config, study, manifest, setting, evaluator, journal)
        else:
            assert space is not None
            manifest, setting = _create(config, study, space, evaluator, journal)
        open_files.enter_context(study.keeping_csv_files())
        setting.draw_sheet(study, evaluator, journal)
        if not manifest.plan.declaration.gives_scores:
            finished = time_only(
                study,
                evaluator,
                setting.tasks,
                journal,
                networks=config.search.networks,
                timeout_s=config.search.timeout_s,
            )
            journal(finished)
            return study, finished
        quieter = None
        if config.timing.remeasure and setting.timed is None:
            quieter = QuieterMoments(study, manifest, evaluator, setting.resources, journal, began=start)
        loop = SearchLoop(
            study,
            manifest,
            evaluator,
            setting.resources,
            journal,
            between=None if quieter is None else quieter.use,
        )
        journal(
            SearchStarted(
                study=study.name,
                done=loop.measured,
                total=manifest.trials,
                device=f"{manifest.objective.device} ({manifest.device.model})",
                metric=manifest.plan.score_metric,
                stopped=sum(record.state == TrialState.STOPPED for record in loop.records),
            )
        )
        known = {record.key for record in loop.records if not record.is_open}
        due = [peer for peer in manifest.peers if peer not in known]
        subjects = [Subject(timm=peer.removeprefix("timm:")) for peer in due]
        tell_cost(due, manifest.plan, try_networks(evaluator, setting, subjects, journal), journal)
        left_s = None if config.search.timeout_s is None else config.search.timeout_s - (time.monotonic() - start)
        finished = loop.run(timeout_s=left_s)
        if config.proxy.confirm:
            confirm_front(study, manifest, evaluator, setting.resources, journal, further_seeds=config.proxy.confirm)
        if quieter is not None:
            quieter.wait()
            _time_front(study, manifest, evaluator, setting.resources, journal)
        finished = dataclasses.replace(finished, seconds=time.monotonic() - start)
        journal(finished)
    return study, finished


def _create(
    config: SearchConfig, study: StoredStudy, space: SearchSpace, evaluator: Evaluator, emit: Emit
) -> tuple[Manifest, Setting]:
    plan = plan_of(config, space)
    check_scoring(config, plan)
    source = open_study(config.study.reuse) if config.study.reuse else None
    if source is not None:
        check_plan(source, plan)  # before a device is read and images are decoded
    setting = set_up(config, space, evaluator, emit)
    full, trials = resolve(config, space).search, trials_asked(config, space)
    _foresee(config, setting, evaluator, emit, trials)
    manifest = setting.build_manifest(
        study.name,
        sampler=full.sampler or DEFAULT_SAMPLER,
        seed=full.seed or 0,
        trials=trials,
        eta=eta_of(config) if plan.declaration.gives_scores else None,
        peers=join_baselines((), config.search.baselines),
    )
    scored = [] if source is None else _copy_scored(source, manifest, setting, evaluator, emit)
    copies = merge_copies(setting.timed, scored, manifest)
    if not config.search.until_trials:
        taken_over = sum(copy.state == TrialState.WAITING and not copy.is_peer for copy in copies)
        manifest = dataclasses.replace(manifest, trials=trials + taken_over)
    source_of_images = config.data.source or (DEFAULT_DATA if setting.data.n_images else None)
    write_local(study.local_path, local_of(config.replace({"data.source": source_of_images})))
    study.write_manifest(dataclasses.replace(manifest, copied=len(copies)))
    write_copies(study, copies, emit)
    return study.manifest, setting


def _copy_scored(
    source: StoredStudy, manifest: Manifest, setting: Setting, evaluator: Evaluator, emit: Emit
) -> list[TrialRecord]:
    """Returns copies of a study's trained networks, with the timings that are comparable on this device."""
    inspect = Inspect(target=setting.resources.target, forms=() if setting.timed_by else manifest.conditions)
    return copy_scored(source, manifest, run_task(evaluator, inspect, emit).forms)


def _time_front(study: StoredStudy, manifest: Manifest, evaluator: Evaluator, resources: Resources, emit: Emit) -> None:
    """Times the front side by side; the search is over, so what goes wrong now is told and ends nothing."""
    try:
        time_front(study, manifest, evaluator, resources, emit)
    except HiloNasError as error:
        way = command("remeasure", study.address)
        text = f"the front could not be timed again side by side: {error}. Try later: {way}"
        emit(Notice(level="warning", text=text))


def _foresee(config: SearchConfig, setting: Setting, evaluator: Evaluator, emit: Emit, trials: int) -> None:
    """Says, where there are limits to be measured, whether they can be kept and what the search will cost."""
    if not has_measured_limits(setting):
        return
    start = time.monotonic()
    cost = price_search(config, setting, evaluator, emit, trials=trials, set_up_s=0.0, eta=eta_of(config))
    emit(CostForeseen(trials=trials, total_s=cost.total_s, seconds=time.monotonic() - start))


def _resume(
    config: SearchConfig, study: StoredStudy, space: SearchSpace | None, evaluator: Evaluator, emit: Emit
) -> tuple[Manifest, Setting]:
    manifest = study.manifest
    check_scoring(config, manifest.plan)
    measured = sum(manifest.counts(record) for record in study.records)
    source = open_study(config.study.reuse) if config.study.reuse else None
    if source is not None:
        check_same(source.manifest, manifest.plan, manifest.data)  # before a device is read
    if config.proxy.raise_budget is not None:
        raised(manifest, config.proxy.raise_budget)  # likewise
    setting = reopen(config, study, manifest, space, evaluator, emit)
    if local := {name: value for name, value in local_of(config).items() if value is not None}:
        write_local(study.local_path, {**load_local(study.local_path).values, **local})
    # Baselines are points beside the search: with more of them, nothing becomes incomparable.
    total = total_asked(config, manifest.trials, measured)
    peers = join_baselines(manifest.peers, config.search.baselines)
    if (total, peers) != (manifest.trials, manifest.peers):
        manifest = dataclasses.replace(manifest, trials=total, peers=peers)
        study.write_manifest(manifest)
    timed = None
    if setting.timed is not None:
        timed = list(setting.timed)
        if config.study.speeds is not None:
            timed += copy_timed(open_study(config.study.speeds), manifest)
    scored = [] if source is None else _copy_scored(source, manifest, setting, evaluator, emit)
    write_copies(study, merge_copies(timed, scored, manifest), emit)
    manifest = study.manifest
    tell_of_missing(study, emit)
    if config.proxy.raise_budget is not None:
        manifest = raise_budget(study, manifest, config.proxy.raise_budget)
        setting = dataclasses.replace(setting, plan=manifest.plan)
    return manifest, setting


def _renew(
    config: SearchConfig,
    study: StoredStudy,
    manifest: Manifest,
    setting: Setting,
    evaluator: Evaluator,
    emit: Emit,
) -> tuple[Manifest, Setting]:
    """Calibrates anew where something is left to be timed here, because a bad calibration must not last."""
    known = {record.key for record in study.records if not record.is_open}
    is_done = sum(map(manifest.counts, study.records)) >= manifest.trials and set(manifest.peers) <= known
    if setting.timed is not None or (is_done and config.proxy.raise_budget is None):
        return manifest, setting
    manifest = renew_calibrations(study, manifest, evaluator, setting.resources, emit)
    return manifest, dataclasses.replace(setting, calibrations=manifest.calibrations)
