"""Inspections of a target of several nodes: a task for each device, and one report of all."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from hilo_nas.errors import DeviceError
from hilo_nas.evaluation.ray.cluster_jobs import Inspection, Job
from hilo_nas.evaluation.ray.seats import Seat
from hilo_nas.evaluation.targets import join_reports
from hilo_nas.evaluation.tasks import DeviceReport, Inspect
from hilo_nas.measurement import ALL_CUDA, devices_of

__all__ = ["build_inspection", "join_seats", "seats_of"]


def seats_of(target: str, seats: Sequence[Seat]) -> list[Seat]:
    """Returns the seats of a target. The name of a kind of device means all of that kind."""
    names = devices_of(target)
    return [seat for seat in seats if seat.name in names or seat.kind in names]


def build_inspection(id: str, task: Inspect, seats: Sequence[Seat]) -> Inspection:
    """Returns an inspection with a part for each device of the target, and for each device that only trains.

    Args:
        id: ID of the task.
        task: The task.
        seats: All seats.

    Raises:
        DeviceError: The cluster does not have the device.
    """
    timing = [seat for seat in seats if seat.times]
    if task.target not in (None, ALL_CUDA):
        named = seats_of(task.target or "", timing)
    else:
        kind = "cuda" if task.target == ALL_CUDA or any(seat.kind == "cuda" for seat in timing) else "cpu"
        named = [seat for seat in timing if seat.kind == kind]
    if not named:
        raise DeviceError(f"no node of the cluster times on {task.target or 'a device'}. Start nodes, and try again.")
    whole = Inspection(id=id, task=task, began=time.monotonic(), parts=[])
    own = dataclasses.replace(task, forms=(), watch=None)
    for seat in [*named, *(seat for seat in seats if not seat.times)]:
        part = dataclasses.replace(own, target=seat.kind)
        if seat.times:
            part = dataclasses.replace(part, watch=task.watch, forms=task.forms if seat is named[0] else ())
        whole.parts.append(Job(id=f"{id}-{len(whole.parts)}", task=part, only=seat, whole=whole))
    return whole


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
        return join_reports(reports, are_different=True)
    except DeviceError as error:
        raise DeviceError(
            f"{error} To {verb} on equal nodes only, start them with a Ray resource, and name it: --set {setting}=NAME"
        ) from error
