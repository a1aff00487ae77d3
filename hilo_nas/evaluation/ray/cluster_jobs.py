"""Tasks of a cluster's driver, and inspections, which have several."""

from __future__ import annotations

import dataclasses
from typing import Any

from hilo_nas.errors import DeviceError, UsageError
from hilo_nas.evaluation.ray.seats import Seat
from hilo_nas.evaluation.tasks import Count, DeviceReport, Inspect, Prepare, Task, Time
from hilo_nas.measurement import ALL_CUDA, devices_of, kind_of_device

__all__ = ["Inspection", "Job", "check_no_functions", "kind_for"]


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
