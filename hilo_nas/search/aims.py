"""What a search times its networks under, and which limits they must keep.

There is one objective condition; others beside it are recorded or limited. A further condition is
written as what differs from the objective, with the limits that hold under it:
`batch_size=1,max_latency_ms=20`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from hilo_nas.errors import UsageError
from hilo_nas.measurement import Condition
from hilo_nas.search.request import SearchRequest

__all__ = ["Aims", "build_aims", "condition_options"]

_LIMITS = {"min_images_per_s": "images_per_s", "max_latency_ms": "latency_ms", "max_memory_mib": "memory_mib"}
"""Options by the quantity that they limit (`hilo_nas.space.LIMITS`)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Aims:
    """Conditions and limits of a study."""

    conditions: tuple[Condition, ...]
    """The first is the objective."""
    limits: dict[str, float]
    """Beside the space's; see `hilo_nas.space.limits` for the names."""


def condition_options(request: SearchRequest) -> dict[str, Any]:
    """Returns the fields of the objective condition that a request gives."""
    return {name: value for name in _READERS if (value := getattr(request, name)) is not None}


def build_aims(objective: Condition, request: SearchRequest) -> Aims:
    """Returns the objective condition with the others and the limits that a request gives.

    Raises:
        UsageError: A further condition cannot be read, or is the same as another.
    """
    limits = {_LIMITS[name]: value for name in _LIMITS if (value := getattr(request, name)) is not None}
    conditions, faults = [objective], []
    for text in request.also:
        try:
            condition, own_limits = _parse(text, objective)
        except UsageError as error:
            faults += [f"--also {text}: {line}" for line in str(error).splitlines()]
            continue
        if condition in conditions:
            faults.append(
                f"--also {text}: must differ from the objective and from the others, but it is {condition.label()}"
            )
        conditions.append(condition)
        limits |= {f"{name}@{condition.label()}": value for name, value in own_limits.items()}
    if faults:
        raise UsageError("\n".join(faults))
    return Aims(conditions=tuple(conditions), limits=limits)


def _parse(text: str, objective: Condition) -> tuple[Condition, dict[str, float]]:
    fields: dict[str, Any] = {}
    limits: dict[str, float] = {}
    faults = []
    known = [*_READERS, *_LIMITS]
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        name = name.replace("-", "_")
        try:
            if name in fields or _LIMITS.get(name) in limits:
                faults.append(f"{name} is given twice")
            elif name in _LIMITS:
                limits[_LIMITS[name]] = _positive(value)
            elif name in _READERS:
                fields[name] = _READERS[name](value)
            else:
                faults.append(f"must be FIELD=VALUE with one of {', '.join(known)}, but got {part.strip()!r}")
        except ValueError:
            faults.append(f"{name} cannot be {value!r}")
    if faults:
        raise UsageError("\n".join(faults))
    return dataclasses.replace(objective, **fields), limits


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
