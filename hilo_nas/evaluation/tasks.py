"""The five kinds of task that an evaluator does, and their results, as values that survive JSON.

A task refers to its device, prepared data and checkpoint by name. The evaluator owns the things behind the names.
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
    """One piece of work of an evaluator; its type says which result it has."""

    kind: ClassVar[str]
    result_type: ClassVar[type[Any]]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data; `task_from_dict` builds an equal task from it."""
        fields = {field.name: to_plain(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return {"kind": self.kind, **fields}

    def result_to_dict(self, result: Result) -> dict[str, Any]:
        """Returns the plain data of a result of this task; `result_from_dict` builds an equal one from it."""
        return cast("dict[str, Any]", to_plain(result))

    def result_from_dict(self, fields: Mapping[str, Any]) -> Result:
        """Builds the result of this task from its plain data.

        Raises:
            RecordError: It has no such form.
        """
        return cast("Result", read_value(self.result_type, fields))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceReport:
    """Facts about a device."""

    target: str
    """Name of the device, as tasks take it: `cpu`, `cuda:1`."""
    identity: DeviceIdentity
    threads: int | None
    """Threads of a CPU that torch uses; None of other devices."""
    forms: dict[str, str] = dataclasses.field(default_factory=dict)
    """Implementation that a LITv2 is timed in (`Measurement.form`), by the label of each condition asked about."""
    contention: Contention | None = None
    """Load of other processes on the cores that a timing needs; None where there is none or nobody looked."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspect(Task[DeviceReport]):
    """Looks at a device.

    Fails with `DeviceError` where the evaluator does not have it.
    """

    kind: ClassVar[str] = "inspect"
    result_type: ClassVar[type[Any]] = DeviceReport

    target: str | None
    """Name of the device; None for the fastest kind there is."""
    forms: tuple[Condition, ...] = ()
    """Conditions under which the implementation of a LITv2 is asked for."""
    watch: Condition | None = None
    """Condition of a timing, to see for a third of a second whether others use the cores that it needs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparation:
    """Result of `Prepare`."""

    reference: str | None
    """Name by which other tasks refer to it; None where nothing is kept."""
    facts: dict[str, Any]
    """Facts about it: of images the fields of `CachedData` without the place, of a sheet `png` in base64."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepare(Task[Preparation]):
    """Makes ready, or checks, what a study needs before its first trial: one of the four that the fields name.

    Fails with `DataError`, `UsageError`, `NotFoundError` or `StorageError`.
    """

    kind: ClassVar[str] = "prepare"
    result_type: ClassVar[type[Any]] = Preparation

    images: dict[str, Any] | None = None
    """Arguments of `hilo_nas.data.prepared_images.describe_data`: images to be decoded and resized."""
    proxy: ProxyPlan | None = None
    """Plan of a proxy that has work to do before the first trial (`Proxy.prepares`)."""
    data: str | None = None
    """Reference to the images that such a proxy sees."""
    source: str | None = None
    """The user's function that such a proxy calls, as `plugins.absolute` returns it."""
    target: str | None = None
    """Name of the device, for such a proxy."""
    timm_names: tuple[str, ...] = ()
    """Networks that timm must know."""
    sheet: str | None = None
    """Reference to prepared images, of which a contact sheet is to be drawn."""
    group_by: str | None = None
    """`ProxyPlan.group_by`, of a sheet."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Count(Task[NetworkCost]):
    """Counts the parameters and multiply-adds of a network for which no formula is known."""

    kind: ClassVar[str] = "count"
    result_type: ClassVar[type[Any]] = NetworkCost

    subject: dict[str, Any]
    """`Subject.to_dict()`."""
    img_size: int
    num_classes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
    """Speeds of networks that were timed in the same rounds."""

    measurements: dict[str, Measurement] = dataclasses.field(default_factory=dict)
    """By the entry's name."""
    failures: dict[str, HiloNasError] = dataclasses.field(default_factory=dict)
    """Why a network could not be timed with the others, by the name of its entry."""
    calibration: Calibration | None = None
    """Speed of the reference, where it was timed alone."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Time(Task[Timing]):
    """Times networks in the same rounds as the reference network.

    One entry with a calibration is timed with the rivals of similar speed, and fails with `NotEnoughMemoryError` where
    it does not fit. Other entries are timed in the same rounds; those that cannot be timed are failures in the result.
    Without an entry the task is a calibration. Each fails with `MeasurementError` where the reference does not fit.
    """

    kind: ClassVar[str] = "time"
    result_type: ClassVar[type[Any]] = Timing

    condition: Condition
    """Of the reference."""
    entries: dict[str, Entrant] = dataclasses.field(default_factory=dict)
    """Networks by name; all with the condition's device, batch, image size, threads and environment."""
    rivals: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """Members of the front by key, each `{"subject": ..., "images_per_s": ...}`."""
    calibration: Calibration | None = None
    """Reference speed that images/s are computed from; None takes the reference's speed in these rounds."""
    reference: dict[str, Any] | None = None
    """Subject that replaces the reference of every study, for several entries."""
    target: str | None = None
    """Name of the device; the first of the condition's kind if left out."""
    seconds: float | None = None
    """Seconds per network at most; the usual ones if left out."""

    def result_to_dict(self, result: Timing) -> dict[str, Any]:
        """See `Task.result_to_dict`."""
        failures = {name: {"kind": type(e).__name__, "message": str(e)} for name, e in result.failures.items()}
        return {**super().result_to_dict(dataclasses.replace(result, failures={})), "failures": failures}

    def result_from_dict(self, fields: Mapping[str, Any]) -> Timing:
        """See `Task.result_from_dict`."""
        failures = {name: error_of(item["kind"], item["message"]) for name, item in fields["failures"].items()}
        return dataclasses.replace(super().result_from_dict({**fields, "failures": {}}), failures=failures)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scoring:
    """A proxy's score of one network."""

    score: ProxyScore
    checkpoint: str | None = None
    """The checkpoint that was left behind; None where none was asked for."""
    further: tuple[ProxyScore, ...] = ()
    """Scores under the other precisions, in the order of `Score.score_under`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score(Task[Scoring]):
    """Scores a network with the plan's proxy, which is no formula."""

    kind: ClassVar[str] = "score"
    result_type: ClassVar[type[Any]] = Scoring

    subject: dict[str, Any]
    """`Subject.to_dict()`."""
    plan: ProxyPlan
    data: str
    """Reference to the prepared images."""
    prepared: str | None = None
    """Reference to what the proxy prepared; None where it prepares nothing."""
    seed: int
    target: str
    """Name of the device."""
    until: int | None = None
    """Images seen at which a training is scored; the plan's full budget if left out."""
    checkpoint: str | None = None
    """Name of the checkpoint that a training resumes from, where it is kept, and leaves behind."""
    score_under: tuple[str, ...] = ()
    """Precisions under which the same trained network is scored as well."""
    must_resume: bool = False
    """Whether to fail with `NoCheckpointError` where the checkpoint is not kept, instead of training from the start."""


_KINDS: dict[str, type[Task[Any]]] = {kind.kind: kind for kind in (Inspect, Prepare, Count, Time, Score)}


def task_from_dict(fields: Mapping[str, Any]) -> Task[Any]:
    """Builds the task that `Task.to_dict` described.

    Raises:
        RecordError: It has no such form.
    """
    rest = dict(fields)
    return read_value(_KINDS[rest.pop("kind")], rest)
