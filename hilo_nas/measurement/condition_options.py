"""Settings under which a study times its networks, and the limits that networks must meet.

One condition is the objective. Further conditions are recorded, and can have limits. A user writes a further condition
as its differences from the objective and its limits: `batch_size=1,max_latency_ms=20`. With `device=cpu`, it is on
another target than the objective.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hilo_nas.errors import UsageError
from hilo_nas.measurement.condition import Condition, DeviceIdentity, kind_of_device, slug_of_model

__all__ = [
    "BEST_RUNTIME",
    "CONDITION_OPTIONS",
    "LIMIT_OPTIONS",
    "NamedDevice",
    "Requirements",
    "Target",
    "Targets",
    "build_objective",
    "build_requirements",
    "expected_objective",
    "named_devices",
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
    devices: dict[str, str] = dataclasses.field(default_factory=dict)
    """Name of the device, such as `cuda:1`, of each condition on another target than the objective, by its label."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedDevice:
    """Device of a further condition as a user names it: `device=cuda:1`, or `device=cuda,model=nvidia-l4`."""

    name: str
    """Name of a device of this machine, or its kind."""
    model: str | None = None
    """Model of the device, as in the label of a condition. None for the device called `name`."""

    def __str__(self) -> str:
        return f"device={self.name}" + (f",model={self.model}" if self.model else "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
    """One device of this machine on which a study times networks."""

    name: str
    """Name of the device, such as `cuda:1`."""
    identity: DeviceIdentity
    threads: int | None = None
    """Number of CPU threads that torch uses. None for other devices."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Targets:
    """Devices of a study that has several targets."""

    objective: DeviceIdentity
    """Device of the objective, or the first of several equal ones."""
    further: Mapping[NamedDevice, Target]
    """Devices of the further conditions by the way in which the user names them."""
    stored: Mapping[tuple[str, str], str | None] = dataclasses.field(default_factory=dict)
    """Model in the conditions of a stored study (`Condition.model`) on each further target, by kind and model of the
    device. Empty for a new study."""


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
    objective: Condition,
    also: Sequence[str] = (),
    *,
    limits: Mapping[str, float] | None = None,
    targets: Targets | None = None,
) -> Requirements:
    """Returns the objective, the further conditions, and the limits under each of them.

    A condition has the model of its device (`Condition.model`) if an earlier target of the study has the same kind and
    another model. In a stored study, it has that of the stored conditions on its device. A device with the kind and
    the model of the objective's device is the objective's target.

    Args:
        objective: The objective condition.
        also: Further conditions as text, such as `batch_size=1,max_latency_ms=20`.
        limits: Limits under the objective, by the names of the options (`LIMIT_OPTIONS`).
        targets: Devices of the study. Without them, the conditions serve to check the settings only, because the model
            of a named device is unknown.

    Raises:
        UsageError: A further condition cannot be parsed, or is the same as another one, or two devices of the same kind
            and model differ, or their models differ only in case, spaces and signs.
    """
    found = {LIMIT_OPTIONS[name]: value for name, value in (limits or {}).items()}
    conditions, faults = {objective: "the objective"}, []
    devices: dict[str, str] = {}
    known = [] if targets is None else [(objective, targets.objective)]
    for text in also:
        try:
            asked = _parse(text)
            target = None if targets is None or asked.device is None else targets.further.get(asked.device)
            place: dict[str, Any] = (
                {}
                if asked.device is None
                else _place(asked.device, target, objective, known, {} if targets is None else targets.stored)
            )
            condition = objective.vary(**{**place, **asked.fields})
        except UsageError as error:
            faults += [f"timing.also {text}: {line}" for line in str(error).splitlines()]
            continue
        if condition in conditions:
            same = conditions[condition]
            faults.append(
                f"timing.also {text}: must differ from the objective and from the others, but is the same as {same}"
            )
        conditions[condition] = f"timing.also {text}"
        if target is not None and not condition.shares_target(objective):
            known.append((condition, target.identity))
            devices[condition.label()] = target.name
        found |= {f"{name}@{condition.label()}": value for name, value in asked.limits.items()}
    if faults:
        raise UsageError("\n".join(faults))
    return Requirements(conditions=tuple(conditions), limits=found, devices=devices)


def named_devices(also: Sequence[str]) -> tuple[NamedDevice, ...]:
    """Returns the devices that further conditions name, each once.

    Raises:
        UsageError: A further condition cannot be parsed.
    """
    faults: list[str] = []
    found: list[NamedDevice | None] = []
    for text in also:
        try:
            found.append(_parse(text).device)
        except UsageError as error:
            faults += [f"timing.also {text}: {line}" for line in str(error).splitlines()]
    if faults:
        raise UsageError("\n".join(faults))
    return tuple(dict.fromkeys(device for device in found if device is not None))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Asked:
    """A further condition as a user writes it."""

    fields: dict[str, Any]
    limits: dict[str, float]
    device: NamedDevice | None
    """None for the target of the objective."""


def _place(
    device: NamedDevice,
    target: Target | None,
    objective: Condition,
    known: Sequence[tuple[Condition, DeviceIdentity]],
    stored: Mapping[tuple[str, str], str | None],
) -> dict[str, Any]:
    """Returns the fields of a condition on a named device that differ from the objective's.

    Args:
        device: The device as the user names it.
        target: The device of this machine; None if it was not read yet.
        objective: The objective condition.
        known: Conditions with their devices, at least one per target so far. The first is the objective.
        stored: As in `Targets`.
    """
    kind = kind_of_device(device.name)
    threads = target.threads if target is not None else None
    fields: dict[str, Any] = {"device": kind, "threads": threads}
    if kind != "cuda":
        fields["cuda_graph"] = False
    if target is None:
        may_repeat = ":" in device.name or kind == objective.device  # different names may have different models
        return {**fields, "model": device.model or (device.name if may_repeat else None)}
    for condition, identity in known:
        names = [(own.kind, slug_of_model(own.model)) for own in (identity, target.identity)]
        if names[0] != names[1]:  # labels and `timing.also` hold the slug of a model
            continue
        if differences := identity.differences(target.identity):
            pairs = ", ".join(f"{name}: {one} and {two}" for name, (one, two) in differences.items())
            raise UsageError(
                f"two targets must differ in kind or model, where case and signs do not count, but {target.name} and "
                f"another target are both {slug_of_model(identity.model) or identity.model} and differ in {pairs}. Use "
                "one of them, or a study for each."
            )
        if condition.shares_target(objective):
            return {}
        return {**fields, "model": condition.model}
    model = target.identity.model if kind in {identity.kind for _, identity in known} else None
    return {**fields, "model": stored.get((kind, target.identity.model), model)}


def _parse(text: str) -> _Asked:
    fields: dict[str, Any] = {}
    limits: dict[str, float] = {}
    named: dict[str, str] = {}
    faults = []
    known = [*_READERS, *_DEVICE_FIELDS, *LIMIT_OPTIONS]
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        name = name.replace("-", "_")
        try:
            if name in fields or name in named or LIMIT_OPTIONS.get(name) in limits:
                faults.append(f"{name} is given twice")
            elif name in LIMIT_OPTIONS:
                limits[LIMIT_OPTIONS[name]] = _positive(value)
            elif name in _READERS:
                fields[name] = _READERS[name](value)
            elif name in _DEVICE_FIELDS:
                named[name] = value
            else:
                faults.append(f"must be FIELD=VALUE with one of {', '.join(known)}, but got {part.strip()!r}")
        except ValueError:
            faults.append(f"{name} cannot be {value!r}")
    device = None
    if "device" in named:
        try:
            kind_of_device(named["device"])
        except UsageError as error:
            faults.append(str(error))
        if "model" in named and not slug_of_model(named["model"]):
            faults.append(f"model must have a letter or a digit, but got {named['model']!r}")
        device = NamedDevice(name=named["device"], model=slug_of_model(named.get("model")) or None)
    elif named:
        faults.append("model needs a device, but got none. Add device=cuda, for example")
    if faults:
        raise UsageError("\n".join(faults))
    return _Asked(fields=fields, limits=limits, device=device)


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
_DEVICE_FIELDS = ("device", "model")
CONDITION_OPTIONS = tuple(_READERS)
"""Fields of a condition that do not select its device. A further condition can set all of them."""
