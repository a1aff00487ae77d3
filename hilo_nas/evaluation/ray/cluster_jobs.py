"""Tasks of a cluster's driver, and inspections of several devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from hilo_nas.errors import DeviceError, UsageError
from hilo_nas.evaluation.ray.seats import Seat
from hilo_nas.evaluation.targets import join_reports
from hilo_nas.evaluation.tasks import Count, DeviceReport, Inspect, Prepare, Task, Time
from hilo_nas.measurement import ALL_CUDA, devices_of, kind_of_device

__all__ = ["Inspection", "Job", "check_no_functions", "join_seats", "kind_for"]


@dataclasses.dataclass(eq=False, kw_only=True)
class Job:
    """A submitted task, or a part of an inspection."""

    id: str
    task: Task[Any]
    seat: Seat | None = None
    """Seat that runs the task."""
    only: Seat | None = None
    """Seat that must run it. None for any that fits."""
    whole: Inspection | None = None
    """Inspection of several devices that this one is a part of."""
    losses: int = 0
    """Number of places that ended while they ran it."""

    @property
    def caller_id(self) -> str:
        """ID of the task for the caller of the evaluator."""
        return self.id if self.whole is None else self.whole.id


@dataclasses.dataclass(eq=False, kw_only=True)
class Inspection:
    """Inspection of all devices of a target, one task each."""

    id: str
    task: Inspect
    began: float
    parts: list[Job]
    reports: dict[Seat, DeviceReport] = dataclasses.field(default_factory=dict)


def join_seats(
    timing: Sequence[Seat], training: Sequence[Seat], whole: Inspection, *, trains_elsewhere: bool
) -> DeviceReport:
    """Returns the report of a target of several nodes.

    Args:
        timing: Seats that time.
        training: Seats that train.
        whole: Inspection with a report of each seat.
        trains_elsewhere: True if other nodes train than time.

    Raises:
        DeviceError: No node is left, or the nodes that time, or those that train, differ.
    """
    reports = [whole.reports[seat] for seat in timing]
    if not reports:
        raise DeviceError("no node of the cluster times any more. Start nodes, and resume the search.")
    joined = _join_equal(reports, "time", "evaluator.time_on")
    forms = next((report.forms for report in reports if report.forms), {})
    contention = next((report.contention for report in reports if report.contention is not None), None)
    trains_on = None
    if trains_elsewhere and training:
        trains_on = _join_equal([whole.reports[seat] for seat in training], "train", "evaluator.train_on").identity
    return dataclasses.replace(joined, forms=forms, contention=contention, trains_on=trains_on)


def _join_equal(reports: Sequence[DeviceReport], verb: str, setting: str) -> DeviceReport:
    """Returns the joined report of nodes with the same role.

    Raises:
        DeviceError: The nodes differ. The message names the setting that selects some of them.
    """
    try:
        return join_reports(reports)
    except DeviceError as error:
        raise DeviceError(
            f"{error} To {verb} on equal nodes only, start them with a Ray resource, and name it: --set {setting}=NAME"
        ) from error


def kind_for(task: Task[Any]) -> str | None:
    """Returns the kind of device that a task needs first; None if any will do.

    Raises:
        DeviceError: The target names devices by number, which Ray does.
    """
    target = task.condition.device if isinstance(task, Time) else getattr(task, "target", None)
    if isinstance(task, Count) or target is None:
        return None
    names = devices_of(target)
    if any("@" in name for name in names):
        return names[0].partition("@")[0]
    if target == ALL_CUDA:
        return "cuda"
    if len(names) > 1 or ":" in target:
        raise DeviceError(
            f"device must be cpu, cuda or mps with a cluster, but got {target!r}: Ray chooses the GPUs. To use some "
            "nodes only, set evaluator.time_on."
        )
    return kind_of_device(target)


def check_no_functions(task: Prepare) -> None:
    """Refuses proxies that are functions of the user, because their code does not travel to the nodes.

    Raises:
        UsageError: The proxy is such a function.
    """
    if task.source is not None or (task.proxy is not None and task.proxy.declaration.has_source):
        raise UsageError(
            "proxy.name must be a proxy that the nodes have installed, but got a function of a file: code does not "
            "travel to the nodes of a cluster. Search on one machine with evaluator.kind=local, or install the proxy "
            "as a package with an entry point on all nodes."
        )
