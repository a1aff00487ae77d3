"""Tasks of a study: its trials, its re-timings and its confirmation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from hilo_nas.errors import HiloNasError
from hilo_nas.evaluation import Count, Evaluator, Score, Time, Timing, run_task
from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import Calibration, Condition, ProxyPlan
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import Subject, TrialRecord
from hilo_nas.timing import Entrant

__all__ = ["Resources", "StudyTasks", "calibration_of", "time_together"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resources:
    """Names that the tasks of a study refer to. They hold for one evaluator and are not stored."""

    target: str = "cpu"
    """Name of the device that times and trains."""
    data: str | None = None
    """Reference to the prepared images; None where the proxy looks at none."""
    proxy: str | None = None
    """Reference to what the proxy prepared; None where it prepares nothing."""
    timing_s: float | None = None
    """Seconds that a network is timed for at most; the usual ones if left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyTasks:
    """Builds the tasks."""

    resources: Resources
    calibrations: Mapping[str, Calibration]
    """By the condition's label."""
    plan: ProxyPlan
    num_classes: int

    @classmethod
    def of(cls, manifest: Manifest, resources: Resources) -> StudyTasks:
        """Returns those of a stored study."""
        return cls(
            resources=resources,
            calibrations=manifest.calibrations,
            plan=manifest.plan,
            num_classes=manifest.data.num_classes,
        )

    def count(self, subject: Subject, img_size: int) -> Count:
        """Returns the count of a network's parameters and multiply-adds."""
        return Count(subject=subject.to_dict(), img_size=img_size, num_classes=self.num_classes)

    def time(
        self,
        subjects: Sequence[Subject],
        condition: Condition,
        *,
        rivals: Sequence[TrialRecord] = (),
        seconds: float | None = None,
    ) -> Time:
        """Returns the timing of one network with rivals of similar speed, or of several networks in the same rounds.

        Args:
            subjects: The networks; their names in the result are their keys.
            condition: One of the study's.
            rivals: The front, for one network.
            seconds: Per network at most; the resources' if left out.
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
            target=self.resources.target,
            seconds=self.resources.timing_s if seconds is None else seconds,
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
        """Returns the scoring of a network, by the study's plan if no other is given; see `Score`."""
        assert self.resources.data is not None, "a proxy that looks at no images is a formula"
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


def calibration_of(condition: Condition, resources: Resources) -> Time:
    """Returns the timing of the reference alone."""
    return Time(condition=condition, target=resources.target, seconds=resources.timing_s)


def time_together(evaluator: Evaluator, task: Time, emit: Emit) -> Timing:
    """Returns what timing some networks brought; one that is alone and cannot be timed is a failure in it, too.

    Raises:
        HiloNasError: The device, the reference or the disk cannot serve.
    """
    try:
        return run_task(evaluator, task, emit) if task.entries else Timing()
    except HiloNasError as error:
        if error.is_fatal or len(task.entries) > 1:
            raise
        (name,) = task.entries
        emit(Notice(level="warning", text=f"{name} could not be timed: {error}"))
        return Timing(failures={name: error})
