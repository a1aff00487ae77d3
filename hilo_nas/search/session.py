"""A search from request to end: finds or makes the study, checks that it may go on here, and runs the loop."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import platform
import shutil
import time
from collections.abc import Iterator

import filelock

import hilo_nas
from hilo_nas.errors import NotFoundError, RecordError, StorageError, StudyLockedError
from hilo_nas.events import Calibrated, CalibrationStarted, Emit, SearchFinished, SearchStarted
from hilo_nas.manifest import Manifest
from hilo_nas.search.executors import LocalExecutor
from hilo_nas.search.journal import Journal
from hilo_nas.search.loop import SearchLoop
from hilo_nas.search.request import DEFAULT_SPACE, SearchRequest
from hilo_nas.search.resume import reopen
from hilo_nas.search.setting import DEFAULT_DATA, local_of, set_up, trials_asked
from hilo_nas.space import SearchSpace, load_space
from hilo_nas.study import StudyFolder, find_study, new_study_folder

__all__ = ["find_folder", "run_search", "total_asked"]


def run_search(request: SearchRequest, emit: Emit) -> tuple[StudyFolder, SearchFinished]:
    """Runs a search and returns its study and how it ended.

    Raises:
        UsageError: An option, the space or the study's name is not acceptable.
        StudyMismatchError: The stored study was made under other conditions than those asked for.
        StudyLockedError: Another process searches in it.
        HiloNasError: The device, the data or the disk cannot serve.
        KeyboardInterrupt: The user stopped it; everything finished is kept.
    """
    space, folder = find_folder(request)
    start = time.monotonic()
    with (
        _locked(folder),
        Journal(folder.logs_path / "events.jsonl", emit) as journal,
        LocalExecutor(folder.logs_path, idle_timeout_s=request.idle_timeout_s) as executor,
    ):
        if folder.exists:
            manifest = _resume(request, folder, space, executor, journal)
        else:
            assert space is not None
            manifest = _create(request, folder, space, executor, journal)
        loop = SearchLoop(folder, manifest, executor, journal)
        journal(
            SearchStarted(
                study=folder.name,
                done=loop.measured,
                total=manifest.trials,
                device=f"{manifest.objective.device} ({manifest.device.model})",
                points=tuple(
                    (record.number, record.measurement.images_per_s, record.score.proxy_top1)
                    for record in loop.records
                    if record.measurement and record.score
                ),
            )
        )
        left_s = None if request.timeout_s is None else request.timeout_s - (time.monotonic() - start)
        finished = loop.run(timeout_s=left_s)
        journal(finished)
    return folder, finished


def find_folder(request: SearchRequest) -> tuple[SearchSpace | None, StudyFolder]:
    """Returns the space asked for, if any, and the study's folder, whether it is there or not."""
    if request.space is None and request.study is not None:
        return None, find_study(request.study, request.studies_dir)
    space = load_space(request.space or DEFAULT_SPACE)
    if request.study is None:
        device = f"-{request.device.replace(':', '')}" if request.device else ""
        return space, new_study_folder(space.name + device, request.studies_dir)
    with contextlib.suppress(NotFoundError):
        return space, find_study(request.study, request.studies_dir)
    return space, new_study_folder(request.study, request.studies_dir)


@contextlib.contextmanager
def _locked(folder: StudyFolder) -> Iterator[None]:
    """Holds the study's lock; what this call made is removed again if no study came of it."""
    made = not folder.path.exists()
    try:
        folder.trials_path.mkdir(parents=True, exist_ok=True)
        folder.logs_path.mkdir(exist_ok=True)
        lock = filelock.FileLock(folder.lock_path)
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise StudyLockedError(
            f"study {folder.name} is locked: another search is running in it. Wait for it, or use another --study."
        ) from error
    except (OSError, NotImplementedError) as error:
        raise StorageError(
            f"cannot write the study's folder {folder.path}: {getattr(error, 'strerror', None) or error}. "
            "Make it writable, or choose another with --studies-dir."
        ) from error
    try:
        if not folder.exists and any(folder.trials_path.iterdir()):
            raise RecordError(
                f"{folder.path} holds trials, but no manifest.yaml to say what they are. Restore it, or use another "
                "--study."
            )
        yield
    finally:
        if made and not folder.exists:
            shutil.rmtree(folder.path, ignore_errors=True)
        lock.release()


def _create(
    request: SearchRequest, folder: StudyFolder, space: SearchSpace, executor: LocalExecutor, emit: Emit
) -> Manifest:
    setting = set_up(request, space, executor, emit)
    calibrations = {}
    for condition in setting.conditions:
        emit(CalibrationStarted(condition=condition.label()))
        calibration = executor.calibrate(condition, emit)
        calibrations[condition.label()] = calibration
        emit(Calibrated(condition=condition.label(), images_per_s=calibration.images_per_s))
    manifest = Manifest(
        name=folder.name,
        space=space,
        conditions=setting.conditions,
        device=setting.device,
        calibrations=calibrations,
        data=setting.data,
        plan=setting.plan,
        sampler=request.sampler or "gp",
        seed=request.seed if request.seed is not None else 0,
        trials=trials_asked(request, space),
        versions=_versions(),
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    folder.write_local(local_of(dataclasses.replace(request, data=request.data or DEFAULT_DATA)))
    folder.write_manifest(manifest)
    executor.set_up(manifest.conditions, manifest.calibrations, manifest.plan, setting.described)
    return manifest


def _resume(
    request: SearchRequest, folder: StudyFolder, space: SearchSpace | None, executor: LocalExecutor, emit: Emit
) -> Manifest:
    manifest = folder.load_manifest()
    measured = sum(record.is_measured for record in folder.load_records())
    setting = reopen(request, folder, manifest, space, executor, emit)
    local = {name: value for name, value in local_of(request).items() if value is not None}
    if local:
        folder.write_local({**folder.load_local(), **local})
    executor.set_up(manifest.conditions, manifest.calibrations, manifest.plan, setting.described)
    total = total_asked(request, manifest.trials, measured)
    if total != manifest.trials:
        manifest = dataclasses.replace(manifest, trials=total)
        folder.write_manifest(manifest)
    return manifest


def total_asked(request: SearchRequest, total: int, measured: int) -> int:
    """Returns a stored study's total: `trials` more than were measured, or `until_trials` in all, or what it was."""
    if request.until_trials is not None:
        return request.until_trials
    return total if request.trials is None else measured + request.trials


def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "timm", "optuna")
    return {
        "hilo-nas": hilo_nas.__version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }
