"""Differences between networks of one cohort: outputs, or gradients of a training step.

The functions run in a worker process. Networks are prepared as for timing, so that the timed networks are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import Condition
from hilo_nas.models import LITv2, official_state_dict
from hilo_nas.timing.prepared_network import prepare

__all__ = ["compare_outputs"]

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Endings of the names of batch norms' buffers, which have no gradients."""


def compare_outputs(
    entrants: Mapping[str, Mapping[str, Any]], num_classes: int, *, target: str, emit: Emit
) -> dict[str, float | None]:
    """Returns the largest difference to the first network by name, divided by the first network's largest value.

    For a training step, all gradients are compared, by their official names. None if a network cannot run. A warning
    gives the reason, and the timing reports the failure again.

    Args:
        entrants: Networks by name, each `{"subject": ..., "condition": ...}`. All have the same weights.
        num_classes: Number of classes.
        target: Name of the device.
        emit: Receives warnings about networks that cannot be compared.
    """
    expected: dict[str, Tensor] | None = None
    found: dict[str, float | None] = {}
    for i, (name, entrant) in enumerate(entrants.items()):
        values = None
        try:
            with torch.inference_mode():
                values = _run(entrant["subject"], Condition(**entrant["condition"]), num_classes, target)
        except Exception as error:  # a network that fails here also fails in timing
            emit(Notice(level="warning", text=f"{name} could not be compared: {error}"))
        expected = values if i == 0 else expected
        found[name] = None if values is None or expected is None else _difference(values, expected)
    return found


def _run(subject: Mapping[str, Any], condition: Condition, num_classes: int, target: str) -> dict[str, Tensor]:
    output = prepare(subject, condition, num_classes=num_classes, target=target).call()
    if isinstance(output, nn.Module):
        return _gradients(output)
    assert isinstance(output, Tensor)
    return {"": output.float().cpu()}


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    """Returns gradients by the official names of their parameters.

    Each parameter's data is replaced by its gradient, because `official_state_dict` renames weights.
    """
    for parameter in model.parameters():
        parameter.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    state = official_state_dict(model) if isinstance(model, LITv2) else model.state_dict()
    return {name: value.float().cpu() for name, value in state.items() if not name.endswith(_STATISTICS)}


def _difference(values: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    largest = max(float(value.abs().max()) for value in expected.values())
    return max(float((values[name] - value).abs().max()) for name, value in expected.items()) / largest
