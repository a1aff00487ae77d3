"""Times of the parts of the front's networks, which show where their time goes."""

from __future__ import annotations

import dataclasses

from hilo_nas.arch.config import ArchConfig
from hilo_nas.arch.cost import PARTS
from hilo_nas.clock import utc_now
from hilo_nas.errors import HiloNasError
from hilo_nas.evaluation import Evaluator, Time, run_task
from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import devices_of
from hilo_nas.measurement.rounds import fast_seconds
from hilo_nas.measurement.verdicts import judge_cohort
from hilo_nas.searching.tasks.study_tasks import Resources
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.stage_times import PartTimes, StageTimes, fault_of_parts, load_stage_times
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.timing import Entrant

__all__ = ["time_stages"]


def time_stages(
    study: StoredStudy,
    manifest: Manifest,
    evaluator: Evaluator,
    resources: Resources,
    emit: Emit,
    *,
    again: bool = False,
) -> None:
    """Times the parts of each network on the front briefly and stores the times in `stages.json`.

    An error is a warning, because nothing else depends on these times. Does nothing under conditions in which parts
    cannot be timed (`fault_of_parts`).

    Args:
        study: The study; this process holds its lock.
        manifest: Manifest of the study.
        evaluator: Times the parts.
        resources: Target device of the tasks.
        emit: Receives all events.
        again: True to repeat the timing of networks with stored times.
    """
    if fault_of_parts(manifest.objective) is not None:
        return
    stored = load_stage_times(study.stages_path)
    found = {key: own for key, own in stored.networks.items() if own.fits(manifest.objective, manifest.device)}
    for record in study.front().members:
        if record.subject.arch is None or (record.key in found and not again):
            continue
        try:
            timing = run_task(evaluator, _task(record.subject.arch, manifest, resources), emit)
        except HiloNasError as error:
            emit(_warning(record.number, error))
            break
        if timing.failures:
            emit(_warning(record.number, next(iter(timing.failures.values()))))
            continue
        found[record.key] = PartTimes(
            condition=manifest.objective.label(),
            device=manifest.device,
            measured_at=utc_now(),
            seconds={part: fast_seconds(timing.measurements[part].call_seconds) for part in PARTS},
            verdict=judge_cohort(timing.measurements.values()).verdict,
        )
        try:
            StageTimes(networks=found).write(study.stages_path)
        except HiloNasError as error:
            emit(Notice(level="warning", text=f"the times of parts could not be stored: {error}"))
            break


def _warning(number: int, error: Exception) -> Notice:
    return Notice(level="warning", text=f"the parts of trial {number} could not be timed: {error}")


def _task(arch: ArchConfig, manifest: Manifest, resources: Resources) -> Time:
    """Returns a brief timing of all parts of a network in the same rounds."""
    objective, device = manifest.objective, devices_of(resources.target)[0]
    arguments = {
        "arch": arch.to_dict(),
        "batch_size": objective.batch_size,
        "img_size": objective.img_size,
        "device": device.partition("@")[0],  # a node of a cluster names its device by its kind
        "precision": objective.precision,
    }
    # Parts are built in their inference form, so the worker must not convert them again.
    condition = dataclasses.replace(objective, fused=False)
    function = "hilo_nas.models.network_parts:build_part"
    return Time(
        condition=condition,
        entries={
            part: Entrant(
                subject={"function": function, "arguments": {**arguments, "part": part}},
                condition=condition,
                num_classes=manifest.data.num_classes,
            )
            for part in PARTS
        },
        target=device,
        is_brief=True,
    )
