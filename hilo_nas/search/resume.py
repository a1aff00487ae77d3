"""Going on with a stored study: only under the conditions that it was made with, and on the same device and data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hilo_nas
from hilo_nas.errors import DataError, StudyMismatchError
from hilo_nas.events import Emit, Notice
from hilo_nas.manifest import Manifest
from hilo_nas.measurement import PROTOCOL, RECIPE, Condition, DeviceIdentity
from hilo_nas.search.executors import LocalExecutor
from hilo_nas.search.request import SearchRequest
from hilo_nas.search.setting import DEFAULT_DATA, Setting, identify_data
from hilo_nas.space import SearchSpace
from hilo_nas.study import StudyFolder

__all__ = ["reopen"]

_PLAN_OPTIONS = {
    "proxy_img_size": "img_size",
    "proxy_batch_size": "batch_size",
    "proxy_images": "images",
    "proxy_precision": "precision",
    "metric": "metric",
}
_CONDITION_OPTIONS = ("batch_size", "img_size", "precision", "channels_last", "compile", "threads")


Differences = dict[str, tuple[Any, Any]]
"""What differs, by the name of the option or the fact, as (stored, now)."""


def reopen(
    request: SearchRequest,
    folder: StudyFolder,
    manifest: Manifest,
    space: SearchSpace | None,
    executor: LocalExecutor,
    emit: Emit,
) -> Setting:
    """Returns a stored study's setting, made ready on this machine.

    Raises:
        StudyMismatchError: The options given, the device, the software or the data are not the study's; names each.
        DeviceError: This machine does not have the device.
        DataError: The data cannot serve, or this machine does not know where it lies.
    """
    name = request.device or manifest.objective.device
    Condition(device=name)
    differing = _differing_options(request, manifest, space)
    device, identity, _ = executor.read_device(name, emit)
    if device.removesuffix(":0") != manifest.objective.device.removesuffix(":0"):
        differing["device"] = (manifest.objective.device, device)
    facts = _differing_facts(manifest, identity)
    if differing or facts:
        raise _mismatch(folder, differing, facts)
    described = _prepare_data(request, folder, manifest, executor, emit)
    data = identify_data(described)
    if data.hash != manifest.data.hash:
        stored = f"{manifest.data.name} ({manifest.data.hash[:12]})"
        raise _mismatch(folder, {"data": (stored, f"{data.name} ({data.hash[:12]})")}, {})
    made_by = manifest.versions.get("hilo-nas")
    if made_by != hilo_nas.__version__:
        emit(Notice(text=f"this study was made by hilo-nas {made_by}; this is {hilo_nas.__version__}"))
    return Setting(
        space=manifest.space,
        conditions=manifest.conditions,
        device=identity,
        plan=manifest.plan,
        data=manifest.data,
        described=described,
    )


def _prepare_data(
    request: SearchRequest, folder: StudyFolder, manifest: Manifest, executor: LocalExecutor, emit: Emit
) -> dict[str, Any]:
    local = folder.load_local()
    source = request.data or local.get("data")
    if source is None and manifest.data.name == DEFAULT_DATA:
        source = DEFAULT_DATA
    if source is None:
        raise DataError(
            f"study {folder.name} was made on {manifest.data.name}, and this machine does not know where that lies. "
            "Say so with --data."
        )
    cache_dir = request.cache_dir or (Path(local["cache_dir"]) if local.get("cache_dir") else None)
    val_data = request.val_data or local.get("val_data")
    return executor.prepare_data(source, manifest.plan.img_size, cache_dir=cache_dir, val_data=val_data, emit=emit)


def _mismatch(folder: StudyFolder, options: Differences, facts: Differences) -> StudyMismatchError:
    lines = [f"  {name}: {stored!r} in the study, {now!r} now" for name, (stored, now) in {**options, **facts}.items()]
    ways = []
    if options:
        ways.append("Leave out the options that differ, or make a new study with --study NAME.")
    if facts:
        ways.append("Search where the study was made, install the versions that it names, or make a new study here.")
    return StudyMismatchError(
        f"study {folder.name} was made under other conditions, so its trials could not be compared:\n"
        + "\n".join([*lines, *ways])
    )


def _differing_facts(manifest: Manifest, identity: DeviceIdentity) -> Differences:
    """What no option can change: the device, the software, and how this version times and trains."""
    found: Differences = {f"device {name}": pair for name, pair in manifest.device.differences(identity).items()}
    protocols = {calibration.protocol for calibration in manifest.calibrations.values()}
    if protocols != {PROTOCOL}:
        found["timing protocol"] = (max(protocols, default=None), PROTOCOL)
    if manifest.plan.recipe != RECIPE:
        found["proxy recipe"] = (manifest.plan.recipe, RECIPE)
    return found


def _differing_options(request: SearchRequest, manifest: Manifest, space: SearchSpace | None) -> Differences:
    """The options given that the study was not made with."""
    pairs: Differences = {}
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
    return {name: pair for name, pair in pairs.items() if pair[1] is not None and pair[0] != pair[1]}
