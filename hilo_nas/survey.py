"""Timing without a search: networks that are named, side by side, or a sample of a space into a table of speeds."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hilo_nas.arch import PRESETS, load_arch
from hilo_nas.clock import utc_now
from hilo_nas.cost import count_cost
from hilo_nas.errors import HiloNasError, NotFoundError, StudyMismatchError, UsageError
from hilo_nas.events import Emit, NetworksTimed, Notice
from hilo_nas.measure import Cohort, Entrant, Ruler
from hilo_nas.measurement import PROTOCOL, Calibration, Condition, Measurement
from hilo_nas.records import Subject, TrialRecord, forms_under
from hilo_nas.space import SearchSpace, draw_networks
from hilo_nas.speeds import SpeedFolder, SpeedSetting
from hilo_nas.states import TrialState
from hilo_nas.study import Study, open_study
from hilo_nas.transitions import fail
from hilo_nas.versions import versions

__all__ = ["NamedNetwork", "add_speeds", "find_network", "sample_speeds", "time_networks"]

_TOGETHER = 16
"""Networks of a sample that are timed in the same rounds; each such cohort is stored as soon as it is timed."""
_DRAWS_PER_NETWORK = 50
"""Draws per network asked for, after which a space counts as used up."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedNetwork:
    """A network that a user named."""

    name: str
    """As it was named."""
    subject: dict[str, Any]
    """What `Entrant.subject` takes."""
    defaults: dict[str, Any]
    """Fields of the condition, and `num_classes`, that its study timed it under; empty for others."""


def find_network(name: str, studies_dir: Path | None = None) -> NamedNetwork:
    """Returns the network of a name: `STUDY:TRIAL`, `timm:NAME`, `onnx:FILE`, a preset, or an architecture's YAML file.

    Raises:
        NotFoundError: There is no such study, trial or file.
        UsageError: The name is of no such form.
        ArchError: The file holds no architecture.
    """
    head, colon, tail = name.rpartition(":")
    if name in PRESETS:
        return NamedNetwork(name=name, subject={"arch": PRESETS[name].to_dict()}, defaults={})
    if name.startswith("timm:"):
        return NamedNetwork(name=name, subject={"timm": name.removeprefix("timm:")}, defaults={})
    if name.startswith("onnx:"):
        path = Path(name.removeprefix("onnx:"))
        if not path.is_file():
            raise NotFoundError(f"there is no file {path}, named by {name}")
        return NamedNetwork(name=name, subject={"onnx": str(path.absolute())}, defaults={})
    if colon and tail.isdigit():
        return _find_trial(name, open_study(head, studies_dir), int(tail))
    if name.endswith((".yaml", ".yml")):
        return NamedNetwork(name=name, subject={"arch": load_arch(Path(name)).to_dict()}, defaults={})
    raise UsageError(
        f"a network must be named as STUDY:TRIAL, timm:NAME, onnx:FILE, an architecture's .yaml file or one of "
        f"{', '.join(PRESETS)}, but got {name!r}. To time a sample of a space, add --sample N."
    )


def _find_trial(name: str, study: Study, number: int) -> NamedNetwork:
    manifest = study.manifest
    records = {record.number: record for record in study.records}
    if number not in records:
        raise NotFoundError(f"study {study.name} has no trial {number}: its trials are {', '.join(map(str, records))}")
    objective = manifest.objective.to_dict()
    return NamedNetwork(
        name=name,
        subject=records[number].subject.to_dict(),
        defaults={**objective, "num_classes": manifest.data.num_classes},
    )


def time_networks(
    networks: Sequence[NamedNetwork],
    condition: Condition,
    ruler: Ruler,
    emit: Emit,
    *,
    num_classes: int,
    seconds_each: float | None = None,
) -> Cohort:
    """Returns the speeds of named networks under one condition, side by side.

    Raises:
        DeviceError: This machine does not have the device.
        MeasurementError: The reference network does not fit.
    """
    entrants = {
        network.name: Entrant(
            subject=network.subject, condition=condition, num_classes=network.defaults.get("num_classes", num_classes)
        )
        for network in networks
    }
    return ruler.measure_cohort(entrants, emit, seconds_each=seconds_each)


def sample_speeds(
    space: SearchSpace,
    conditions: Sequence[Condition],
    folder: SpeedFolder,
    ruler: Ruler,
    emit: Emit,
    *,
    networks: int,
    num_classes: int,
    seed: int = 0,
    seconds_each: float | None = None,
) -> list[TrialRecord]:
    """Times a sample of a space into a table of speeds, and returns its records; goes on with one that was begun.

    The space's anchors come first, then networks drawn within its limits on params and MACs; see `hilo_nas.space.draw`.

    Args:
        space: The space.
        conditions: The first is the objective of a search that takes the table.
        folder: Where the table is, or is to be.
        ruler: Times.
        emit: Told of the timing.
        networks: How many networks the table is to hold; fewer where the space does not hold so many.
        num_classes: Outputs of their classifiers.
        seed: Of the draws.
        seconds_each: Seconds that each network is timed for at most, under each condition.

    Raises:
        StudyMismatchError: The table was begun under another objective, or on another device. Further conditions are
            added to it.
        StorageError: The folder cannot be written.
        HiloNasError: The networks cannot be timed.
    """
    setting = _open_table(space, conditions, folder, ruler, emit, num_classes)
    setting = _add_conditions(setting, conditions, folder, ruler, emit, seconds_each)
    known = {record.key for record in folder.load_all()}
    wanted = _draw(space, setting, networks, seed)
    missing = {key: subject for key, subject in wanted.items() if key not in known}
    number = max((record.number for record in folder.load_all()), default=-1)
    keys = list(missing)
    for first in range(0, len(keys), _TOGETHER):
        group = {key: missing[key] for key in keys[first : first + _TOGETHER]}
        start = time.monotonic()
        measured, failures = _time_group(group, setting, ruler, emit, seconds_each)
        for key, subject in group.items():
            number += 1
            share_s = (time.monotonic() - start) / len(group)
            folder.write_record(_record(number, subject, setting, measured.get(key, ()), failures.get(key), share_s))
        emit(NetworksTimed(done=len(known) + min(first + _TOGETHER, len(keys)), total=len(known) + len(keys)))
    return folder.load_all()


def add_speeds(
    networks: Sequence[NamedNetwork],
    folder: SpeedFolder,
    ruler: Ruler,
    emit: Emit,
    *,
    seconds_each: float | None = None,
) -> list[TrialRecord]:
    """Times named networks into a table of speeds that is there, under its conditions; returns their records.

    Those that the table holds already are not timed again.

    Raises:
        NotFoundError: There is no table.
        UsageError: A network is neither an architecture nor one of timm's.
        StudyMismatchError: The table was made on another device.
        HiloNasError: The networks cannot be timed.
    """
    stored = folder.load_setting()
    if others := [network.name for network in networks if not set(network.subject) <= {"arch", "timm"}]:
        raise UsageError(f"a table of speeds holds architectures and networks of timm's, but got {', '.join(others)}")
    setting = _open_table(stored.space, stored.conditions, folder, ruler, emit, stored.num_classes)
    wanted = {subject.key: subject for subject in (Subject.from_dict(network.subject) for network in networks)}
    known = folder.load_records()
    missing = {key: subject for key, subject in wanted.items() if key not in known}
    measured, failures = _time_group(missing, setting, ruler, emit, seconds_each) if missing else ({}, {})
    number = max((record.number for record in folder.load_all()), default=-1)
    for key, subject in missing.items():
        number += 1
        folder.write_record(_record(number, subject, setting, measured.get(key, ()), failures.get(key), 0.0))
    if failures:
        emit(Notice(level="warning", text="; ".join(f"{key} was not timed: {e}" for key, e in failures.items())))
    return [record for key, record in folder.load_records().items() if key in wanted]


def _open_table(
    space: SearchSpace,
    conditions: Sequence[Condition],
    folder: SpeedFolder,
    ruler: Ruler,
    emit: Emit,
    num_classes: int,
) -> SpeedSetting:
    """Returns the table's setting: a new one, or the stored one if it is the same."""
    device = ruler.identity_of(conditions[0].device, emit)
    if folder.exists:
        stored = folder.load_setting()
        if stored.conditions[0] == conditions[0] and set(stored.conditions) < set(conditions):
            conditions = stored.conditions  # the others are added
        differing = _differences(stored, space, conditions, num_classes)
        differing |= {f"device {name}": pair for name, pair in stored.device.differences(device).items()}
        differing = differing or _differing_forms(folder, conditions, ruler, emit)
        if differing:
            lines = [f"  {name}: {theirs!r} in the table, {ours!r} now" for name, (theirs, ours) in differing.items()]
            raise StudyMismatchError(
                f"the speeds in {folder.path} were taken under other conditions, so they could not be compared:\n"
                + "\n".join([*lines, "Leave out what differs, or save to another folder."])
            )
        return stored
    calibrations = {condition.label(): ruler.calibrate(condition, emit) for condition in conditions}
    setting = SpeedSetting(
        space=space,
        conditions=tuple(conditions),
        device=device,
        calibrations=calibrations,
        num_classes=num_classes,
        versions=versions(),
        created_at=utc_now(),
    )
    folder.write_setting(setting)
    return setting


def _add_conditions(
    setting: SpeedSetting,
    conditions: Sequence[Condition],
    folder: SpeedFolder,
    ruler: Ruler,
    emit: Emit,
    seconds_each: float | None,
) -> SpeedSetting:
    """Times a table's networks under the conditions that it does not have; returns its setting with these.

    The setting is written last: until then, a table that was interrupted is as it was, and what was timed is kept.
    """
    added = [condition for condition in conditions if condition not in setting.conditions]
    if not added:
        return setting
    calibrations = {condition.label(): ruler.calibrate(condition, emit) for condition in added}
    only = dataclasses.replace(setting, conditions=tuple(added), calibrations=calibrations)
    labels = set(calibrations)
    due = [r for r in folder.load_records().values() if not labels <= set(r.measurements_by_condition())]
    for first in range(0, len(due), _TOGETHER):
        group = {record.key: record for record in due[first : first + _TOGETHER]}
        subjects = {key: record.subject for key, record in group.items()}
        measured, failures = _time_group(subjects, only, ruler, emit, seconds_each)
        for key, record in group.items():
            stored = tuple(m for m in record.measurements if m.condition.label() not in labels)
            changed = dataclasses.replace(record, measurements=(*stored, *measured.get(key, ())))
            if key in failures:
                changed = fail(changed, str(failures[key]))
            folder.write_record(changed)
        emit(NetworksTimed(done=first + len(group), total=len(due)))
    setting = dataclasses.replace(
        setting,
        conditions=(*setting.conditions, *added),
        calibrations={**setting.calibrations, **calibrations},
    )
    folder.write_setting(setting)
    return setting


def _differences(
    stored: SpeedSetting, space: SearchSpace, conditions: Sequence[Condition], num_classes: int
) -> dict[str, tuple[Any, Any]]:
    pairs = {
        "space": (f"{stored.space.name} ({stored.space.hash()})", f"{space.name} ({space.hash()})"),
        "conditions": (
            [condition.label() for condition in stored.conditions],
            [condition.label() for condition in conditions],
        ),
        "num_classes": (stored.num_classes, num_classes),
        "timing protocol": (max((c.protocol for c in stored.calibrations.values()), default=None), PROTOCOL),
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _differing_forms(
    folder: SpeedFolder, conditions: Sequence[Condition], ruler: Ruler, emit: Emit
) -> dict[str, tuple[Any, Any]]:
    """The implementations of LITv2 that the table's networks were timed in, where this version runs another."""
    found: dict[str, tuple[Any, Any]] = {}
    records = folder.load_all()
    for condition in conditions:
        stored = forms_under(condition.label(), records)
        if stored and (other := sorted(stored - {now := ruler.read_form(condition, emit)})):
            found[f"form under {condition.label()}"] = (other[0], now)
    return found


def _draw(space: SearchSpace, setting: SpeedSetting, networks: int, seed: int) -> dict[str, Subject]:
    """Returns so many distinct networks by key, the same ones for the same seed."""
    drawn = draw_networks(
        space,
        space.limits,
        img_size=setting.conditions[0].img_size,
        num_classes=setting.num_classes,
        draws=_DRAWS_PER_NETWORK * networks,
        seed=seed,
    )
    found: dict[str, Subject] = {}
    for arch in itertools.chain((anchor.arch for anchor in space.anchors), (arch for arch, _ in drawn)):
        found.setdefault(arch.key(), Subject(arch=arch))
        if len(found) >= networks:
            break
    return found


def _time_group(
    group: Mapping[str, Subject],
    setting: SpeedSetting,
    ruler: Ruler,
    emit: Emit,
    seconds_each: float | None,
) -> tuple[dict[str, tuple[Measurement, ...]], dict[str, HiloNasError]]:
    """Returns each network's measurements, one per condition, and why some have none."""
    measured: dict[str, tuple[Measurement, ...]] = dict.fromkeys(group, ())
    failures: dict[str, HiloNasError] = {}
    for condition in setting.conditions:
        calibration: Calibration = setting.calibrations[condition.label()]
        entrants = {
            key: Entrant(subject=subject.to_dict(), condition=condition, num_classes=setting.num_classes)
            for key, subject in group.items()
            if key not in failures
        }
        cohort = ruler.measure_cohort(entrants, emit, calibration=calibration, seconds_each=seconds_each)
        failures |= cohort.failures
        for key, measurement in cohort.measurements.items():
            measured[key] = (*measured[key], measurement)
    return {key: own for key, own in measured.items() if key not in failures}, failures


def _record(
    number: int,
    subject: Subject,
    setting: SpeedSetting,
    measurements: tuple[Measurement, ...],
    failure: HiloNasError | None,
    seconds: float,
) -> TrialRecord:
    params, cost = None, None
    if subject.arch is not None:
        with contextlib.suppress(UsageError):  # an anchor outside the space
            params = setting.space.encode(subject.arch)
        cost = count_cost(subject.arch, setting.conditions[0].img_size, num_classes=setting.num_classes)
    return TrialRecord(
        number=number,
        subject=subject,
        state=TrialState.TIMED if failure is None else TrialState.FAILED,
        params=params,
        origin="sample" if subject.arch is not None else f"peer:{subject.timm}",
        reason=None if failure is None else str(failure),
        parameters=None if cost is None else cost.parameters,
        macs=None if cost is None else cost.macs,
        measurements=measurements,
        finished_at=utc_now(),
        seconds=seconds,
    )
