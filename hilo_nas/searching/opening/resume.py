"""Resumption of a stored study, only under the same conditions and on the same device and data."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hilo_nas
from hilo_nas.data.reading import ReadOptions
from hilo_nas.errors import DataError, StudyMismatchError, UsageError
from hilo_nas.evaluation import Evaluator, Inspect, Preparation, run_task
from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import PROTOCOL, Condition, DeviceIdentity, devices_of, kind_of_target
from hilo_nas.measurement.condition import INT8_VERSION
from hilo_nas.measurement.condition_options import CONDITION_OPTIONS, Requirements, Target
from hilo_nas.plugins import absolute, hash_source
from hilo_nas.proxy.kinds import proxy_named
from hilo_nas.searching.configuration.resolve import PLAN_SETTINGS, check_proxy_options, config_of, requirements_of
from hilo_nas.searching.configuration.rung_budgets import rungs_of
from hilo_nas.searching.configuration.search_config import DataConfig, SearchConfig
from hilo_nas.searching.opening.local_consent import LocalConsent
from hilo_nas.searching.opening.study_setup import (
    DEFAULT_DATA,
    StudySetup,
    describe_no_images,
    hash_facts,
    identify_data,
    prepare,
    prepare_images,
)
from hilo_nas.searching.tasks.study_targets import (
    find_objective,
    find_targets,
    further_devices,
    read_forms,
    read_targets,
    stored_targets,
)
from hilo_nas.searching.tasks.study_tasks import Resources
from hilo_nas.space import SearchSpace
from hilo_nas.study.local_settings import SETTINGS
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord, forms_under
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.text.commands import command

__all__ = ["differing_facts", "reopen"]

_COMPARED = (
    *(f"timing.{name}" for name in CONDITION_OPTIONS),
    *PLAN_SETTINGS,
    *("data.class_from", "data.background", "data.value_range", "data.skip_broken"),
    *("proxy.rungs", "proxy.reduction_factor", "search.seed"),
)
"""Settings that must have the same value as in the stored study."""

Differences = dict[str, tuple[Any, Any]]
"""Differences as (stored, now), by the name of the setting or the fact: `{"timing.batch_size": (32, 64)}`."""


def reopen(
    config: SearchConfig,
    folder: StoredStudy,
    manifest: Manifest,
    space: SearchSpace | None,
    evaluator: Evaluator,
    emit: Emit,
) -> StudySetup:
    """Returns the setup of a stored study, with its data and proxy prepared on this machine.

    Raises:
        StudyMismatchError: Settings, device, software or data differ from those of the study. The message lists the
            differences.
        DeviceError: This machine does not have the device.
        DataError: The data set is invalid, or its path on this machine is unknown.
    """
    name = config.timing.device
    if name is not None:
        kind_of_target(name)
    differing = _differing_options(config, manifest, space)
    if "proxy.name" not in differing:
        check_proxy_options(config, manifest.plan.declaration)
    if manifest.plan.recipe != (version := manifest.plan.declaration.version):
        differing["proxy recipe"] = (manifest.plan.recipe, version)  # new timings cannot resolve this
    if manifest.plan.int8_runtime is not None and manifest.plan.int8_version != INT8_VERSION:
        differing["quantization of scores in INT8"] = (manifest.plan.int8_version or "1", INT8_VERSION)
    consent = LocalConsent({name: config.value(name) for name in SETTINGS.values()}, folder)
    if manifest.speeds is None:
        report = find_objective(manifest, name, evaluator, emit)
    else:
        report = run_task(evaluator, Inspect(target=name), emit)
    timed, resources = None, Resources(target=report.target, timing_s=config.timing.seconds)
    if manifest.speeds is not None:
        timed = tuple(record for record in folder.records if record.state == TrialState.TIMED)
        named = requirements_of(config, manifest.objective, stored_targets(config.timing.also, manifest))
        differing |= _differing_requirements(named, config, manifest)
        facts = _differing_facts(manifest, {}, manifest.device)
    else:
        if report.identity.kind != manifest.objective.device:
            differing["timing.device"] = (manifest.objective.device, report.target)
        targets = read_targets(config.timing.also, report, evaluator, emit, manifest=manifest)
        named = requirements_of(config, manifest.objective, targets)
        further = find_targets(manifest, report.target, evaluator, emit, named=named.devices)
        resources = dataclasses.replace(resources, further=further_devices(further))
        differing |= _differing_requirements(named, config, manifest)
        if misnamed := _misnamed_targets(manifest, further):
            differing.setdefault("timing.also", misnamed)
            further = {}  # they are no facts about the machine
        # Skip the comparison of forms if settings differ, because another device has other forms.
        records = [] if differing else folder.records
        read = functools.partial(read_forms, resources=resources, evaluator=evaluator, emit=emit)
        facts = differing_facts(manifest, report.identity, further, records, read)
    if differing or facts:
        raise _mismatch(folder, differing, facts)
    source = _find_proxy(consent, folder, manifest) if manifest.plan.declaration.has_source else None

    def prepare_data() -> Preparation:
        return _prepare_data(consent, folder, manifest, config.data, evaluator, emit)

    images, prepared = prepare(manifest.plan, source, report.target, prepare_data, evaluator, emit)
    data = identify_data(images.facts)
    if data.hash != manifest.data.hash:
        stored = f"{manifest.data.name} ({manifest.data.hash[:12]})"
        raise _mismatch(folder, {"data.source": (stored, f"{data.name} ({data.hash[:12]})")}, {})
    if (found := hash_facts(prepared.facts)) != manifest.prepared:
        raise _mismatch(folder, {"prepared state of the proxy": (manifest.prepared, found)}, {})
    if manifest.data.source_hash and data.source_hash not in (None, manifest.data.source_hash):
        emit(Notice(text=f"{data.name} was edited since this study was created, but its images are the same"))
    created_by = manifest.versions.get("hilo-nas")
    if created_by != hilo_nas.__version__:
        emit(Notice(text=f"this study was created by hilo-nas {created_by}; this is {hilo_nas.__version__}"))
    return StudySetup(
        space=manifest.space,
        conditions=manifest.conditions,
        limits=manifest.limits,
        calibrations=manifest.calibrations,
        training_device=report.trains_on or report.identity,
        plan=manifest.plan,
        data=manifest.data,
        prepared=prepared.facts,
        resources=dataclasses.replace(resources, data=images.reference, proxy=prepared.reference),
        timed=timed,
        timed_by=manifest.speeds,
    )


def _find_proxy(consent: LocalConsent, folder: StoredStudy, manifest: Manifest) -> str:
    """Returns the path of the study's scoring function.

    Raises:
        StudyMismatchError: The function was edited since the study was created.
        NotFoundError: The function does not exist.
        UsageError: Its path is unknown, or this user did not name it on this machine.
    """
    name = manifest.plan.proxy
    function = consent.find("proxy.name")
    if function is None:
        raise UsageError(
            f"study {folder.name} needs the scoring function {name}, but its path on this machine is unknown. "
            f"{consent.hint('proxy.name')}"
        )
    function = absolute(function)
    if hash_source(function) != manifest.plan.source_hash:
        raise StudyMismatchError(
            f"{name} must be unchanged since study {folder.name} was created, so that scores are comparable, but was "
            "edited. Undo the edit, or create a new study with --study NAME."
        )
    consent.check_function("proxy.name")
    return function


def _prepare_data(
    consent: LocalConsent,
    folder: StoredStudy,
    manifest: Manifest,
    config: DataConfig,
    evaluator: Evaluator,
    emit: Emit,
) -> Preparation:
    # Studies with ambiguous folder levels need class_from, even if they were created before that option existed.
    reading = ({"class_from": config.class_from} if config.class_from else {}) | manifest.data.reading
    source = consent.find("data.source")
    if source is None and manifest.data.n_images == 0 and not manifest.plan.declaration.needs_data:
        return describe_no_images(manifest.data.num_classes)
    if source is None and manifest.data.name == DEFAULT_DATA:
        source = DEFAULT_DATA
    if source is None:
        raise DataError(
            f"study {folder.name} needs the data set {manifest.data.name}, but its path on this machine is unknown. "
            f"{consent.hint('data.source')}"
        )
    cache_dir, val_data = consent.find("data.cache_dir"), consent.find("data.val_source")
    for setting in ("data.source", "data.val_source"):
        consent.check_function(setting)
    consent.warn_of_ignored(emit)
    return prepare_images(
        source,
        manifest.plan,
        cache_dir=Path(cache_dir) if cache_dir else None,
        val_data=val_data,
        options=ReadOptions.from_dict(reading),
        max_cache_gib=config.max_cache_gib,
        evaluator=evaluator,
        emit=emit,
    )


def _mismatch(folder: StoredStudy, options: Differences, facts: Differences) -> StudyMismatchError:
    lines = [f"  {name}: {stored!r} in the study, {now!r} now" for name, (stored, now) in {**options, **facts}.items()]
    remedies = []
    if options:
        remedies.append("Leave out the settings that differ, or create a new study with --study NAME.")
    if facts and "timing.also" not in options:  # with other conditions, a new timing would not help
        elsewhere = ("--device", devices_of(options["timing.device"][1])[0]) if "timing.device" in options else ()
        remedies.append(
            f"Search on the machine of the study, install the versions above, or time its networks again here: "
            f"{command('remeasure', folder.address, *elsewhere)}"
        )
    return StudyMismatchError(
        f"study {folder.name} was created under other conditions, so its trials are not comparable:\n"
        + "\n".join([*lines, *remedies])
    )


def differing_facts(
    manifest: Manifest,
    identity: DeviceIdentity,
    further: Mapping[str, Target],
    records: Sequence[TrialRecord],
    read: Callable[[Sequence[Condition]], Mapping[str, str]],
) -> Differences:
    """Returns changes since the study was created that no option controls. A study without changes can be resumed.

    Args:
        manifest: Manifest of the study.
        identity: Device of this machine for the objective.
        further: Devices of this machine for the conditions on other targets (`find_targets`).
        records: Records of the study. The forms in which they were timed are compared with the current ones.
        read: Returns the current forms under some conditions, by the label of the condition.
    """
    return _differing_facts(manifest, further, identity) or _differing_forms(manifest, records, read)


def _differing_facts(manifest: Manifest, further: Mapping[str, Target], identity: DeviceIdentity) -> Differences:
    """Returns the differences between the study and this machine in devices, software and timing protocol."""
    found: Differences = {f"device {name}": pair for name, pair in manifest.device.differences(identity).items()}
    for label, target in further.items():
        differences = manifest.calibrations[label].device.differences(target.identity)
        found |= {f"device {name} at {label}": pair for name, pair in differences.items()}
    protocols = {calibration.protocol for calibration in manifest.calibrations.values()}
    if protocols != {PROTOCOL}:
        found["timing protocol"] = (max(protocols, default=None), PROTOCOL)
    return found


def _misnamed_targets(manifest: Manifest, further: Mapping[str, Target]) -> tuple[list[str], list[str]] | None:
    """Returns the devices of the study, and those of another kind or model that `timing.also` names instead.

    None if there are none. Without a name, a device is found by its kind and model.
    """
    stored: dict[str, None] = {}
    now: dict[str, None] = {}
    for label, target in further.items():
        own = manifest.calibrations[label].device
        if (own.kind, own.model) != (target.identity.kind, target.identity.model):
            stored[f"{own.kind} ({own.model})"] = now[f"{target.name} ({target.identity.model})"] = None
    return (list(stored), list(now)) if stored else None


def _differing_forms(
    manifest: Manifest, records: Sequence[TrialRecord], read: Callable[[Sequence[Condition]], Mapping[str, str]]
) -> Differences:
    """Returns the forms (implementations of LITv2) of stored timings that differ from the current forms."""
    stored = {condition: forms_under(condition.label(), records) for condition in manifest.conditions}
    known = tuple(condition for condition, forms in stored.items() if forms)
    if not known:
        return {}
    found: Differences = {}
    forms = read(known)
    for condition in known:
        now = forms[condition.label()]
        if other := sorted(form for form in stored[condition] if form != now):
            found[f"form under {condition.label()}"] = (other[0], now)
    return found


def _differing_requirements(requirements: Requirements, config: SearchConfig, manifest: Manifest) -> Differences:
    """Returns the requested further conditions and limits that differ from those of the stored study."""
    limits = {name: (manifest.limits_in_force.get(name), bound) for name, bound in requirements.limits.items()}
    found: Differences = {f"limit on {name}": pair for name, pair in limits.items() if pair[0] != pair[1]}
    if not config.timing.also:
        return found
    stored = {condition.label() for condition in manifest.conditions[1:]}
    asked = {condition.label() for condition in requirements.conditions[1:]}
    # A study with copied timings has all conditions of the source. The options name only those with limits.
    asked |= stored if manifest.speeds else set()
    return found if asked == stored else {**found, "timing.also": (sorted(stored), sorted(asked))}


def _differing_options(config: SearchConfig, manifest: Manifest, space: SearchSpace | None) -> Differences:
    """Returns the settings that differ from those of the stored study, without conditions and limits.

    Unset ones are ignored.
    """
    pairs: Differences = {}
    if space is not None:
        pairs["space"] = (
            f"{manifest.space.name} ({manifest.space.hash()})",
            f"{space.name} ({space.hash()})",
        )
    stored = config_of(manifest)
    for setting in _COMPARED:
        pairs[setting] = (stored.value(setting), config.value(setting))
    if config.proxy.name is not None:
        pairs["proxy.name"] = (manifest.plan.proxy, proxy_named(config.proxy.name).name)
    plan, ratio = manifest.plan, config.proxy.rung_ratio
    if ratio is not None and rungs_of(plan.images, count=len(plan.rungs) + 1, ratio=ratio) != plan.rungs:
        pairs["proxy.rung_ratio"] = (stored.proxy.rung_ratio, ratio)
    pairs["search.sampler"] = (manifest.sampler, config.search.sampler)
    if config.study.speeds is not None and manifest.speeds is None:
        pairs["study.speeds"] = (None, config.study.speeds)
    return {name: pair for name, pair in pairs.items() if pair[1] is not None and pair[0] != pair[1]}
