"""Setup of a study: device, size checks, prepared data, and calibration of the reference network."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hilo_nas.clock import utc_now
from hilo_nas.data.reading import ReadOptions
from hilo_nas.data.sources import absolute_source
from hilo_nas.errors import HiloNasError, NotFoundError, UsageError
from hilo_nas.evaluation import Evaluator, Inspect, Preparation, Prepare, run_task
from hilo_nas.events import Calibrated, CalibrationStarted, Emit, Notice
from hilo_nas.hashes import short_hash
from hilo_nas.measurement import Calibration, Condition, DeviceIdentity, ProxyPlan, kind_of_target
from hilo_nas.measurement.condition_options import Requirements, build_objective, expected_objective
from hilo_nas.plugins import absolute
from hilo_nas.proxy.kinds import find_proxy
from hilo_nas.searching.configuration.resolve import (
    DEFAULT_SPACE,
    DEFAULT_TRIALS,
    check_single_runtime,
    condition_options,
    plan_of,
    reading_of,
    requirements_of,
    resolve,
)
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.opening.copied_results import check_timings, copy_timed
from hilo_nas.searching.tasks.equal_devices import check_equal_speeds, is_compared
from hilo_nas.searching.tasks.study_targets import read_targets, stored_targets
from hilo_nas.searching.tasks.study_tasks import Resources, StudyTasks, calibration_of
from hilo_nas.searching.tasks.timing_only import check_time_only
from hilo_nas.space import SearchSpace, broken_limits, limit_text, load_space, measured_values, measured_violations
from hilo_nas.study.manifest import DataIdentity, Manifest
from hilo_nas.study.records import TrialRecord, write_atomically
from hilo_nas.study.stored_study import StoredStudy, new_study, open_study
from hilo_nas.text.commands import command
from hilo_nas.versions import versions

__all__ = [
    "DEFAULT_DATA",
    "StudySetup",
    "calibrate_all",
    "check_scoring",
    "describe_no_images",
    "find_study",
    "hash_facts",
    "identify_data",
    "local_settings_of",
    "prepare",
    "prepare_images",
    "requested_total",
    "requested_trials",
    "set_up_study",
]

DEFAULT_DATA = "digits"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudySetup:
    """Checked settings of a study, with its prepared data and proxy and its calibrations."""

    space: SearchSpace
    conditions: tuple[Condition, ...]
    limits: dict[str, float]
    """Limits from the search settings by name, as in `Manifest.limits`."""
    calibrations: dict[str, Calibration]
    """Speed of the reference under each condition, by the label of the condition. It also identifies the device."""
    training_device: DeviceIdentity
    plan: ProxyPlan
    data: DataIdentity
    prepared: dict[str, Any]
    """Facts about the prepared state of the proxy; see `hilo_nas.proxy.worker_calls.prepare_proxy`."""
    resources: Resources
    timed: tuple[TrialRecord, ...] | None = None
    """Copied records of networks with timings of another study; None if networks are timed here."""
    timed_by: str | None = None
    """Name of the study with the timings."""

    def build_manifest(self, name: str, *, sampler: str, seed: int, trials: int, **fields: Any) -> Manifest:
        """Returns the manifest of a new study.

        Args:
            name: Name of the study.
            sampler: Name of the sampler.
            seed: Seed of the sampler and the trainings.
            trials: Number of networks to measure.
            **fields: Further fields of `Manifest`.
        """
        return Manifest(
            name=name,
            space=self.space,
            conditions=self.conditions,
            calibrations=self.calibrations,
            data=self.data,
            plan=self.plan,
            sampler=sampler,
            seed=seed,
            trials=trials,
            versions=versions(),
            created_at=utc_now(),
            limits=self.limits,
            speeds=self.timed_by,
            training_device=self.training_device,
            prepared=hash_facts(self.prepared),
            **fields,
        )

    @property
    def tasks(self) -> StudyTasks:
        """Builder of the study's tasks."""
        return StudyTasks(
            resources=self.resources,
            calibrations=self.calibrations,
            plan=self.plan,
            num_classes=self.data.num_classes,
        )

    def draw_sheet(self, folder: StoredStudy, evaluator: Evaluator, emit: Emit) -> None:
        """Writes the contact sheet of the images to the study's folder if it is missing. A failure is a warning."""
        if os.path.lexists(folder.sheet_path) or self.resources.data is None:
            return
        try:
            task = Prepare(sheet=self.resources.data, group_by=self.plan.group_by)
            png = run_task(evaluator, task, emit).facts["png"]
            write_atomically(folder.sheet_path, base64.b64decode(png))
        except HiloNasError as error:
            emit(Notice(level="warning", text=f"no contact sheet of the images was written: {error}"))


def set_up_study(config: SearchConfig, space: SearchSpace, evaluator: Evaluator, emit: Emit) -> StudySetup:
    """Returns the setup of a new study. The evaluator has prepared its data and its proxy.

    Raises:
        UsageError: A setting does not fit the space.
        DeviceError: This machine does not have the device, or the devices of the target are not equal.
        DataError: The data set is invalid.
        MeasurementError: The reference does not fit into memory.
    """
    kind = None if config.timing.device is None else kind_of_target(config.timing.device)
    plan = plan_of(config, space)
    fields = condition_options(resolve(config, space))
    _check_sizes(space, {"timing.img_size": fields["img_size"], "proxy.img_size": plan.img_size})
    source = _data_source(config, space, plan)
    if plan.int8_runtime is not None:
        # The first score in INT8 comes after a whole training, so find out now whether the worker can quantize.
        int8 = Condition(batch_size=1, runtime=plan.int8_runtime, precision="int8")
        run_task(evaluator, Inspect(target="cpu", forms=(int8,)), emit)
    # Check the requirements before reading the device, because that takes seconds.
    timing_study = None if config.study.speeds is None else _open_timing_study(config, space)
    if timing_study is not None:
        requirements = _requirements_within(timing_study, config)
        report = run_task(evaluator, Inspect(target=config.timing.device), emit)  # only for training
    else:
        expected = requirements_of(config, expected_objective(fields, kind))
        if expected.limits and not plan.declaration.gives_scores:
            raise UsageError(
                "limits on images/s, latency and memory have no effect without a proxy, because all networks are "
                "timed. Leave them out here, and use them in the search that trains."
            )
        _check_sizes(space, {"timing.img_size": min(condition.img_size for condition in expected.conditions)})
        report = run_task(evaluator, Inspect(target=config.timing.device), emit)
        objective = build_objective(fields, report.identity.kind, report.threads)
        targets = read_targets(config.timing.also, report, evaluator, emit)
        requirements = requirements_of(config, objective, targets)
        # Find out now whether the worker has the runtimes: the images take minutes, and a trial would only fail.
        own = [condition for condition in requirements.conditions if condition.shares_target(objective)]
        if converted := tuple(condition for condition in own if condition.runtime != "torch"):
            run_task(evaluator, Inspect(target=report.target, forms=converted), emit)

    def prepare_data() -> Preparation:
        if source is None:
            return describe_no_images(space.defaults.get("num_classes", 1000))
        return prepare_images(
            source,
            plan,
            cache_dir=config.data.cache_path,
            val_data=config.data.val_source,
            options=reading_of(config),
            max_cache_gib=config.data.max_cache_gib,
            evaluator=evaluator,
            emit=emit,
        )

    images, prepared = prepare(plan, _proxy_function(config), report.target, prepare_data, evaluator, emit)
    data = identify_data(images.facts)
    resources = Resources(
        target=report.target,
        further=requirements.devices if timing_study is None else {},
        data=images.reference,
        proxy=prepared.reference,
        timing_s=config.timing.seconds,
    )
    timed = None
    if timing_study is not None:
        timed = tuple(copy_timed(timing_study, timing_study.manifest))
        if (classes := timing_study.manifest.data.num_classes) != data.num_classes:
            text = (
                f"the timings of study {timing_study.name} are of networks with {classes} classes, but the images have "
                f"{data.num_classes}, so the speeds of their classifiers differ"
            )
            emit(Notice(level="warning", text=text))
        _check_any_feasible(timed, timing_study.name, {**space.limits, **requirements.limits})
    return StudySetup(
        space=space,
        conditions=requirements.conditions,
        limits=requirements.limits,
        training_device=report.trains_on or report.identity,
        calibrations=(
            calibrate_all(requirements.conditions, evaluator, resources, emit)
            if timing_study is None
            else timing_study.manifest.calibrations
        ),
        plan=dataclasses.replace(plan, hflip=images.facts["hflip"]),
        data=data,
        prepared=prepared.facts,
        resources=resources,
        timed=timed,
        timed_by=None if timing_study is None else timing_study.name,
    )


def prepare_images(
    source: str,
    plan: ProxyPlan,
    *,
    cache_dir: Path | None,
    val_data: str | None,
    options: ReadOptions,
    max_cache_gib: float | None,
    evaluator: Evaluator,
    emit: Emit,
) -> Preparation:
    """Returns the prepared images of a plan. Other images leave the cache if it exceeds its budget.

    Raises:
        DataError: The data set is invalid.
        UsageError: The function of the images does not exist, is not a function, or cannot be imported.
        StorageError: The cache cannot be written.
    """
    task = Prepare(
        images={
            "source": source,
            "img_size": plan.img_size,
            "cache_dir": str(cache_dir) if cache_dir else None,
            "val_data": val_data,
            "group_by": plan.group_by,
            "options": options.to_dict(),
            **({} if max_cache_gib is None else {"max_cache_gib": max_cache_gib}),
        }
    )
    return run_task(evaluator, task, emit)


def prepare(
    plan: ProxyPlan,
    source: str | None,
    target: str,
    prepare_data: Callable[[], Preparation],
    evaluator: Evaluator,
    emit: Emit,
) -> tuple[Preparation, Preparation]:
    """Returns the prepared images and the prepared state of the proxy.

    A proxy that does not use the images is prepared first, so that its errors appear before images are decoded.

    Args:
        plan: Plan of the study.
        source: Path of the user's scoring function; None for other proxies.
        target: Name of the device that scores networks.
        prepare_data: Prepares the images.
        evaluator: Prepares the proxy.
        emit: Receives the events of the evaluator.

    Raises:
        HiloNasError: The proxy or the images cannot be prepared.
    """
    proxy, prepared = plan.declaration, Preparation(reference=None, facts={})
    task = Prepare(proxy=plan, source=source, target=target)
    if proxy.prepares and not proxy.sees_images:
        prepared = run_task(evaluator, task, emit)
    images = prepare_data()
    if proxy.prepares and proxy.sees_images:
        prepared = run_task(evaluator, dataclasses.replace(task, data=images.reference), emit)
    return images, prepared


def hash_facts(prepared: Mapping[str, Any]) -> str | None:
    """Returns the hash of a proxy's prepared facts for the manifest; None if there are none."""
    return short_hash(prepared) if prepared else None


def _check_any_feasible(timed: Sequence[TrialRecord], study: str, limits: Mapping[str, float]) -> None:
    """Raises UsageError if no timed network meets the limits. The message gives the closest value for each limit."""
    own = [record for record in timed if not record.is_baseline]
    if any(not broken_limits(measured_violations(limits, record.measurements)) for record in own):
        return
    lines = []
    for name, bound in limits.items():
        violations = [(measured_violations({name: bound}, r.measurements).get(name, -1.0), r) for r in own]
        over, nearest = min(violations, key=lambda pair: pair[0])
        if over > 0:
            value = measured_values(nearest.measurements)[name]
            lines.append(f"  {limit_text(name, bound)}: the closest network has {value:.4g}")
    raise UsageError(
        f"a network must meet all limits, but none of the {len(own)} networks timed in study {study} does:\n"
        + "\n".join([*lines, f"Loosen the limits, or time more: {command('search', '--study', study)} --trials N"])
    )


def calibrate_all(
    conditions: tuple[Condition, ...], evaluator: Evaluator, resources: Resources, emit: Emit
) -> dict[str, Calibration]:
    """Returns the speed of the reference under each condition, by the label of the condition.

    Raises:
        DeviceError: The devices of a target are not equally fast.
        MeasurementError: The reference does not fit into memory.
    """
    calibrations = {}
    for condition in conditions:
        emit(CalibrationStarted(condition=condition.label()))
        calibration = run_task(evaluator, calibration_of(condition, resources), emit).calibration
        assert calibration is not None, "the task must time only the reference"
        calibrations[condition.label()] = calibration
        emit(Calibrated(condition=condition.label(), images_per_s=calibration.images_per_s))
    for condition in conditions:
        label = condition.label()
        if is_compared(condition, conditions, resources):
            calibrations[label] = check_equal_speeds(condition, calibrations[label], evaluator, resources, emit)
    return calibrations


def _open_timing_study(config: SearchConfig, space: SearchSpace) -> StoredStudy:
    """Returns the study of `study.speeds`, whose timings replace timing here.

    Raises:
        NotFoundError: The study does not exist.
        UsageError: Its timings do not fit, or the configuration sets conditions as well.
    """
    assert config.study.speeds is not None
    if given := condition_options(config):
        raise UsageError(
            f"study.speeds sets the conditions of the timings, but got {', '.join(given)} as well. Leave them out, or "
            "leave out study.speeds to time the networks here."
        )
    timing_study = open_study(config.study.speeds)
    check_timings(timing_study, space)
    return timing_study


def _requirements_within(timing_study: StoredStudy, config: SearchConfig) -> Requirements:
    """Returns all conditions of the study with the timings, with the requested limits."""
    conditions = timing_study.manifest.conditions
    targets = stored_targets(config.timing.also, timing_study.manifest)
    requirements = requirements_of(config, conditions[0], targets)
    if missing := [condition.label() for condition in requirements.conditions if condition not in conditions]:
        raise UsageError(
            f"study.speeds must have timings under every condition of timing.also, but none of {timing_study.name} "
            f"was under {', '.join(missing)}: its conditions are {', '.join(own.label() for own in conditions)}. Leave "
            "the others out, or leave out study.speeds to time the networks here."
        )
    return Requirements(conditions=conditions, limits=requirements.limits)


def _data_source(config: SearchConfig, space: SearchSpace, plan: ProxyPlan) -> str | None:
    """Returns the image source of a new study; None if its proxy needs no images."""
    if config.data.source is not None or not plan.declaration.gives_scores:
        return config.data.source
    if not plan.declaration.needs_data and space.name != DEFAULT_SPACE:
        return None
    if space.name != DEFAULT_SPACE:
        raise UsageError(
            f"the search in {space.name} needs images to train on. Set --data to a folder with a subfolder per class, "
            "a .tar, torch/NAME, hfds/NAME, path/to/file.py:function, or `digits` for scikit-learn's digits."
        )
    return DEFAULT_DATA


def _check_sizes(space: SearchSpace, sizes: Mapping[str, int]) -> None:
    """Raises UsageError if an image size is smaller than the stride of a network of the space or of an anchor."""
    largest = max(next(knob.choices for knob in space.knobs if knob.name == "patch_size"))
    strides = {f"patch_size {largest}": 8 * largest}
    strides |= {f"anchor {anchor.name}": anchor.arch.stride for anchor in space.anchors}
    for name, size in sizes.items():
        for source, stride in strides.items():
            if size < stride:
                raise UsageError(
                    f"{name} must be at least {stride} for {source} (eight patches per side), but got {size}. "
                    f"Use larger images, or a space without {source}."
                )


def describe_no_images(num_classes: int) -> Preparation:
    """Returns the preparation result for a proxy that needs no images. Networks still need a number of classes."""
    facts = {
        "name": "no images",
        "content_hash": hashlib.sha256(f"no images, {num_classes} classes".encode()).hexdigest(),
        "class_names": [str(number) for number in range(num_classes)],
        "n_images": 0,
        "hflip": False,
    }
    return Preparation(reference=None, facts=facts)


def identify_data(described: Mapping[str, Any]) -> DataIdentity:
    """Returns the identity of prepared images for the manifest, from the facts about them."""
    return DataIdentity(
        name=described["name"],
        hash=described["content_hash"],
        num_classes=len(described["class_names"]),
        n_images=described["n_images"],
        source_hash=described.get("source_hash"),
        reading=dict(described.get("reading") or {}),
        val_name=described.get("val_name"),
        n_scored=described.get("n_scored"),
        chance=described.get("chance"),
        pixels=dict(described.get("pixels") or {}),
        unlike_timm=list(described.get("unlike_timm") or ()),
    )


_NEW_STUDY_SETTINGS = (
    *("proxy.name", "proxy.images", "proxy.img_size", "proxy.batch_size", "proxy.metric", "proxy.rungs"),
    *("search.sampler", "search.seed", "study.speeds", "study.reuse"),
)
"""Settings that define a new study. If one is set and the named study does not exist, it is created."""


def find_study(config: SearchConfig) -> tuple[SearchSpace | None, StoredStudy]:
    """Returns the requested space, or None, and the study, which need not exist yet.

    A new study that copies results uses the space of its source, unless the configuration names another one.

    Raises:
        NotFoundError: The study or the space does not exist.
        UsageError: A setting is invalid in every study.
    """
    check_single_runtime(config)
    if config.space is None and config.study.name is not None:
        try:
            return None, open_study(config.study.name)
        except NotFoundError:
            if not any(config.value(name) is not None for name in _NEW_STUDY_SETTINGS):
                raise  # probably a mistyped name, because no setting asks for a new study
    source = config.study.speeds or config.study.reuse
    if config.space is None and source is not None:
        space = open_study(source).manifest.space
    else:
        space = load_space(config.space or DEFAULT_SPACE)
    if config.study.name is None:
        device = f"-{kind_of_target(config.timing.device)}" if config.timing.device else ""
        return space, new_study(space.name + device)
    with contextlib.suppress(NotFoundError):
        return space, open_study(config.study.name)
    return space, new_study(config.study.name)


def check_scoring(config: SearchConfig, plan: ProxyPlan) -> None:
    """Checks settings that depend on whether a study has a proxy (`check_time_only`)."""
    search, study = config.search, config.study
    check_time_only(plan, networks=search.networks, sampler=search.sampler, speeds=study.speeds, reuse=study.reuse)


def requested_trials(config: SearchConfig, space: SearchSpace) -> int:
    """Returns the number of networks that a new study should measure."""
    full = resolve(config, space).search
    return full.until_trials or full.trials or DEFAULT_TRIALS


def requested_total(config: SearchConfig, total: int, measured: int) -> int:
    """Returns the total number of networks that a resumed study should measure.

    It is `search.until_trials`, or `measured` plus `search.trials`, or else the stored total.
    """
    if config.search.until_trials is not None:
        return config.search.until_trials
    return total if config.search.trials is None else measured + config.search.trials


def _proxy_function(config: SearchConfig) -> str | None:
    """Returns the absolute path of the user's scoring function; None for other proxies."""
    proxy = find_proxy(config.proxy.name) if config.proxy.name else None
    return absolute(config.proxy.name) if proxy is not None and proxy.has_source and config.proxy.name else None


def local_settings_of(config: SearchConfig) -> dict[str, Any]:
    """Returns the settings that are only valid on this machine, with absolute paths."""
    return {
        "data.source": absolute_source(config.data.source) if config.data.source else None,
        "data.val_source": absolute_source(config.data.val_source) if config.data.val_source else None,
        "proxy.name": _proxy_function(config),
        "data.cache_dir": str(config.data.cache_path.absolute()) if config.data.cache_path else None,
    }
