"""Timing of networks that a user names, without a study."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hilo_nas.evaluation.drive import run_task
from hilo_nas.evaluation.protocol import Evaluator
from hilo_nas.evaluation.tasks import Time, Timing
from hilo_nas.events import Emit
from hilo_nas.measure import Entrant
from hilo_nas.measurement import Condition
from hilo_nas.named_networks import NamedNetwork

__all__ = ["time_networks"]


def time_networks(
    networks: Sequence[NamedNetwork],
    condition: Condition,
    evaluator: Evaluator,
    emit: Emit,
    *,
    num_classes: int,
    target: str | None = None,
    seconds: float | None = None,
) -> Timing:
    """Returns the speeds of named networks, side by side; the condition of each has the network's own image size.

    Args:
        networks: The networks.
        condition: Condition of all; its image size is that of the reference, and of the networks without their own.
        evaluator: Times them.
        emit: Receives the events of the timing.
        num_classes: Outputs of the classifiers, where no study says it.
        target: Name of the device; the first of the condition's kind if left out.
        seconds: Seconds per network at most.

    Raises:
        DeviceError: This machine does not have the device.
        MeasurementError: The reference network does not fit.
    """
    entries = {
        network.name: Entrant(
            subject=network.subject, condition=condition, num_classes=network.defaults.get("num_classes", num_classes)
        )
        for network in networks
    }
    timing = run_task(evaluator, Time(condition=condition, entries=entries, target=target, seconds=seconds), emit)
    sizes = {network.name: network.subject.get("img_size", condition.img_size) for network in networks}
    return dataclasses.replace(
        timing,
        measurements={
            name: dataclasses.replace(item, condition=item.condition.vary(img_size=sizes[name]))
            for name, item in timing.measurements.items()
        },
    )
