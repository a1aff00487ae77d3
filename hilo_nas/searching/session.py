"""A complete search: opens or creates the study, runs the loop, and times the front again in shared rounds."""

from __future__ import annotations

import contextlib
import dataclasses
import time

from hilo_nas.errors import HiloNasError, UsageError
from hilo_nas.evaluation import Evaluator, evaluator_or_local
from hilo_nas.events import CostForeseen, Emit, Notice, SearchFinished, SearchStarted
from hilo_nas.searching.configuration.resolve import (
    DEFAULT_SAMPLER,
    cluster_of,
    name_baselines,
    plan_of,
    reduction_factor_of,
    resolve,
)
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.finalists.confirmation import confirm_front
from hilo_nas.searching.finalists.quiet_moments import QuietRemeasurement
from hilo_nas.searching.finalists.recalibration import update_calibrations
from hilo_nas.searching.finalists.remeasure import time_front
from hilo_nas.searching.finalists.stage_timing import time_stages
from hilo_nas.searching.forecast.dry_run import estimate_search
from hilo_nas.searching.forecast.limit_forecast import has_measured_limits
from hilo_nas.searching.forecast.study_forecast import forecast_study
from hilo_nas.searching.forecast.tried_networks import try_networks
from hilo_nas.searching.halving.budget_increase import increase_budget, with_larger_budget
from hilo_nas.searching.loop import SearchLoop
from hilo_nas.searching.opening.baselines import check_baselines, join_baselines, report_baseline_cost
from hilo_nas.searching.opening.copied_results import (
    check_plan,
    check_same,
    copy_scored,
    copy_timed,
    merge_copies,
    warn_of_missing_copies,
    write_copies,
)
from hilo_nas.searching.opening.event_log import EventLog
from hilo_nas.searching.opening.network_disks import warn_of_network_disks
from hilo_nas.searching.opening.resume import reopen
from hilo_nas.searching.opening.study_lock import locked
from hilo_nas.searching.opening.study_setup import (
    DEFAULT_DATA,
    StudySetup,
    check_scoring,
    find_study,
    local_settings_of,
    requested_total,
    requested_trials,
    set_up_study,
)
from hilo_nas.searching.tasks.study_targets import read_forms
from hilo_nas.searching.tasks.study_tasks import Resources, describe_target
from hilo_nas.searching.tasks.timing_only import time_only
from hilo_nas.space import SearchSpace
from hilo_nas.study.local_settings import load_local, write_local
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import Subject, TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy, back_up_manifest, open_study
from hilo_nas.text.commands import command

__all__ = ["run_search"]


def run_search(
    config: SearchConfig, emit: Emit, *, evaluator: Evaluator | None = None
) -> tuple[StoredStudy, SearchFinished]:
    """Runs a search and returns its study and the final event.

    Args:
        config: Configuration of the search.
        emit: Receives all events.
        evaluator: Measures and trains networks; workers on this machine if left out.

    Raises:
        UsageError: An option, the space or the name of the study is invalid.
        StudyMismatchError: The stored study was made under other conditions.
        StudyLockedError: Another process holds the study's lock.
        HiloNasError: The device, the data or the disk fails.
        KeyboardInterrupt: The user stopped the search. Finished trials are kept.
    """
    space, found = find_study(config)
    study = StoredStudy(found.path)  # do not load anything before the lock is held
    if config.proxy.raise_budget is not None and not study.exists:
        raise UsageError(
            f"proxy.raise_budget needs a stored study, but there is no study {study.name}. Leave it out, or name "
            "another study with --study."
        )
    start = time.monotonic()
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
            cluster=cluster_of(config),
        ) as evaluator,
        contextlib.ExitStack() as open_files,
    ):
        warn_of_network_disks(study, event_log)
        config = name_baselines(config, space, study)
        check_baselines(config.search.baselines, config.study.speeds, study, evaluator, event_log)
        if study.exists:
            manifest, setup = _resume(config, study, space, evaluator, event_log)
            manifest, setup = _recalibrate(config, study, manifest, setup, evaluator, event_log)
            back_up_manifest(study)
        else:
            assert space is not None
            manifest, setup = _create(config, study, space, evaluator, event_log)
        open_files.enter_context(study.keeping_csv_files())
        setup.draw_sheet(study, evaluator, event_log)
        if not manifest.plan.declaration.gives_scores:
            finished = time_only(
                study,
                evaluator,
                setup.tasks,
                event_log,
                networks=config.search.networks,
                timeout_s=_left_s(config, start),
            )
            event_log(finished)
            return study, finished
        remeasurement = None
        if config.timing.remeasure and setup.timed is None:
            remeasurement = QuietRemeasurement(study, manifest, evaluator, setup.resources, event_log, began=start)
        loop = SearchLoop(
            study,
            manifest,
            evaluator,
            setup.resources,
            event_log,
            between=None if remeasurement is None else remeasurement.remeasure_if_quiet,
        )
        event_log(
            SearchStarted(
                study=study.name,
                done=loop.measured,
                total=manifest.trials,
                device=describe_target(manifest, setup.resources.target),
                metric=manifest.plan.score_metric,
                stopped=sum(record.state == TrialState.STOPPED for record in loop.records),
            )
        )
        known = {record.key for record in loop.records if not record.is_open}
        due = [baseline for baseline in manifest.baselines if baseline not in known]
        subjects = [Subject(timm=baseline.removeprefix("timm:")) for baseline in due]
        tried = try_networks(evaluator, setup, subjects, event_log)
        report_baseline_cost(due, manifest.plan, [network.seconds for network in tried], event_log)
        finished = loop.run(timeout_s=_left_s(config, start), min_gain=config.search.min_gain)
        if config.proxy.confirm:
            confirm_front(study, manifest, evaluator, setup.resources, event_log, further_seeds=config.proxy.confirm)
        if remeasurement is not None:
            remeasurement.wait_and_remeasure()
            _time_front(study, manifest, evaluator, setup.resources, event_log)
        _write_posteriors(study)
        if remeasurement is not None:
            time_stages(study, manifest, evaluator, setup.resources, event_log)
        finished = dataclasses.replace(finished, seconds=time.monotonic() - start)
        event_log(finished)
    return study, finished


def _left_s(config: SearchConfig, start: float) -> float | None:
    """Returns the seconds until the timeout of a search that started at `start`; None without a timeout."""
    return None if config.search.timeout_s is None else config.search.timeout_s - (time.monotonic() - start)


def _create(
    config: SearchConfig, study: StoredStudy, space: SearchSpace, evaluator: Evaluator, emit: Emit
) -> tuple[Manifest, StudySetup]:
    plan = plan_of(config, space)
    check_scoring(config, plan)
    source = open_study(config.study.reuse) if config.study.reuse else None
    if source is not None:
        check_plan(source, plan)  # fail before the device is read and images are decoded
    setup = set_up_study(config, space, evaluator, emit)
    full, trials = resolve(config, space).search, requested_trials(config, space)
    _estimate(config, setup, evaluator, emit, trials)
    manifest = setup.build_manifest(
        study.name,
        sampler=full.sampler or DEFAULT_SAMPLER,
        seed=full.seed or 0,
        trials=trials,
        reduction_factor=reduction_factor_of(config) if plan.declaration.gives_scores else None,
        baselines=join_baselines((), config.search.baselines),
    )
    scored = [] if source is None else _copy_scored(source, manifest, setup, evaluator, emit)
    copies = merge_copies(setup.timed, scored, manifest)
    if not config.search.until_trials:
        copied = sum(copy.state == TrialState.WAITING and not copy.is_baseline for copy in copies)
        manifest = dataclasses.replace(manifest, trials=trials + copied)
    source_of_images = config.data.source or (DEFAULT_DATA if setup.data.n_images else None)
    write_local(study.local_path, local_settings_of(config.replace({"data.source": source_of_images})))
    study.write_manifest(dataclasses.replace(manifest, copied=len(copies)))
    write_copies(study, copies, emit)
    return study.manifest, setup


def _copy_scored(
    source: StoredStudy, manifest: Manifest, setup: StudySetup, evaluator: Evaluator, emit: Emit
) -> list[TrialRecord]:
    """Returns copies of another study's trained networks, with the timings that are comparable on this device."""
    conditions = () if setup.timed_by else manifest.conditions
    return copy_scored(source, manifest, read_forms(conditions, setup.resources, evaluator, emit))


def _time_front(study: StoredStudy, manifest: Manifest, evaluator: Evaluator, resources: Resources, emit: Emit) -> None:
    """Times the front in shared rounds. Errors become warnings, because the search is already complete."""
    try:
        time_front(study, manifest, evaluator, resources, emit)
    except HiloNasError as error:
        retry = command("remeasure", study.address)
        text = f"the front could not be timed again in shared rounds: {error}. Try again later: {retry}"
        emit(Notice(level="warning", text=text))


def _write_posteriors(study: StoredStudy) -> None:
    """Stores the posteriors of the study, unless they are stored already."""
    if study.posteriors is None and (found := forecast_study(study.records, study.manifest)) is not None:
        study.write_posteriors(found)


def _estimate(config: SearchConfig, setup: StudySetup, evaluator: Evaluator, emit: Emit, trials: int) -> None:
    """Emits estimates of the feasible share and the search cost if the study has limits that need a measurement."""
    if not has_measured_limits(setup):
        return
    start = time.monotonic()
    cost = estimate_search(
        config, setup, evaluator, emit, trials=trials, set_up_s=0.0, reduction_factor=reduction_factor_of(config)
    )
    emit(CostForeseen(trials=trials, total_s=cost.total_s, seconds=time.monotonic() - start))


def _resume(
    config: SearchConfig, study: StoredStudy, space: SearchSpace | None, evaluator: Evaluator, emit: Emit
) -> tuple[Manifest, StudySetup]:
    manifest = study.manifest
    check_scoring(config, manifest.plan)
    measured = sum(manifest.counts(record) for record in study.records)
    source = open_study(config.study.reuse) if config.study.reuse else None
    if source is not None:
        check_same(source.manifest, manifest.plan, manifest.data)  # fail before the device is read
    if config.proxy.raise_budget is not None:
        with_larger_budget(manifest, config.proxy.raise_budget)  # fail before the device is read
    setup = reopen(config, study, manifest, space, evaluator, emit)
    if local := {name: value for name, value in local_settings_of(config).items() if value is not None}:
        write_local(study.local_path, {**load_local(study.local_path).values, **local})
    # Baselines do not affect the search, so more of them keep all trials comparable.
    total = requested_total(config, manifest.trials, measured)
    baselines = join_baselines(manifest.baselines, config.search.baselines)
    if (total, baselines) != (manifest.trials, manifest.baselines):
        manifest = dataclasses.replace(manifest, trials=total, baselines=baselines)
        study.write_manifest(manifest)
    timed = None
    if setup.timed is not None:
        timed = list(setup.timed)
        if config.study.speeds is not None:
            timed += copy_timed(open_study(config.study.speeds), manifest)
    scored = [] if source is None else _copy_scored(source, manifest, setup, evaluator, emit)
    write_copies(study, merge_copies(timed, scored, manifest), emit)
    manifest = study.manifest
    warn_of_missing_copies(study, emit)
    if config.proxy.raise_budget is not None:
        manifest = increase_budget(study, manifest, config.proxy.raise_budget)
        setup = dataclasses.replace(setup, plan=manifest.plan)
    return manifest, setup


def _recalibrate(
    config: SearchConfig,
    study: StoredStudy,
    manifest: Manifest,
    setup: StudySetup,
    evaluator: Evaluator,
    emit: Emit,
) -> tuple[Manifest, StudySetup]:
    """Updates the calibrations if any network is still to be timed here, because a bad calibration must not persist."""
    known = {record.key for record in study.records if not record.is_open}
    is_done = sum(map(manifest.counts, study.records)) >= manifest.trials and set(manifest.baselines) <= known
    if setup.timed is not None or (is_done and config.proxy.raise_budget is None):
        return manifest, setup
    manifest = update_calibrations(study, manifest, evaluator, setup.resources, emit)
    return manifest, dataclasses.replace(setup, calibrations=manifest.calibrations)
