"""What a study is made from: the device found, sizes checked, the data prepared, the reference timed."""

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
from hilo_nas.measurement import Calibration, Condition, DeviceIdentity, ProxyPlan, kind_of_device
from hilo_nas.measurement.requirements import Aims, build_objective, foresee_objective
from hilo_nas.plugins import absolute
from hilo_nas.proxy.kinds import find_proxy
from hilo_nas.searching.configuration.resolve import (
    DEFAULT_SPACE,
    DEFAULT_TRIALS,
    aims_of,
    condition_options,
    plan_of,
    reading_of,
    resolve,
)
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.opening.copied_results import check_timings, copy_timed
from hilo_nas.searching.tasks.reasons import beyond
from hilo_nas.searching.tasks.study_tasks import Resources, StudyTasks, calibration_of
from hilo_nas.searching.tasks.timing_only import check_time_only
from hilo_nas.space import SearchSpace, limit_text, load_space, measured_values, measured_violations
from hilo_nas.study.manifest import DataIdentity, Manifest
from hilo_nas.study.records import TrialRecord, write_atomically
from hilo_nas.study.stored_study import StoredStudy, new_study, open_study
from hilo_nas.text.commands import command
from hilo_nas.versions import versions

__all__ = [
    "DEFAULT_DATA",
    "Setting",
    "calibrate_all",
    "check_scoring",
    "describe_nothing",
    "find_study",
    "hash_facts",
    "identify_data",
    "local_of",
    "prepare",
    "prepare_images",
    "set_up",
    "total_asked",
    "trials_asked",
]

DEFAULT_DATA = "digits"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """All that a study needs, checked and ready."""

    space: SearchSpace
    conditions: tuple[Condition, ...]
    limits: dict[str, float]
    """Those of the command line; see `Manifest.limits`."""
    calibrations: dict[str, Calibration]
    """By the condition's label; each names the device of its timings."""
    training_device: DeviceIdentity
    plan: ProxyPlan
    data: DataIdentity
    prepared: dict[str, Any]
    """Facts about what the proxy prepared; see `hilo_nas.proxy.worker_calls.prepare_proxy`."""
    resources: Resources
    timed: tuple[TrialRecord, ...] | None = None
    """Copies of the networks that another machine timed; None where networks are timed here."""
    timed_by: str | None = None
    """Name of the study that they are copied from."""

    def build_manifest(self, name: str, *, sampler: str, seed: int, trials: int, **fields: Any) -> Manifest:
        """Returns a new study's manifest.

        Args:
            name: Of the study.
            sampler: See `Manifest`, like what follows.
            seed: Of the sampler and the trainings.
            trials: How many there are to be.
            **fields: Further ones.
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
        """Builds the tasks of a study that is made so."""
        return StudyTasks(
            resources=self.resources,
            calibrations=self.calibrations,
            plan=self.plan,
            num_classes=self.data.num_classes,
        )

    def draw_sheet(self, folder: StoredStudy, evaluator: Evaluator, emit: Emit) -> None:
        """Writes the contact sheet of the images to a study's folder, unless it is there; a failure is a warning."""
        if os.path.lexists(folder.sheet_path) or self.resources.data is None:
            return
        try:
            task = Prepare(sheet=self.resources.data, group_by=self.plan.group_by)
            png = run_task(evaluator, task, emit).facts["png"]
            write_atomically(folder.sheet_path, base64.b64decode(png))
        except HiloNasError as error:
            emit(Notice(level="warning", text=f"no contact sheet of the images was written: {error}"))


def set_up(config: SearchConfig, space: SearchSpace, evaluator: Evaluator, emit: Emit) -> Setting:
    """Returns a new study's setting, for which the evaluator is ready.

    Raises:
        UsageError: An option does not fit the space.
        DeviceError: This machine does not have the device.
        DataError: The data cannot serve.
        MeasurementError: The reference network does not fit.
    """
    if config.timing.device is not None:
        kind_of_device(config.timing.device)
    plan = plan_of(config, space)
    fields = condition_options(resolve(config, space))
    _check_sizes(space, {"timing.img_size": fields["img_size"], "proxy.img_size": plan.img_size})
    source = _source(config, space, plan)
    # What can be wrong with the aims is told before the device is read, for that takes seconds.
    timer = None if config.study.speeds is None else _open_timer(config, space)
    if timer is not None:
        aims = _aims_within(timer, config)
        report = run_task(evaluator, Inspect(target=config.timing.device), emit)  # it only trains
    else:
        foreseen = aims_of(config, foresee_objective(fields, config.timing.device))
        if foreseen.limits and not plan.declaration.gives_scores:
            raise UsageError(
                "without a proxy, fast and slow networks are timed alike: leave the limits on images/s, latency and "
                "memory out here, and give them to the search that trains."
            )
        _check_sizes(space, {"timing.img_size": min(condition.img_size for condition in foreseen.conditions)})
        report = run_task(evaluator, Inspect(target=config.timing.device), emit)
        aims = aims_of(config, build_objective(fields, report.target, report.threads))

    def prepare_data() -> Preparation:
        if source is None:
            return describe_nothing(space.defaults.get("num_classes", 1000))
        return prepare_images(
            source,
            plan,
            cache_dir=config.data.cache_path,
            val_data=config.data.val_source,
            options=reading_of(config),
            evaluator=evaluator,
            emit=emit,
        )

    images, prepared = prepare(plan, _function_of(config), report.target, prepare_data, evaluator, emit)
    data = identify_data(images.facts)
    resources = Resources(
        target=report.target, data=images.reference, proxy=prepared.reference, timing_s=config.timing.seconds
    )
    timed = None
    if timer is not None:
        timed = tuple(copy_timed(timer, timer.manifest))
        if (classes := timer.manifest.data.num_classes) != data.num_classes:
            text = (
                f"the timings of study {timer.name} are of networks with {classes} classes, but the images have "
                f"{data.num_classes}: their classifiers take another time"
            )
            emit(Notice(level="warning", text=text))
        _check_some_keep(timed, timer.name, {**space.limits, **aims.limits})
    return Setting(
        space=space,
        conditions=aims.conditions,
        limits=aims.limits,
        training_device=report.identity,
        calibrations=(
            calibrate_all(aims.conditions, evaluator, resources, emit) if timer is None else timer.manifest.calibrations
        ),
        plan=dataclasses.replace(plan, hflip=images.facts["hflip"]),
        data=data,
        prepared=prepared.facts,
        resources=resources,
        timed=timed,
        timed_by=None if timer is None else timer.name,
    )


def prepare_images(
    source: str,
    plan: ProxyPlan,
    *,
    cache_dir: Path | None,
    val_data: str | None,
    options: ReadOptions,
    evaluator: Evaluator,
    emit: Emit,
) -> Preparation:
    """Returns the images that a plan trains on, ready.

    Raises:
        DataError: The data cannot serve.
        UsageError: A function that is to give the images is not there, is none, or cannot be imported.
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
    """Returns the prepared images and what the proxy prepared.

    A proxy that is not given the images comes first: its faults are told before images are decoded.

    Args:
        plan: The study's.
        source: Path of the user's function, for a proxy that has one.
        target: Name of the device that scores networks.
        prepare_data: Prepares the images.
        evaluator: Does the proxy's work.
        emit: Receives its events.

    Raises:
        HiloNasError: The proxy or the images cannot serve.
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
    """Returns the hash of the facts that a proxy prepared, as a manifest keeps it; None where there are none."""
    return short_hash(prepared) if prepared else None


def _check_some_keep(timed: Sequence[TrialRecord], study: str, limits: Mapping[str, float]) -> None:
    """Raises UsageError where no network that was timed keeps the limits, with the nearest value of each."""
    own = [record for record in timed if not record.is_peer]
    if any(not beyond(measured_violations(limits, record.measurements)) for record in own):
        return
    lines = []
    for name, bound in limits.items():
        violations = [(measured_violations({name: bound}, r.measurements).get(name, -1.0), r) for r in own]
        over, nearest = min(violations, key=lambda pair: pair[0])
        if over > 0:
            value = measured_values(nearest.measurements)[name]
            lines.append(f"  {limit_text(name, bound)}: the nearest has {value:.4g}")
    raise UsageError(
        f"none of the {len(own)} networks that study {study} timed keeps all limits:\n"
        + "\n".join([*lines, f"Loosen the limits, or time more: {command('search', '--study', study)} --trials N"])
    )


def calibrate_all(
    conditions: tuple[Condition, ...], evaluator: Evaluator, resources: Resources, emit: Emit
) -> dict[str, Calibration]:
    """Returns the reference network's speed under each condition, by its label.

    Raises:
        MeasurementError: The reference does not fit.
    """
    calibrations = {}
    for condition in conditions:
        emit(CalibrationStarted(condition=condition.label()))
        calibration = run_task(evaluator, calibration_of(condition, resources), emit).calibration
        assert calibration is not None, "nothing was timed beside the reference"
        calibrations[condition.label()] = calibration
        emit(Calibrated(condition=condition.label(), images_per_s=calibration.images_per_s))
    return calibrations


def _open_timer(config: SearchConfig, space: SearchSpace) -> StoredStudy:
    """Returns the study whose timings stand in for timing here.

    Raises:
        NotFoundError: There is none.
        UsageError: Its timings cannot, or conditions are given beside them.
    """
    assert config.study.speeds is not None
    if given := condition_options(config):
        raise UsageError(
            f"with timings of another study, the conditions are its own: leave out {', '.join(given)}, or time the "
            "networks here."
        )
    timer = open_study(config.study.speeds)
    check_timings(timer, space)
    return timer


def _aims_within(timer: StoredStudy, config: SearchConfig) -> Aims:
    """Returns all conditions of a study that timed, with the limits asked for under each."""
    conditions = timer.manifest.conditions
    aims = aims_of(config, conditions[0])
    if missing := [condition.label() for condition in aims.conditions if condition not in conditions]:
        raise UsageError(
            f"the timings must have been taken under every condition of timing.also, but none of study {timer.name} "
            f"was under {', '.join(missing)}: its conditions are {', '.join(own.label() for own in conditions)}. Leave "
            "the others out, or time the networks anew."
        )
    return Aims(conditions=conditions, limits=aims.limits)


def _source(config: SearchConfig, space: SearchSpace, plan: ProxyPlan) -> str | None:
    """Returns the images of a new study; None where its proxy needs none."""
    if config.data.source is not None or not plan.declaration.gives_scores:
        return config.data.source
    if not plan.declaration.needs_data and space.name != DEFAULT_SPACE:
        return None
    if space.name != DEFAULT_SPACE:
        raise UsageError(
            f"the search in {space.name} needs images to train on. Give --data: a folder with a subfolder per class, a "
            ".tar, torch/NAME, hfds/NAME, path/to/file.py:function, or `digits` for scikit-learn's digits."
        )
    return DEFAULT_DATA


def _check_sizes(space: SearchSpace, sizes: Mapping[str, int]) -> None:
    """Raises UsageError where an image size is smaller than the stride of a network of the space, or of an anchor."""
    largest = max(next(knob.choices for knob in space.knobs if knob.name == "patch_size"))
    strides = {f"patch_size {largest}": 8 * largest}
    strides |= {f"anchor {anchor.name}": anchor.arch.stride for anchor in space.anchors}
    for name, size in sizes.items():
        for whose, stride in strides.items():
            if size < stride:
                raise UsageError(
                    f"{name} must be at least {stride} for {whose} (eight patches a side), but got {size}. "
                    f"Use larger images, or a space without {whose}."
                )


def describe_nothing(num_classes: int) -> Preparation:
    """Returns prepared images that are none, for a proxy that looks at none: the networks still have classes."""
    facts = {
        "name": "no images",
        "content_hash": hashlib.sha256(f"no images, {num_classes} classes".encode()).hexdigest(),
        "class_names": [str(number) for number in range(num_classes)],
        "n_images": 0,
        "hflip": False,
    }
    return Preparation(reference=None, facts=facts)


def identify_data(described: Mapping[str, Any]) -> DataIdentity:
    """Returns what a manifest keeps of prepared images, from the facts about them."""
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


_OF_A_NEW_STUDY = (
    *("proxy.name", "proxy.images", "proxy.img_size", "proxy.batch_size", "proxy.metric", "proxy.rungs"),
    *("search.sampler", "search.seed", "study.speeds", "study.reuse"),
)
"""Settings that say how a study is made: with one of them and a name that no study has, a new one is made."""


def find_study(config: SearchConfig) -> tuple[SearchSpace | None, StoredStudy]:
    """Returns the space asked for, if any, and the study's folder, whether it is there or not.

    A new study that copies from another one is of its space, unless another is asked for.
    """
    if config.space is None and config.study.name is not None:
        try:
            return None, open_study(config.study.name)
        except NotFoundError:
            if not any(config.value(name) is not None for name in _OF_A_NEW_STUDY):
                raise  # a name that was mistyped, more likely than a study to be made
    copied = config.study.speeds or config.study.reuse
    if config.space is None and copied is not None:
        space = open_study(copied).manifest.space
    else:
        space = load_space(config.space or DEFAULT_SPACE)
    if config.study.name is None:
        device = f"-{kind_of_device(config.timing.device)}" if config.timing.device else ""
        return space, new_study(space.name + device)
    with contextlib.suppress(NotFoundError):
        return space, open_study(config.study.name)
    return space, new_study(config.study.name)


def check_scoring(config: SearchConfig, plan: ProxyPlan) -> None:
    """Checks settings that depend on whether a study scores its networks; see `check_time_only`."""
    search, study = config.search, config.study
    check_time_only(plan, networks=search.networks, sampler=search.sampler, speeds=study.speeds, reuse=study.reuse)


def trials_asked(config: SearchConfig, space: SearchSpace) -> int:
    """Returns how many networks a new study is to measure."""
    full = resolve(config, space).search
    return full.until_trials or full.trials or DEFAULT_TRIALS


def total_asked(config: SearchConfig, total: int, measured: int) -> int:
    """Returns a stored study's total: `trials` more than were measured, or `until_trials` in all, or what it was."""
    if config.search.until_trials is not None:
        return config.search.until_trials
    return total if config.search.trials is None else measured + config.search.trials


def _function_of(config: SearchConfig) -> str | None:
    """Returns where the function lies that is to score networks; None for other proxies."""
    proxy = find_proxy(config.proxy.name) if config.proxy.name else None
    return absolute(config.proxy.name) if proxy is not None and proxy.has_source and config.proxy.name else None


def local_of(config: SearchConfig) -> dict[str, Any]:
    """Returns what a configuration says that is true on this machine alone, with absolute paths."""
    return {
        "data.source": absolute_source(config.data.source) if config.data.source else None,
        "data.val_source": absolute_source(config.data.val_source) if config.data.val_source else None,
        "proxy.name": _function_of(config),
        "data.cache_dir": str(config.data.cache_path.absolute()) if config.data.cache_path else None,
    }
