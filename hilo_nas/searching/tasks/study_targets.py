"""Targets of a study: the devices of its conditions, found by name when it is created, and by identity later.

A study stores kind and model of each target, and no names, because the same device may be `cuda:0` in one search and
`cuda:1` in another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hilo_nas.errors import DeviceError
from hilo_nas.evaluation import DeviceReport, Evaluator, Inspect, run_task
from hilo_nas.events import Emit
from hilo_nas.measurement import Condition, DeviceIdentity, kind_of_device, slug_of_model
from hilo_nas.measurement.condition_options import NamedDevice, Target, Targets, named_devices
from hilo_nas.searching.tasks.study_tasks import Resources
from hilo_nas.study.further_conditions import further_targets
from hilo_nas.study.manifest import Manifest
from hilo_nas.text.commands import command

__all__ = ["find_objective", "find_targets", "further_devices", "read_forms", "read_targets", "stored_targets"]

_MOST_CARDS = 64
"""Maximum number of CUDA devices of a machine that are tried."""


def read_targets(
    also: Sequence[str], report: DeviceReport, evaluator: Evaluator, emit: Emit, *, manifest: Manifest | None = None
) -> Targets:
    """Returns the devices that further conditions name.

    Args:
        also: The further conditions, as in `timing.also`.
        report: Report of the objective's target.
        evaluator: Reads the devices.
        emit: Receives the events of the evaluator.
        manifest: Manifest of a stored study, whose conditions the devices keep in any order of their names.

    Raises:
        UsageError: A further condition cannot be parsed.
        DeviceError: This machine does not have a named device.
    """
    named = named_devices(also)
    further = {device: _read_named(device, evaluator, emit) for device in named}
    if named:
        _select(report.target, evaluator, emit)
    stored = {}
    if manifest is not None:
        for condition in further_targets(manifest):
            identity = manifest.calibrations[condition.label()].device
            stored[identity.kind, identity.model] = condition.model
    return Targets(objective=report.identity, further=further, stored=stored)


def stored_targets(also: Sequence[str], manifest: Manifest) -> Targets:
    """Returns the devices that further conditions name, from the targets of a stored study.

    A device of the study must have the named kind, and the named model if the condition has one. A name without a model
    may be any device of its kind. Different names are different targets, in the order of the study's conditions. A
    device that the study does not have is left out.

    Args:
        also: The further conditions, as in `timing.also`.
        manifest: Manifest of the study.

    Raises:
        UsageError: A further condition cannot be parsed.
    """
    further: dict[NamedDevice, Target] = {}
    for device in named_devices(also):
        used = {target.identity for target in further.values()}
        for condition in (*manifest.conditions[1:], manifest.objective):
            identity = manifest.calibrations[condition.label()].device
            is_named = identity.kind == kind_of_device(device.name)
            if is_named and identity not in used and device.model in (None, slug_of_model(identity.model)):
                further[device] = Target(name=device.name, identity=identity, threads=condition.threads)
                break
    return Targets(objective=manifest.device, further=further)


def find_objective(manifest: Manifest, name: str | None, evaluator: Evaluator, emit: Emit) -> DeviceReport:
    """Returns the report of the objective's device: of the named one, or else of the one that equals the stored one.

    If no CUDA device of this machine equals it, the report is of the first one of its model, or else of its kind. The
    caller compares the devices.

    Args:
        manifest: Manifest of the study.
        name: Target that the user names.
        evaluator: Reads the devices.
        emit: Receives the events of the evaluator.

    Raises:
        DeviceError: This machine does not have the named device, or none of the kind.
    """
    first = run_task(evaluator, Inspect(target=name or manifest.objective.device), emit)
    if name is not None or first.identity.kind != "cuda" or not first.identity.differences(manifest.device):
        return first
    found = _most_similar(manifest.device, evaluator, emit, [], [])
    return run_task(evaluator, Inspect(target=first.target if found is None else found.name), emit)


def find_targets(
    manifest: Manifest, target: str, evaluator: Evaluator, emit: Emit, *, named: Mapping[str, str] | None = None
) -> dict[str, Target]:
    """Returns the device of this machine for each condition on another target than the objective, by its label.

    Of several devices of the same kind, one that equals the stored device is preferred to one of the same model with
    another driver, for example. The caller compares the devices (`further_devices`).

    Args:
        manifest: Manifest of the study.
        target: The objective's target (`Resources.target`).
        evaluator: Reads the devices.
        emit: Receives the events of the evaluator.
        named: Names of devices by the label of the condition, which are not searched for.

    Raises:
        DeviceError: This machine does not have a device of the kind and model.
    """
    found: dict[str, Target] = {}
    by_identity: dict[tuple[str, str], Target] = {}
    for condition in manifest.conditions:
        if condition.shares_target(manifest.objective):
            continue
        label = condition.label()
        stored = manifest.calibrations[label].device
        key = stored.kind, stored.model
        if named is not None and label in named:
            by_identity[key] = _read(named[label], evaluator, emit)
        elif key not in by_identity:
            by_identity[key] = _find(manifest, label, evaluator, emit)
        found[label] = by_identity[key]
    if found:
        _select(target, evaluator, emit)
    return found


def further_devices(found: Mapping[str, Target]) -> dict[str, str]:
    """Returns the names of the devices of `find_targets` by the label of the condition, for `Resources.further`."""
    return {label: target.name for label, target in found.items()}


def read_forms(
    conditions: Sequence[Condition], resources: Resources, evaluator: Evaluator, emit: Emit
) -> dict[str, str]:
    """Returns the current forms (implementations) of LITv2 by the label of the condition, each read on its target."""
    by_target: dict[str, list[Condition]] = {}
    for condition in conditions:
        by_target.setdefault(resources.target_of(condition), []).append(condition)
    own = by_target.pop(resources.target, [])
    forms: dict[str, str] = {}
    for target, others in by_target.items():
        forms |= run_task(evaluator, Inspect(target=target, forms=tuple(others)), emit).forms
    # The objective's target comes last, because an evaluator has as many slots as the target that it read last.
    return {**forms, **run_task(evaluator, Inspect(target=resources.target, forms=tuple(own)), emit).forms}


def _select(target: str, evaluator: Evaluator, emit: Emit) -> None:
    """Reads the objective's target again, because an evaluator has as many slots as the target that it read last."""
    run_task(evaluator, Inspect(target=target), emit)


def _read(name: str, evaluator: Evaluator, emit: Emit) -> Target:
    report = run_task(evaluator, Inspect(target=name), emit)
    return Target(name=report.target, identity=report.identity, threads=report.threads)


def _read_named(device: NamedDevice, evaluator: Evaluator, emit: Emit) -> Target:
    if device.model is None:
        return _read(device.name, evaluator, emit)
    others: list[str] = []
    faults: list[DeviceError] = []
    for target in _candidates(device.name, evaluator, emit, faults):
        if slug_of_model(target.identity.model) == device.model:
            return target
        others.append(f"{target.name} ({slug_of_model(target.identity.model)})")
    raise DeviceError(
        f"timing.also {device} must name a device of this machine, but it has {_list(others, faults)}. Use one of "
        "them, or leave the condition out."
    )


def _find(manifest: Manifest, label: str, evaluator: Evaluator, emit: Emit) -> Target:
    """Returns the device of this machine that is most similar to the stored one of a condition."""
    stored = manifest.calibrations[label].device
    others: list[str] = []
    faults: list[DeviceError] = []
    if (found := _most_similar(stored, evaluator, emit, others, faults)) is not None:
        return found
    kind = manifest.objective.device
    copying = command("remeasure", manifest.name, "--device", kind, "--study", f"{manifest.name}-{kind}")
    raise DeviceError(
        f"all targets of a study must be present, but this machine has no {stored.kind} device {stored.model} for "
        f"{label}; it has {_list(others, faults)}. Use the machine of the study, or copy its networks to a "
        f"study without this target: {copying}"
    )


def _most_similar(
    stored: DeviceIdentity, evaluator: Evaluator, emit: Emit, others: list[str], faults: list[DeviceError]
) -> Target | None:
    """Returns the device of this machine that equals a stored one, or else the first one of its model, or None.

    Args:
        stored: The stored device.
        evaluator: Reads the devices.
        emit: Receives the events of the evaluator.
        others: Receives the names of devices that do not equal the stored one.
        faults: As for `_candidates`.
    """
    alike: list[Target] = []
    for target in _candidates(stored.kind, evaluator, emit, faults):
        differences = target.identity.differences(stored)
        if not differences:
            return target
        if differences.keys().isdisjoint(("kind", "model")):
            alike.append(target)
        others.append(f"{target.name} ({target.identity.model})")
    return alike[0] if alike else None


def _candidates(name: str, evaluator: Evaluator, emit: Emit, faults: list[DeviceError]) -> Iterator[Target]:
    """Yields the device of a name, or all CUDA devices of this machine for `cuda`, until the first missing one.

    Adds the error of the missing one to `faults`. It names the cause if the device exists, but does not work.
    """
    names = [name, *(f"cuda:{i}" for i in range(1, _MOST_CARDS) if name == "cuda")]
    for own in names:
        try:
            yield _read(own, evaluator, emit)
        except DeviceError as error:
            faults.append(error)
            return


def _list(others: Sequence[str], faults: Sequence[DeviceError]) -> str:
    """Returns the devices that a machine has, or why it has none."""
    return ", ".join(others) or f"none ({str(faults[0]).rstrip('.')})"
