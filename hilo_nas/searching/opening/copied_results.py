"""Copies of scores and timings from another study, if they are comparable with those of this study.

After the copy, this study does not need the other one.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hilo_nas.errors import StudyMismatchError, UsageError
from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import PROTOCOL, Measurement, ProxyPlan
from hilo_nas.measurement.condition import RANDOM_WEIGHTS
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
    "warn_of_missing_copies",
    "write_copies",
]


def check_plan(source: StoredStudy, plan: ProxyPlan) -> None:
    """Checks that the trainings of a study match a plan, as far as possible without reading the images.

    `copy_scored` checks later that the images and their mirroring are the same.

    Raises:
        StudyMismatchError: The trainings differ. The message lists the differences.
    """
    manifest = source.manifest
    check_same(manifest, dataclasses.replace(plan, hflip=manifest.plan.hflip), manifest.data)


def check_timings(source: StoredStudy, space: SearchSpace) -> None:
    """Checks that a study's timings can replace timing the networks of a space.

    Raises:
        UsageError: The timings belong to another space or timing protocol, or there are none.
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
            f"the timings must use timing protocol {PROTOCOL}, but those of study {source.name} use "
            f"{max(protocols)}. Repeat them on the machine of that study: {command('remeasure', source.address)}"
        )
    if not any(record.subject.arch is not None for record in copy_timed(source, manifest)):
        raise UsageError(
            f"study {source.name} must have a network with timings under all its conditions, but has none. Resume it: "
            f"{command('search', '--study', source.address)}"
        )


def copy_timed(source: StoredStudy, manifest: Manifest) -> list[TrialRecord]:
    """Returns the networks that a study timed under all conditions, as records of another study.

    Args:
        source: The study with the timings.
        manifest: Manifest of the other study. Its conditions and device decide which timings are comparable.
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
    """Returns a study's trained networks as waiting records of another study, members of its front first.

    Comparable timings are copied as well. Scores beyond the other study's budget are not copied, because nothing there
    is comparable with them.

    Args:
        source: The study with the scores.
        manifest: Manifest of the other study.
        forms: Current implementation of a LITv2 network, by label of the condition; see `Measurement.form`.

    Raises:
        StudyMismatchError: The trainings differ, so the scores are not comparable. The message lists the differences.
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
    """Returns the copied records that a study stores: networks with scores first, then networks with timings only.

    Scored baselines are included only if the study compares with them.

    Args:
        timed: Copies of timings. Only their networks can be tried. None if the study does its own timing.
        scored: Copies of scores.
        manifest: Manifest of the study that takes the copies.
    """
    known = {record.key: record for record in timed or ()}
    found: list[TrialRecord] = []
    for record in scored:
        if (record.is_baseline and f"timm:{record.subject.timm}" not in manifest.baselines) or (
            timed is not None and record.key not in known
        ):
            continue
        if (own := known.pop(record.key, None)) is not None:
            record = dataclasses.replace(record, measurements=own.measurements)
        found.append(record)
    return [*found, *known.values()]


def write_copies(study: StoredStudy, copies: Iterable[TrialRecord], emit: Emit) -> None:
    """Writes copies into a study. Networks that the study has already tried are not changed.

    The manifest is written first, with the expected number of records. If the process is killed in between,
    `warn_of_missing_copies` reports it.

    Args:
        study: The study, with its manifest written; this process holds its lock.
        copies: Result of `merge_copies`. They get the next free trial numbers.
        emit: Receives a notice with the number of copied scores and timings.
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
                    measurements=own.full_measurements or copy.measurements or own.measurements,
                )
            )
    if changed:
        new = sum(record.key not in stored for record in changed)
        study.write_manifest(dataclasses.replace(study.manifest, copied=len(stored) + new))
    for record in changed:
        study.write(record)
    if scored := [record for record in changed if record.scores]:
        timed = sum(bool(record.measurements) for record in scored)
        networks = f"{count_of(len(scored), 'network')} {agree(len(scored), 'has', 'have')}"
        text = f"{networks} copied scores of another study, {timed} of them also copied timings"
        emit(Notice(text=text))


def warn_of_missing_copies(study: StoredStudy, emit: Emit) -> None:
    """Emits a warning if a study lacks records that it should have copied."""
    if (missing := study.manifest.copied - len(study.records)) > 0:
        text = (
            f"{missing} of the records that study {study.name} should have copied from another study are missing, "
            "because the copying was interrupted or the records were removed. To copy them again, set study.speeds or "
            "study.reuse to that study again"
        )
        emit(Notice(level="warning", text=text))


def check_same(manifest: Manifest, plan: ProxyPlan, data: DataIdentity) -> None:
    """Checks that a study's trainings used the same plan and data. The budgets may differ.

    Args:
        manifest: Manifest of the study with the scores.
        plan: Plan of the study that would reuse the scores.
        data: Data set of the study that would reuse the scores.

    Raises:
        StudyMismatchError: The trainings differ. The message lists the differences.
    """
    if differing := _differences(manifest.plan, manifest.data, plan, data):
        lines = [f"  {name}: {theirs!r} there, {ours!r} here" for name, (theirs, ours) in differing.items()]
        raise StudyMismatchError(
            f"the scores of study {manifest.name} come from a different training, so they are not comparable:\n"
            + "\n".join([*lines, "Use the settings and the data of that study, or leave out study.reuse."])
        )


def _differences(
    their_plan: ProxyPlan, their_data: DataIdentity, plan: ProxyPlan, data: DataIdentity
) -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    if their_data.hash != data.hash:
        found["data"] = (f"{their_data.name} ({their_data.hash[:12]})", f"{data.name} ({data.hash[:12]})")
    # A training with rungs does not depend on its full budget.
    of_budget = ("images", "rungs") if plan.declaration.has_rungs else ("rungs",)
    for name in (field.name for field in dataclasses.fields(plan)):
        theirs, ours = getattr(their_plan, name), getattr(plan, name)
        if name not in of_budget and theirs != ours:
            found[f"proxy {name}"] = (theirs, ours)
    return found


def _comparable(record: TrialRecord, manifest: Manifest, forms: Mapping[str, str] | None) -> tuple[Measurement, ...]:
    """Returns the timings of a record that another study may use as its own.

    There are none without a timing under the objective, because the first timing of a record is that of the objective.

    Args:
        record: Record of the study with the timings.
        manifest: Manifest of the other study.
        forms: Current implementations of a LITv2 network; None if the other study does no timing itself.
    """
    found = tuple(
        measurement
        for measurement in record.measurements
        if not measurement.is_preliminary
        and manifest.is_comparable(measurement)
        and (forms is None or _has_form(measurement, record, forms.get(measurement.condition.label(), "")))
    )
    return found if any(manifest.rank_of(measurement) == 0 for measurement in found) else ()


def _has_form(measurement: Measurement, record: TrialRecord, form: str) -> bool:
    """Returns True if a timing has the form of LITv2, or if a baseline's has the same version of random weights."""
    if not record.is_baseline:
        return measurement.form == form
    return (RANDOM_WEIGHTS in measurement.form.split()) == (RANDOM_WEIGHTS in form.split())


def _copy(record: TrialRecord, manifest: Manifest, origin: str, state: TrialState, **results: Any) -> TrialRecord:
    """Returns a new record of a network for the study of `manifest`.

    Its origin is `origin`, or `anchor:NAME` or `baseline:NAME` if the network is an anchor or a baseline there.
    """
    if (anchor := manifest.anchor_names.get(record.key)) is not None:
        origin = f"anchor:{anchor}"
    return TrialRecord(
        number=record.number,
        subject=record.subject,
        state=state,
        params=None if record.subject.arch is None else find_params(manifest.space, record.subject.arch),
        origin=f"baseline:{record.subject.timm}" if record.is_baseline else origin,
        parameters=record.parameters,
        macs=record.macs,
        **results,
    )
