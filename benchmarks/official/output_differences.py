"""Whether networks that are timed beside each other give the same: outputs, and gradients of a training step.

Runs in a worker process. Networks are made ready as they are for the clock, so that what is compared is what is timed.
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
"""How the names of batch norms' buffers end: of a network's state, they alone have no gradients."""


def compare_outputs(
    entrants: Mapping[str, Mapping[str, Any]], num_classes: int, *, target: str, emit: Emit
) -> dict[str, float | None]:
    """Returns, by name, the largest difference to what the first gives, as a share of the largest of that.

    Of a training step gradients are compared, all together, by their official names. None where a network cannot run:
    why not is told, and again by the timing, where it counts.

    Args:
        entrants: By name, each `{"subject": ..., "condition": ...}`; all with the same weights.
        num_classes: Outputs of the classifiers.
        target: Name of the device.
        emit: Told why a network cannot be compared.
    """
    expected: dict[str, Tensor] | None = None
    found: dict[str, float | None] = {}
    for i, (name, entrant) in enumerate(entrants.items()):
        values = None
        try:
            with torch.inference_mode():
                values = _run(entrant["subject"], Condition(**entrant["condition"]), num_classes, target)
        except Exception as error:  # whatever keeps it from running keeps it from being timed
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
    """Gradients by the official names of their parameters; they take the weights' place, which the renaming knows."""
    for parameter in model.parameters():
        parameter.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    state = official_state_dict(model) if isinstance(model, LITv2) else model.state_dict()
    return {name: value.float().cpu() for name, value in state.items() if not name.endswith(_STATISTICS)}


def _difference(values: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    largest = max(float(value.abs().max()) for value in expected.values())
    return max(float((values[name] - value).abs().max()) for name, value in expected.items()) / largest
