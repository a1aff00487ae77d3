"""Choosing a trial of a study: by number, by limits, or by the front's knee; and how surely it keeps limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from hilo_nas.errors import NotFoundError, TrialStateError, UsageError
from hilo_nas.space import KEPT_SURELY, LIMITS, limit_text, measured_chances, measured_values, measured_violations
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.pareto import knee
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.text.commands import command, setting_words
from hilo_nas.text.figures import probability_text

__all__ = ["Promise", "choose_trial", "promises_of"]


def choose_trial(
    study: StoredStudy,
    *,
    number: int | None = None,
    limits: Mapping[str, float] | None = None,
    at_knee: bool = False,
    at_best: bool = False,
) -> TrialRecord:
    """Returns the trial of a number, the best scored one that keeps some limits or of all, or the front's knee.

    Limits are kept by trials off the front, too: a slower network may have the shorter latency. Only trials that keep
    every limit with 95 % are chosen by accuracy. Where there is none, the most probable of those whose values keep them
    is returned, see `promises_of`.

    Args:
        study: The study.
        number: Of the trial.
        limits: By name, see `hilo_nas.space.limits`.
        at_knee: Take the knee.
        at_best: Take the best scored of all.

    Raises:
        UsageError: Not exactly one way of choosing is given, or a limit is not above 0.
        NotFoundError: There is no such trial.
        TrialStateError: The trial of that number failed, is infeasible or is still running, or is of a peer.
    """
    if [number is not None, bool(limits), at_knee, at_best].count(True) != 1:
        raise UsageError(
            "give exactly one of a trial's number, the knee, and limits (min_images_per_s, max_latency_ms or both)"
        )
    if number is not None:
        record = study.record(number)
        if record.is_peer:
            name = record.subject.timm
            raise TrialStateError(
                f"a trial must be of a network of the search, but trial {number} of study {study.name} is of the peer "
                f"{record.key}. Train that by its name: timm's train.py --model {name}."
            )
        return record
    for name, bound in (limits or {}).items():
        if not bound > 0:
            raise UsageError(f"{name} must be above 0, but got {bound:g}")
    front = study.front()
    candidates = front.candidates  # of equal ones, the fastest is chosen
    if not candidates:
        if not study.manifest.plan.declaration.gives_scores:
            way = command("search", *setting_words({"study.speeds": study.address, "study.name": "NAME"}))
            raise NotFoundError(f"study {study.name} was timed and not scored: it has no front. Search with it: {way}")
        raise NotFoundError(f"study {study.name} has no complete trial yet: see `{command('status', study.address)}`")
    if at_knee:
        return front.members[knee([(_speed(record), _top1(record)) for record in front.members])]
    if at_best:
        return max(candidates, key=_top1)
    assert limits
    chances = {record.number: min(measured_chances(limits, record.measurements).values()) for record in candidates}
    if sure := [record for record in candidates if chances[record.number] >= KEPT_SURELY]:
        return max(sure, key=_top1)
    keeping = [r for r in candidates if max(measured_violations(limits, r.measurements).values()) <= 0]
    if not keeping:
        raise _none_keeps(study.name, limits, candidates)
    return max(keeping, key=lambda record: chances[record.number])


def _none_keeps(study: str, limits: Mapping[str, float], records: Sequence[TrialRecord]) -> NotFoundError:
    """The error that tells the best value of each limit among some trials."""
    best = []
    for name in limits:
        values = [(value, r.number) for r in records if (value := measured_values(r.measurements)[name]) is not None]
        value, number = (max if LIMITS[name].is_floor else min)(values)
        best.append(f"the best, trial {number}, has {name} {value:.4g}")
    asked = " and ".join(limit_text(name, bound) for name, bound in limits.items())
    return NotFoundError(
        f"no trial of study {study} keeps {asked}; {'; '.join(best)}. Ask for less, or search on with --trials."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Promise:
    """How surely a chosen trial keeps a limit."""

    text: str
    is_sure: bool
    """Whether with at least 95 %."""


def promises_of(manifest: Manifest, record: TrialRecord, limits: Mapping[str, float] | None = None) -> list[Promise]:
    """Returns how surely a trial keeps some limits and the measured limits of its study."""
    in_force = {**manifest.limits_in_force, **(limits or {})}
    return [
        Promise(
            text=f"trial {record.number} keeps {limit_text(name, in_force[name])} with {probability_text(chance)}",
            is_sure=chance >= KEPT_SURELY,
        )
        for name, chance in measured_chances(in_force, record.measurements).items()
    ]


def _speed(record: TrialRecord) -> float:
    assert record.measurement is not None
    return record.measurement.images_per_s


def _top1(record: TrialRecord) -> float:
    assert record.score is not None
    return record.score.value
