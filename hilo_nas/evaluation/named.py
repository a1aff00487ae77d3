"""Timing of networks given by name, without a study."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from hilo_nas.evaluation.drive import run_task
from hilo_nas.evaluation.named_networks import FILES, NamedNetwork, find_network
from hilo_nas.evaluation.protocol import Evaluator
from hilo_nas.evaluation.tasks import Inspect, Time, Timing
from hilo_nas.events import Emit
from hilo_nas.measurement import TORCH_ONLY, Condition
from hilo_nas.measurement.condition_options import build_objective, expected_objective
from hilo_nas.timing import Entrant

__all__ = ["measure_named", "time_networks"]

_DEFAULTS = {"batch_size": 32, "img_size": 224}


def measure_named(
    names: Sequence[str],
    given: Mapping[str, Any],
    evaluator: Evaluator,
    emit: Emit,
    *,
    device: str | None,
    num_classes: int,
    seconds: float | None,
) -> tuple[Condition, Timing]:
    """Returns the common condition and the speeds of networks that are timed in the same rounds.

    Args:
        names: Names in the format of `find_network`. The first network from a study provides the defaults of the
            condition.
        given: Fields of the condition that override the defaults.
        evaluator: Evaluator of the timing.
        emit: Receives the events of the timing.
        device: Name of the device. Defaults to that of the study, or else to the fastest available kind.
        num_classes: Number of outputs of the classifiers, for networks that are not from a study.
        seconds: Maximum seconds per network.

    Raises:
        UsageError: A name is unknown, or a field of the condition is invalid.
        DeviceError: This machine does not have the device.
        MeasurementError: The reference network does not fit in memory.
    """
    networks = [find_network(name) for name in dict.fromkeys(names)]
    from_study = next((network.defaults for network in networks if network.defaults), {})
    defaults = {name: value for name, value in from_study.items() if name not in ("device", "num_classes", "threads")}
    fields = {**_DEFAULTS, **defaults, **given}
    for kind, runtime in FILES.items():
        if any(kind in network.subject for network in networks) and "runtime" not in given:
            fields["runtime"] = runtime
    if fields.get("runtime", "torch") != "torch":
        fields = {name: value for name, value in fields.items() if name in given or name not in TORCH_ONLY}
    device = device or from_study.get("device")
    expected_objective(fields, device)
    report = run_task(evaluator, Inspect(target=device), emit)
    condition = build_objective(fields, report.target, report.threads)
    timing = time_networks(
        networks, condition, evaluator, emit, num_classes=num_classes, target=report.target, seconds=seconds
    )
    return condition, timing


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
    """Returns the speeds of named networks that are timed in the same rounds.

    The condition of each measurement has the image size of its network.

    Args:
        networks: The networks.
        condition: Common condition. Its image size applies to the reference and to networks without their own image
            size.
        evaluator: Evaluator of the timing.
        emit: Receives the events of the timing.
        num_classes: Number of outputs of the classifiers, for networks that are not from a study.
        target: Name of the device. Defaults to the first device of the condition's kind.
        seconds: Maximum seconds per network.

    Raises:
        DeviceError: This machine does not have the device.
        MeasurementError: The reference network does not fit in memory.
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
