"""A search from request to end: finds or makes the study, checks that it may go on here, and runs the loop."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import optuna

import hilo_nas
from hilo_nas.errors import DataError, NotFoundError, StorageError, StudyLockedError, StudyMismatchError
from hilo_nas.events import Calibrated, CalibrationStarted, Emit, Notice, SearchFinished, SearchStarted
from hilo_nas.manifest import Manifest
from hilo_nas.measurement import PROTOCOL, Condition
from hilo_nas.search.executors import LocalExecutor
from hilo_nas.search.journal import Journal
from hilo_nas.search.loop import SearchLoop
from hilo_nas.search.request import DEFAULT_SPACE, SearchRequest
from hilo_nas.search.setting import DEFAULT_DATA, set_up, trials_asked
from hilo_nas.space import SearchSpace, load_space
from hilo_nas.study import StudyFolder, find_study, new_study_folder

__all__ = ["find_folder", "run_search"]

_PLAN_OPTIONS = {
    "proxy_img_size": "img_size",
    "proxy_batch_size": "batch_size",
    "proxy_images": "images",
    "proxy_precision": "precision",
    "metric": "metric",
}
_CONDITION_OPTIONS = ("batch_size", "img_size", "precision", "channels_last", "compile", "threads")


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
    if not folder.exists and space is None:
        raise NotFoundError(f"no study {folder.name!r}, and no space to make it from")
    with (
        _locked(folder),
        Journal(folder.logs_path / "events.jsonl", emit) as journal,
        LocalExecutor(folder.logs_path, idle_timeout_s=request.idle_timeout_s) as executor,
    ):
        if folder.exists:
            manifest = _resume(request, folder, space, executor, journal)
            manifest = _raise_total(request, folder, manifest)
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
        finished = loop.run(timeout_s=request.timeout_s)
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
    """Holds the study's lock; a folder that this call made is removed again if no study came of it."""
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
        yield
    finally:
        if not folder.exists:
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
    folder.write_local(_local(request))
    folder.write_manifest(manifest)
    executor.set_up(manifest.conditions, manifest.calibrations, manifest.plan, setting.described)
    return manifest


def _local(request: SearchRequest) -> dict[str, Any]:
    """What is true on this machine alone; paths are made absolute, so that a resume works from any folder."""
    source = request.data or DEFAULT_DATA
    return {
        "data": _absolute(source),
        "val_data": _absolute(request.val_data) if request.val_data else None,
        "cache_dir": str(request.cache_dir.absolute()) if request.cache_dir else None,
    }


def _absolute(source: str) -> str:
    return str(Path(source).absolute()) if Path(source).exists() else source


def _resume(
    request: SearchRequest, folder: StudyFolder, space: SearchSpace | None, executor: LocalExecutor, emit: Emit
) -> Manifest:
    manifest = folder.load_manifest()
    name = request.device or manifest.objective.device
    Condition(device=name)
    differing = _differences(request, manifest, space)
    device, identity = executor.read_device(name, emit)
    stored_kind = manifest.objective.device
    if request.device is not None and device.removesuffix(":0") != stored_kind.removesuffix(":0"):
        differing["device"] = (stored_kind, device)
    for field, values in manifest.device.differences(identity).items():
        differing[f"device {field}"] = values
    local = folder.load_local()
    source = request.data or local.get("data")
    if source is None and manifest.data.name == DEFAULT_DATA:
        source = DEFAULT_DATA
    described = None
    if not differing:
        if source is None:
            raise DataError(
                f"study {folder.name} was made on {manifest.data.name}, and this machine does not know where that "
                "lies. Say so with --data."
            )
        described = executor.prepare_data(
            source,
            manifest.plan.img_size,
            cache_dir=request.cache_dir or (Path(local["cache_dir"]) if local.get("cache_dir") else None),
            val_data=request.val_data or local.get("val_data"),
            emit=emit,
        )
        if described["content_hash"] != manifest.data.hash:
            differing["data"] = (
                f"{manifest.data.name} ({manifest.data.hash[:12]})",
                f"{described['name']} ({described['content_hash'][:12]})",
            )
    if differing:
        lines = "\n".join(
            f"  {field}: {stored!r} in the study, {asked!r} now" for field, (stored, asked) in differing.items()
        )
        raise StudyMismatchError(
            f"study {folder.name} was made under other conditions, so its trials could not be compared:\n{lines}\n"
            f"Leave out the options that differ, or make a new study with --study NAME."
        )
    assert described is not None
    if request.data or request.val_data or request.cache_dir or not local:
        fresh = _local(dataclasses.replace(request, data=source))
        folder.write_local({**local, **{key: value for key, value in fresh.items() if value is not None}})
    made_by = manifest.versions.get("hilo-nas")
    if made_by != hilo_nas.__version__:
        emit(Notice(text=f"this study was made by hilo-nas {made_by}; this is {hilo_nas.__version__}"))
    executor.set_up(manifest.conditions, manifest.calibrations, manifest.plan, described)
    return manifest


def _differences(request: SearchRequest, manifest: Manifest, space: SearchSpace | None) -> dict[str, tuple[Any, Any]]:
    """Returns the options given that the study was not made with, as (stored, asked)."""
    pairs: dict[str, tuple[Any, Any]] = {}
    if space is not None:
        pairs["space"] = (
            f"{manifest.space.name} ({manifest.space.hash()})",
            f"{space.name} ({space.hash()})",
        )
    for option in _CONDITION_OPTIONS:
        pairs[option] = (getattr(manifest.objective, option), getattr(request, option))
    for option, field in _PLAN_OPTIONS.items():
        pairs[option] = (getattr(manifest.plan, field), getattr(request, option))
    pairs["sampler"] = (manifest.sampler, request.sampler)
    pairs["seed"] = (manifest.seed, request.seed)
    found = {name: pair for name, pair in pairs.items() if pair[1] is not None and pair[0] != pair[1]}
    protocols = {calibration.protocol for calibration in manifest.calibrations.values()}
    if protocols != {PROTOCOL}:
        found["timing protocol"] = (max(protocols, default=None), PROTOCOL)
    return found


def _raise_total(request: SearchRequest, folder: StudyFolder, manifest: Manifest) -> Manifest:
    """Returns the manifest with the total asked for: `trials` more than were measured, or `until_trials` in all."""
    total = manifest.trials
    if request.until_trials is not None:
        total = request.until_trials
    elif request.trials is not None:
        total = sum(record.is_measured for record in folder.load_records()) + request.trials
    if total != manifest.trials:
        manifest = dataclasses.replace(manifest, trials=total)
        folder.write_manifest(manifest)
    return manifest


def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "timm", "optuna")
    return {
        "hilo-nas": hilo_nas.__version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


optuna.logging.set_verbosity(optuna.logging.ERROR)
