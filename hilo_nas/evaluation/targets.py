"""Targets: a device, or several equal devices of one machine, one of which runs a task."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hilo_nas.errors import DeviceError
from hilo_nas.evaluation.tasks import DeviceReport

__all__ = ["join_reports"]


def join_reports(reports: Sequence[DeviceReport], *, are_different: bool = False) -> DeviceReport:
    """Returns the report of a target: that of its first device, with the names of all of them.

    Args:
        reports: Reports of the devices of the target.
        are_different: True if the devices are known to be different ones, although serials may be equal: the serial of
            a CPU is the name of its host, and two hosts may have the same.

    Raises:
        DeviceError: The devices differ in model, driver or host, or two names are the same device.
    """
    first, *others = reports
    for other in others:
        differences = first.identity.differences(other.identity)
        if not are_different and first.identity.serial == other.identity.serial:
            raise DeviceError(
                f"the devices of a target must be different ones, but {other.target} is {first.target} "
                f"({first.identity.serial}). Name each device once."
            )
        if differences:
            pairs = ", ".join(f"{name}: {one} and {two}" for name, (one, two) in differences.items())
            raise DeviceError(
                f"the devices of a target must be equal, but {first.target} and {other.target} differ in {pairs}. "
                f"Use one of them, or a study for each."
            )
    return dataclasses.replace(first, target=",".join(report.target for report in reports))
