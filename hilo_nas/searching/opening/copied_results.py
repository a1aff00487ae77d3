"""Copies of what another study has paid for: scores and timings, as far as they are comparable here.

A study that copied needs the other one no more.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hilo_nas.errors import StudyMismatchError, UsageError
from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import PROTOCOL, Measurement, ProxyPlan
from hilo_nas.space import SearchSpace, find_params
from hilo_nas.study.manifest import DataIdentity, Manifest
from hilo_nas.study.records import COPIED_SPEEDS, TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.study.transitions import queue
from hilo_nas.text.commands import command
from hilo_nas.text.plurals import agree, count_of

__all__ = [
    "check_plan",
    "check_same",
    "check_timings",
    "copy_scored",
    "copy_timed",
    "merge_copies",
    "tell_of_missing",
    "write_copies",
]


def check_plan(source: StoredStudy, plan: ProxyPlan) -> None:
    """Checks that a study's trainings were those of a plan, as far as that is known before the images are looked at.

    Whether they are the same images, and may be mirrored, is left to `copy_scored`.

    Raises:
        StudyMismatchError: They were others; names what differs.
    """
    manifest = source.manifest
    check_same(manifest, dataclasses.replace(plan, hflip=manifest.plan.hflip), manifest.data)


def check_timings(source: StoredStudy, space: SearchSpace) -> None:
    """Checks that a study's timings can stand in for timing the networks of a space.

    Raises:
        UsageError: They are of another space or of another version of how networks are timed, or there is none.
    """
    manifest = source.manifest
    if manifest.space.hash() != space.hash():
        raise UsageError(
            f"the timings must be of space {space.name} ({space.hash()}), but those of study {source.name} are of "
            f"{manifest.space.name} ({manifest.space.hash()}). Search that space, or time this one: "
            f"{command('search', space.name, '--proxy', 'none')}"
        )
    protocols = {calibration.protocol for calibration in manifest.calibrations.values()}
    if protocols != {PROTOCOL}:
        raise UsageError(
            f"the timings must be of timing protocol {PROTOCOL}, but those of study {source.name} are of "
            f"{max(protocols)}. Time them again where they were taken: {command('remeasure', source.address)}"
        )
    if not any(record.subject.arch is not None for record in copy_timed(source, manifest)):
        raise UsageError(
            f"study {source.name} has no network yet that was timed under all its conditions. Resume it first: "
            f"{command('search', '--study', source.address)}"
        )


def copy_timed(source: StoredStudy, manifest: Manifest) -> list[TrialRecord]:
    """Returns the networks that a study timed under all conditions, as records of another study.

    Args:
        source: The study that timed.
        manifest: The other study's, whose conditions and device count.
    """
    labels = {condition.label() for condition in manifest.conditions}
    found = []
    for record in source.records:
        measurements = _comparable(record, manifest, None)
        if {measurement.condition.label() for measurement in measurements} >= labels:
            origin = f"{COPIED_SPEEDS}{source.name}/{record.number}"
            found.append(_copy(record, manifest, origin, TrialState.TIMED, measurements=measurements))
    return found


def copy_scored(source: StoredStudy, manifest: Manifest, forms: Mapping[str, str]) -> list[TrialRecord]:
    """Returns a study's trained networks as records of another study, those on its front first.

    They are `waiting`. Timings that are comparable come along. Scores beyond the other study's budget stay behind:
    nothing there would be comparable with them.

    Args:
        source: The study that trained.
        manifest: The other study's.
        forms: Implementation that a LITv2 is timed in now, by the condition's label; see `Measurement.form`.

    Raises:
        StudyMismatchError: Its trainings were others, so its scores could not be compared; names what differs.
    """
    check_same(source.manifest, manifest.plan, manifest.data)
    front = {record.number for record in source.front().members}
    budget = manifest.plan.budgets[-1]
    found = [
        _copy(
            record,
            manifest,
            f"reuse:{source.name}/{record.number}",
            TrialState.WAITING,
            measurements=_comparable(record, manifest, forms),
            scores=scores,
        )
        for record in source.records
        if record.state.is_scored and (scores := tuple(s for s in record.scores if s.images_seen <= budget))
    ]
    return sorted(found, key=lambda record: (record.number not in front, record.number))


def merge_copies(
    timed: Sequence[TrialRecord] | None, scored: Sequence[TrialRecord], manifest: Manifest
) -> list[TrialRecord]:
    """Returns the copies that a study takes: what is to be tried first, then what was only timed.

    Baselines with scores come along where the study compares with them.

    Args:
        timed: Copies of timings; None where networks are timed here. Otherwise only these can be tried.
        scored: Copies of scores.
        manifest: The study's.
    """
    known = {record.key: record for record in timed or ()}
    found: list[TrialRecord] = []
    for record in scored:
        if (record.is_peer and f"timm:{record.subject.timm}" not in manifest.peers) or (
            timed is not None and record.key not in known
        ):
            continue
        if (own := known.pop(record.key, None)) is not None:
            record = dataclasses.replace(record, measurements=own.measurements)
        found.append(record)
    return [*found, *known.values()]


def write_copies(study: StoredStudy, copies: Iterable[TrialRecord], emit: Emit) -> None:
    """Writes copies into a study that holds its lock; a network that it has tried is left alone.

    The manifest is written first, with the number of records that there are to be, so that a kill in between is seen
    by `tell_of_missing`.

    Args:
        study: The study; its manifest is written.
        copies: As `merge_copies` returns them; their numbers become the next ones here.
        emit: Told how many scores and timings were copied.
    """
    stored = {record.key: record for record in study.records}
    numbers = itertools.count(max((record.number for record in study.records), default=-1) + 1)
    changed = []
    for copy in copies:
        own = stored.get(copy.key)
        if own is None:
            changed.append(dataclasses.replace(copy, number=next(numbers)))
        elif own.is_open and copy.scores and not own.scores:
            changed.append(
                queue(
                    own,
                    origin=copy.origin,
                    scores=copy.scores,
                    measurements=own.measurements or copy.measurements,
                )
            )
    if changed:
        new = sum(record.key not in stored for record in changed)
        study.write_manifest(dataclasses.replace(study.manifest, copied=len(stored) + new))
    for record in changed:
        study.write(record)
    if scored := [record for record in changed if record.scores]:
        timed = sum(bool(record.measurements) for record in scored)
        networks = f"{count_of(len(scored), 'network')} {agree(len(scored), 'comes', 'come')}"
        text = f"{networks} with the scores of another study, {timed} of them with timings"
        emit(Notice(text=text))


def tell_of_missing(study: StoredStudy, emit: Emit) -> None:
    """Warns where a study lacks records that it was to copy."""
    if (missing := study.manifest.copied - len(study.records)) > 0:
        text = (
            f"{missing} of the records that study {study.name} was to copy from another study are not there: the "
            "copying was cut off, or they were moved away. To copy them again, name that study as study.speeds or "
            "study.reuse as before"
        )
        emit(Notice(level="warning", text=text))


def check_same(manifest: Manifest, plan: ProxyPlan, data: DataIdentity) -> None:
    """Checks that a study's trainings were those of a plan on the same data; its budgets may be others.

    Args:
        manifest: The study's.
        plan: How the networks are trained that would take its scores over.
        data: What they are trained on.

    Raises:
        StudyMismatchError: They were others; names what differs.
    """
    if differing := _differences(manifest.plan, manifest.data, plan, data):
        lines = [f"  {name}: {theirs!r} there, {ours!r} here" for name, (theirs, ours) in differing.items()]
        raise StudyMismatchError(
            f"the scores of study {manifest.name} come from another training, so they could not be compared:\n"
            + "\n".join([*lines, "Give the settings and the data of that study, or leave out study.reuse."])
        )


def _differences(
    their_plan: ProxyPlan, their_data: DataIdentity, plan: ProxyPlan, data: DataIdentity
) -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    if their_data.hash != data.hash:
        found["data"] = (f"{their_data.name} ({their_data.hash[:12]})", f"{data.name} ({data.hash[:12]})")
    # A training without a horizon is the same up to any budget.
    of_budget = ("images", "rungs") if plan.declaration.has_rungs else ("rungs",)
    for name, ours in plan.to_dict().items():
        if name in of_budget:
            continue
        theirs = getattr(their_plan, name)
        if theirs != ours:
            found[f"proxy {name}"] = (theirs, ours)
    return found


def _comparable(record: TrialRecord, manifest: Manifest, forms: Mapping[str, str] | None) -> tuple[Measurement, ...]:
    """Returns a record's timings that another study may count as its own.

    Args:
        record: Of the study that timed.
        manifest: The other study's.
        forms: Implementations of a LITv2 now; None where the other study times nothing itself.
    """
    return tuple(
        measurement
        for measurement in record.measurements
        if manifest.is_comparable(measurement)
        and (forms is None or record.is_peer or measurement.form == forms.get(measurement.condition.label()))
    )


def _copy(record: TrialRecord, manifest: Manifest, origin: str, state: TrialState, **results: Any) -> TrialRecord:
    """Returns a record of the same network in another study; anchors and baselines keep their names as origins."""
    if (anchor := manifest.anchor_names.get(record.key)) is not None:
        origin = f"anchor:{anchor}"
    return TrialRecord(
        number=record.number,
        subject=record.subject,
        state=state,
        params=None if record.subject.arch is None else find_params(manifest.space, record.subject.arch),
        origin=f"peer:{record.subject.timm}" if record.is_peer else origin,
        parameters=record.parameters,
        macs=record.macs,
        **results,
    )
