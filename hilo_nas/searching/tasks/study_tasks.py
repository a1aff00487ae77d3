"""Builders of the tasks of a study: timing, scoring and counting."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import cast

from hilo_nas.errors import HiloNasError
from hilo_nas.evaluation import Count, Evaluator, Score, Steps, Time, Timing, run_steps
from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import Calibration, Condition, ProxyPlan, devices_of
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import Subject, TrialRecord
from hilo_nas.timing import Entrant

__all__ = ["Resources", "StudyTasks", "calibration_of", "describe_target", "time_together", "together"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resources:
    """Target device and references that the tasks of a study use. Valid for one evaluator; not stored."""

    target: str = "cpu"
    """Device that times and trains networks, or several equal ones joined by commas (`DeviceReport.target`)."""
    further: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Device of each condition on another target than the objective, by the label of the condition."""
    data: str | None = None
    """Reference to the prepared images; None if the proxy needs no images."""
    proxy: str | None = None
    """Reference to the prepared state of the proxy; None if the proxy prepares nothing."""
    timing_s: float | None = None
    """Maximum seconds of timing per network; None for the default."""

    def target_of(self, condition: Condition) -> str:
        """Returns the device, or several equal ones, that time networks under a condition."""
        return self.further.get(condition.label(), self.target)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyTasks:
    """Builder of the tasks of one study."""

    resources: Resources
    calibrations: Mapping[str, Calibration]
    """Calibrations by label of the condition."""
    plan: ProxyPlan
    num_classes: int

    @classmethod
    def of(cls, manifest: Manifest, resources: Resources) -> StudyTasks:
        """Returns the task builder of a stored study."""
        return cls(
            resources=resources,
            calibrations=manifest.calibrations,
            plan=manifest.plan,
            num_classes=manifest.data.num_classes,
        )

    def count(self, subject: Subject, img_size: int) -> Count:
        """Returns a task that counts the parameters and multiply-adds of a network."""
        return Count(subject=subject.to_dict(), img_size=img_size, num_classes=self.num_classes)

    def time(
        self,
        subjects: Sequence[Subject],
        condition: Condition,
        *,
        rivals: Sequence[TrialRecord] = (),
        is_brief: bool = False,
    ) -> Time:
        """Returns a task that times one network with rivals of similar speed, or several networks in shared rounds.

        Args:
            subjects: The networks. The result names them by their keys.
            condition: A condition of the study.
            rivals: Records of the front. Use them only with a single network.
            is_brief: True for a few rounds only.
        """
        names = {subject.key for subject in subjects}
        return Time(
            condition=condition,
            entries={
                subject.key: Entrant(subject=subject.to_dict(), condition=condition, num_classes=self.num_classes)
                for subject in subjects
            },
            rivals={
                rival.key: {"subject": rival.subject.to_dict(), "images_per_s": rival.measurement.images_per_s}
                for rival in rivals
                if rival.measurement is not None and rival.key not in names
            },
            calibration=self.calibrations[condition.label()],
            target=self.resources.target_of(condition),
            seconds=self.resources.timing_s,
            is_brief=is_brief,
        )

    def score(
        self,
        subject: Subject,
        seed: int,
        *,
        plan: ProxyPlan | None = None,
        until: int | None = None,
        checkpoint: str | None = None,
        must_resume: bool = False,
    ) -> Score:
        """Returns a task that scores a network.

        Args:
            subject: The network.
            seed: Training seed.
            plan: Plan of the scoring; the study's plan if left out.
            until: Training images at which the training stops; None for the full budget.
            checkpoint: Name of the checkpoint to resume from and to write.
            must_resume: True to fail if the checkpoint does not exist.
        """
        assert self.resources.data is not None, "a proxy that runs in a worker needs images"
        return Score(
            subject=subject.to_dict(),
            plan=plan or self.plan,
            data=self.resources.data,
            prepared=self.resources.proxy,
            seed=seed,
            target=self.resources.target,
            until=until,
            checkpoint=checkpoint,
            must_resume=must_resume,
        )


def describe_target(manifest: Manifest, target: str) -> str:
    """Returns kind, number and model of the devices of a search, such as `cuda (2 x NVIDIA H200)`.

    Further targets follow: `cuda (NVIDIA H200), cpu (Intel Xeon, 8 cores)`.
    """
    count, objective = len(devices_of(target)), manifest.objective
    is_timed_here = manifest.speeds is None
    found = [f"{objective.device} ({f'{count} x ' * (count > 1 and is_timed_here)}{manifest.device.model})"]
    for condition in manifest.conditions:
        if is_timed_here and not condition.shares_target(objective):
            found.append(f"{condition.device} ({manifest.calibrations[condition.label()].device.model})")
    return ", ".join(dict.fromkeys(found))


def calibration_of(condition: Condition, resources: Resources) -> Time:
    """Returns a task that times only the reference, on the first device of the condition's target."""
    device = devices_of(resources.target_of(condition))[0]
    return Time(condition=condition, target=device, seconds=resources.timing_s)


def time_together(evaluator: Evaluator, task: Time, emit: Emit) -> Timing:
    """Returns the result of timing several networks. A single network that cannot be timed is reported as a failure.

    Raises:
        HiloNasError: The device, the reference or the disk fails.
    """
    return run_steps(evaluator, together(task, emit), emit)


def together(task: Time, emit: Emit) -> Steps[Timing]:
    """Times several networks like `time_together`, as a task sequence."""
    if not task.entries:
        return Timing()
    try:
        return cast("Timing", (yield task))
    except HiloNasError as error:
        if error.is_fatal or len(task.entries) > 1:
            raise
        (name,) = task.entries
        emit(Notice(level="warning", text=f"{name} could not be timed: {error}"))
        return Timing(failures={name: error})
