"""Settings under which a study times its networks, and the limits that networks must meet.

One condition is the objective. Further conditions are recorded, and can have limits. A user writes a further condition
as its differences from the objective and its limits: `batch_size=1,max_latency_ms=20`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hilo_nas.errors import UsageError
from hilo_nas.measurement import Condition, kind_of_device

__all__ = [
    "BEST_RUNTIME",
    "CONDITION_OPTIONS",
    "LIMIT_OPTIONS",
    "Requirements",
    "build_objective",
    "build_requirements",
    "expected_objective",
]

BEST_RUNTIME = "best"
"""Value of the setting `timing.runtime` that times each network in its fastest runtime. No condition has it."""
LIMIT_OPTIONS = {"min_images_per_s": "images_per_s", "max_latency_ms": "latency_ms", "max_memory_mib": "memory_mib"}
"""Quantity (`hilo_nas.space.LIMITS`) that each search setting limits."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Requirements:
    """Conditions under which a study times networks, and the limits that networks must meet."""

    conditions: tuple[Condition, ...]
    """Conditions of the study. The first is the objective."""
    limits: dict[str, float]
    """Limits in addition to those of the space. `hilo_nas.space.limits` defines the names."""


def build_objective(fields: Mapping[str, Any], device: str, threads: int | None) -> Condition:
    """Returns the objective condition. With torch, networks are timed in their inference form unless `fields` differ.

    Args:
        fields: Fields of the condition that the user set.
        device: Name of the device. The condition stores only its kind.
        threads: Number of CPU threads if `fields` does not set it.

    Raises:
        UsageError: A field has an invalid value.
    """
    is_fused = fields.get("runtime", "torch") == "torch"
    return Condition(**{"fused": is_fused, "threads": threads, **fields, "device": kind_of_device(device)})


def expected_objective(fields: Mapping[str, Any], device: str | None) -> Condition:
    """Returns the objective condition before its device is read, which takes seconds.

    It serves to check settings early. An error in it, or in a condition based on it, is an error on every device.

    Args:
        fields: Fields of the condition that the user set.
        device: Name of the requested device. None if the fastest kind of this machine will be used.

    Raises:
        UsageError: A field has an invalid value.
    """
    return build_objective(fields, device or "cuda", None)  # every field is valid on cuda


def build_requirements(
    objective: Condition, also: Sequence[str] = (), *, limits: Mapping[str, float] | None = None
) -> Requirements:
    """Returns the objective, the further conditions, and the limits under each of them.

    Args:
        objective: The objective condition.
        also: Further conditions as text, such as `batch_size=1,max_latency_ms=20`.
        limits: Limits under the objective, by the names of the options (`LIMIT_OPTIONS`).

    Raises:
        UsageError: A further condition cannot be parsed, or is the same as another one.
    """
    found = {LIMIT_OPTIONS[name]: value for name, value in (limits or {}).items()}
    conditions, faults = {objective: "the objective"}, []
    for text in also:
        try:
            condition, own_limits = _parse(text, objective)
        except UsageError as error:
            faults += [f"timing.also {text}: {line}" for line in str(error).splitlines()]
            continue
        if condition in conditions:
            same = conditions[condition]
            faults.append(
                f"timing.also {text}: must differ from the objective and from the others, but is the same as {same}"
            )
        conditions[condition] = f"timing.also {text}"
        found |= {f"{name}@{condition.label()}": value for name, value in own_limits.items()}
    if faults:
        raise UsageError("\n".join(faults))
    return Requirements(conditions=tuple(conditions), limits=found)


def _parse(text: str, objective: Condition) -> tuple[Condition, dict[str, float]]:
    fields: dict[str, Any] = {}
    limits: dict[str, float] = {}
    faults = []
    known = [*_READERS, *LIMIT_OPTIONS]
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        name = name.replace("-", "_")
        try:
            if name in fields or LIMIT_OPTIONS.get(name) in limits:
                faults.append(f"{name} is given twice")
            elif name in LIMIT_OPTIONS:
                limits[LIMIT_OPTIONS[name]] = _positive(value)
            elif name in _READERS:
                fields[name] = _READERS[name](value)
            else:
                faults.append(f"must be FIELD=VALUE with one of {', '.join(known)}, but got {part.strip()!r}")
        except ValueError:
            faults.append(f"{name} cannot be {value!r}")
    if faults:
        raise UsageError("\n".join(faults))
    return objective.vary(**fields), limits


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError(text)
    return value


def _truth(text: str) -> bool:
    truths = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in truths:
        raise ValueError(text)
    return truths[text.lower()]


_READERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("batch_size", "img_size", "threads"), int),
    **dict.fromkeys(("channels_last", "compile", "cuda_graph", "fused"), _truth),
    **dict.fromkeys(("precision", "runtime", "env"), str),
}
CONDITION_OPTIONS = tuple(_READERS)
"""Fields of a condition that a further condition can set: all except the device, which all conditions share."""
