"""The five kinds of tasks of an evaluator, and their results. All of them can be converted to and from JSON.

A task refers to its device, prepared data and checkpoint by name. The evaluator owns the named objects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar, cast

from hilo_nas.arch.cost import NetworkCost
from hilo_nas.errors import HiloNasError, error_of
from hilo_nas.measurement import (
    Calibration,
    Condition,
    Contention,
    DeviceIdentity,
    Measurement,
    ProxyPlan,
    ProxyScore,
)
from hilo_nas.measurement.fields import read_value, to_plain
from hilo_nas.timing import Entrant

__all__ = [
    "Count",
    "DeviceReport",
    "Inspect",
    "Preparation",
    "Prepare",
    "Score",
    "Scoring",
    "Task",
    "Time",
    "Timing",
    "task_from_dict",
]

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Generic[Result]):
    """Unit of work of an evaluator. `Result` is the type of its result."""

    kind: ClassVar[str]
    result_type: ClassVar[type[Any]]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data, from which `task_from_dict` creates an equal task."""
        fields = {field.name: to_plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return {"kind": self.kind, **fields}

    def result_to_dict(self, result: Result) -> dict[str, Any]:
        """Returns a result of this task as plain data, from which `result_from_dict` creates an equal result."""
        return cast("dict[str, Any]", to_plain(result))

    def result_from_dict(self, fields: Mapping[str, Any]) -> Result:
        """Returns the result of this task from plain data.

        Raises:
            RecordError: The data is not a valid result.
        """
        return cast("Result", read_value(self.result_type, fields))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceReport:
    """Facts about a device."""

    target: str
    """Name of the device in tasks, such as `cpu` or `cuda:1`. Several equal devices are joined by commas, such as
    `cuda:0,cuda:1`, and the other facts are those of the first one."""
    identity: DeviceIdentity
    threads: int | None
    """Number of CPU threads that torch uses. None for other devices."""
    forms: dict[str, str] = dataclasses.field(default_factory=dict)
    """Form (implementation) of LITv2 for timings (`Measurement.form`), by the label of each condition in
    `Inspect.forms`."""
    contention: Contention | None = None
    """Load by other processes on the cores that a timing needs. None if there is no such load or it was not
    measured."""
    trains_on: DeviceIdentity | None = None
    """Identity of the device that trains. None if it is the device that times."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspect(Task[DeviceReport]):
    """Reads the properties of a device, or of several equal ones.

    Fails with `DeviceError` if the evaluator does not have a device, or if the devices are not equal.
    """

    kind: ClassVar[str] = "inspect"
    result_type: ClassVar[type[Any]] = DeviceReport

    target: str | None
    """Name of the device, several names joined by commas, or `cuda:all`. None selects the fastest available kind."""
    forms: tuple[Condition, ...] = ()
    """Conditions for which to report the form of LITv2."""
    watch: Condition | None = None
    """Condition of a timing for which to measure the load by other processes on its cores. This takes 0.3 seconds. Such
    a task does not change the target whose devices count as slots (`Evaluator.slots`)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparation:
    """Result of `Prepare`."""

    reference: str | None
    """Name of the prepared object for other tasks. None if nothing is kept."""
    facts: dict[str, Any]
    """Facts about the prepared object. For images, the fields of `CachedData` without the path. For a contact sheet,
    `png` in base64."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepare(Task[Preparation]):
    """Prepares or checks an object that a study needs before its first trial.

    Set one of `images`, `proxy`, `timm_names` and `sheet`. Fails with `DataError`, `UsageError`, `NotFoundError` or
    `StorageError`.
    """

    kind: ClassVar[str] = "prepare"
    result_type: ClassVar[type[Any]] = Preparation

    images: dict[str, Any] | None = None
    """Images to decode and resize, as arguments of `hilo_nas.data.prepared_images.describe_data`."""
    proxy: ProxyPlan | None = None
    """Plan of a proxy to prepare (`Proxy.prepares`)."""
    data: str | None = None
    """Reference to the images for `proxy`, if it uses them."""
    source: str | None = None
    """Location of the user function of `proxy`, as returned by `plugins.absolute`."""
    target: str | None = None
    """Target on which `proxy` will score networks, as in `DeviceReport.target`."""
    timm_names: tuple[str, ...] = ()
    """Names of networks to check for in timm."""
    sheet: str | None = None
    """Reference to prepared images to draw a contact sheet of."""
    group_by: str | None = None
    """Grouping of the images of `sheet`, as in `ProxyPlan.group_by`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Count(Task[NetworkCost]):
    """Counts the parameters and multiply-adds of a network without formulas for them."""

    kind: ClassVar[str] = "count"
    result_type: ClassVar[type[Any]] = NetworkCost

    subject: dict[str, Any]
    """The network in the format of `Subject.to_dict()`."""
    img_size: int
    num_classes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """Speeds of networks that were timed in the same rounds."""

    measurements: dict[str, Measurement] = dataclasses.field(default_factory=dict)
    """Measurements by the name of the entry."""
    failures: dict[str, HiloNasError] = dataclasses.field(default_factory=dict)
    """Errors of the networks that could not be timed, by the name of the entry."""
    calibration: Calibration | None = None
    """Speed of the reference if the task was a calibration."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Time(Task[Timing]):
    """Times networks in the same rounds as the reference network.

    * One entry with a calibration: it is timed with the rivals of similar speed. The task fails with
      `NotEnoughMemoryError` if the network does not fit in memory.
    * Other entries: all are timed in the same rounds. Networks that cannot be timed are in `Timing.failures`.
    * No entry: the task is a calibration of the reference.

    The task fails with `MeasurementError` if the reference does not fit in memory.
    """

    kind: ClassVar[str] = "time"
    result_type: ClassVar[type[Any]] = Timing

    condition: Condition
    """Condition of the reference."""
    entries: dict[str, Entrant] = dataclasses.field(default_factory=dict)
    """Networks by name. All have the condition's device, batch size, image size, threads and environment."""
    rivals: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """Members of the front by key, each `{"subject": ..., "images_per_s": ...}`."""
    calibration: Calibration | None = None
    """Calibrated speed of the reference for the computation of images/s. None uses its speed in these rounds."""
    reference: dict[str, Any] | None = None
    """Subject to use instead of the standard reference, for several entries."""
    target: str | None = None
    """Target of the timing, as in `DeviceReport.target`. One of several devices times all entries. Defaults to the
    first device of the condition's kind."""
    seconds: float | None = None
    """Maximum seconds per network. None uses the default of the timing worker."""
    is_brief: bool = False
    """True for a few rounds only, as a search needs to choose between networks (`Measurement.is_preliminary`)."""

    def result_to_dict(self, result: Timing) -> dict[str, Any]:
        """Returns a result as plain data. Failures are stored as class name and message."""
        failures = {name: {"kind": type(e).__name__, "message": str(e)} for name, e in result.failures.items()}
        return {**super().result_to_dict(dataclasses.replace(result, failures={})), "failures": failures}

    def result_from_dict(self, fields: Mapping[str, Any]) -> Timing:
        """Returns the result from the plain data of `result_to_dict`."""
        failures = {name: error_of(item["kind"], item["message"]) for name, item in fields["failures"].items()}
        return dataclasses.replace(super().result_from_dict({**fields, "failures": {}}), failures=failures)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scoring:
    """Scores of one network from a proxy."""

    score: ProxyScore
    checkpoint: str | None = None
    """Name of the checkpoint that was stored, or None if the task requested none."""
    further: tuple[ProxyScore, ...] = ()
    """Scores with the additional precisions, in the order of `Score.score_under`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score(Task[Scoring]):
    """Scores a network with the plan's proxy, which must have work for a worker (`Proxy.work`)."""

    kind: ClassVar[str] = "score"
    result_type: ClassVar[type[Any]] = Scoring

    subject: dict[str, Any]
    """The network in the format of `Subject.to_dict()`."""
    plan: ProxyPlan
    data: str
    """Reference to the prepared images."""
    prepared: str | None = None
    """Reference to the result of the proxy's preparation. None if it prepares nothing."""
    seed: int
    target: str
    """Target of the training, as in `DeviceReport.target`. One of several devices runs it."""
    until: int | None = None
    """Number of training images after which to score. Defaults to the plan's full budget."""
    checkpoint: str | None = None
    """Name of the checkpoint to resume from, if it is stored, and to write at the end."""
    score_under: tuple[str, ...] = ()
    """Additional precisions for scoring the same trained network."""
    must_resume: bool = False
    """True to fail with `NoCheckpointError` if the checkpoint is not stored, instead of training from the start."""


_KINDS: dict[str, type[Task[Any]]] = {kind.kind: kind for kind in (Inspect, Prepare, Count, Time, Score)}


def task_from_dict(fields: Mapping[str, Any]) -> Task[Any]:
    """Returns the task from the plain data of `Task.to_dict`.

    Raises:
        RecordError: The data is not a valid task.
    """
    rest = dict(fields)
    return read_value(_KINDS[rest.pop("kind")], rest)
