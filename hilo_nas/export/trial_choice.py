"""Choice of a trial by number, limits or the knee of the front, and the probability that it meets the limits."""

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
    """Returns one trial: by number, the best within limits, the best of all, or the knee of the front.

    With `limits`, the candidates are all complete trials, not only those on the front, because a slower network may
    have a lower latency. The best score wins among the trials that meet every limit with at least 95 % probability. If
    there is none, the result is the most probable of the trials whose measured values meet the limits. `promises_of`
    returns the probabilities.

    Args:
        study: The study.
        number: Number of the trial.
        limits: Limits by name, as in `hilo_nas.space.limits`.
        at_knee: Choose the knee of the front.
        at_best: Choose the trial with the best score.

    Raises:
        UsageError: Not exactly one way of choosing is given, or a limit is not above 0.
        NotFoundError: There is no such trial.
        TrialStateError: The trial with that number failed, is infeasible, is still running, or is a baseline.
    """
    if [number is not None, bool(limits), at_knee, at_best].count(True) != 1:
        raise UsageError(
            "give exactly one of a trial's number, the knee, and limits (min_images_per_s, max_latency_ms or both)"
        )
    if number is not None:
        record = study.record(number)
        if record.is_baseline:
            name = record.subject.timm
            raise TrialStateError(
                f"the trial must be of the search space, but trial {number} of study {study.name} is the baseline "
                f"{record.key}. Train it by its name with timm's train.py --model {name}."
            )
        return record
    for name, bound in (limits or {}).items():
        if not bound > 0:
            raise UsageError(f"{name} must be above 0, but got {bound:g}")
    front = study.front()
    candidates = front.candidates  # the fastest wins a tie
    if not candidates:
        if not study.manifest.plan.declaration.gives_scores:
            way = command("search", *setting_words({"study.speeds": study.address, "study.name": "NAME"}))
            raise NotFoundError(
                f"study {study.name} has timings but no scores, so it has no front. Search with its timings: {way}"
            )
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
    """Returns the error for limits that no trial meets. It names the best value of each limit."""
    best = []
    for name in limits:
        values = [(value, r.number) for r in records if (value := measured_values(r.measurements)[name]) is not None]
        value, number = (max if LIMITS[name].is_floor else min)(values)
        best.append(f"the best, trial {number}, has {name} {value:.4g}")
    asked = " and ".join(limit_text(name, bound) for name, bound in limits.items())
    return NotFoundError(
        f"no trial of study {study} meets {asked}; {'; '.join(best)}. Relax the limits, or resume the search with "
        "--trials."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Promise:
    """Probability that a chosen trial meets one limit."""

    text: str
    is_sure: bool
    """True if the trial meets the limit with a probability of at least 95 %."""


def promises_of(manifest: Manifest, record: TrialRecord, limits: Mapping[str, float] | None = None) -> list[Promise]:
    """Returns the probabilities that a trial meets the given limits and the measured limits of its study."""
    in_force = {**manifest.limits_in_force, **(limits or {})}
    return [
        Promise(
            text=f"trial {record.number} meets {limit_text(name, in_force[name])} with {probability_text(chance)}",
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
