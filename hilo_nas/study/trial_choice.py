"""Choice of a trial by number, limits or the knee of the front, and what a recommendation means.

Every choice is made under uncertainty. `Recommendation` states how likely the trial meets its limits, and how likely it
is the best of those that do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from hilo_nas.errors import NotFoundError, TrialStateError, UsageError
from hilo_nas.proxy.kinds import metric_named
from hilo_nas.space import KEPT_SURELY, LIMITS, limit_text, measured_chances, measured_values, measured_violations
from hilo_nas.study.front import Front
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.pareto import knee
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.text.commands import command, setting_words
from hilo_nas.text.figures import probability_text

__all__ = ["Promise", "Recommendation", "choose_trial", "promises_of", "recommend"]

_WORTH_NAMING = 0.05
"""Minimum probability at which another trial is named as possibly the best."""
_MOST_RIVALS = 5


def choose_trial(
    study: StoredStudy,
    *,
    number: int | None = None,
    limits: Mapping[str, float] | None = None,
    min_value: float | None = None,
    at_knee: bool = False,
    at_best: bool = False,
) -> TrialRecord:
    """Returns one trial: by number, the best within limits, the best of all, or the knee of the front.

    With `limits`, the candidates are all complete trials, not only those on the front, because a slower network may
    have a lower latency. The best score wins among the trials that meet every limit with at least 95 % probability. If
    there is none, the result is the most probable of the trials whose measured values meet the limits. `promises_of`
    returns the probabilities. With `min_value`, the fastest trial wins instead of the best score.

    Args:
        study: The study.
        number: Number of the trial.
        limits: Limits by name, as in `hilo_nas.space.limits`.
        min_value: Minimum value, an additional limit.
        at_knee: Choose the knee of the front.
        at_best: Choose the trial with the best score.

    Raises:
        UsageError: Not exactly one way of choosing is given, or a limit is not above 0.
        NotFoundError: There is no such trial.
        TrialStateError: The trial with that number failed, is infeasible, is still running, or is a baseline.
    """
    if [number is not None, bool(limits) or min_value is not None, at_knee, at_best].count(True) != 1:
        raise UsageError("give exactly one of a trial's number, the knee, and limits, such as min_images_per_s")
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
        return front.members[knee([(_speed_of(record), _value_of(record)) for record in front.members])]
    if at_best:
        return max(candidates, key=_value_of)
    limits = limits or {}
    for name in limits:
        if all(measured_values(record.measurements)[name] is None for record in candidates):
            raise UsageError(
                f"{limit_text(name, limits[name])} cannot be checked: study {study.name} did not measure it"
            )
    chances = _chances(front, limits, min_value)
    if sure := [record for record in candidates if chances[record.number] >= KEPT_SURELY]:
        return max(sure, key=_value_of if min_value is None else _speed_of)
    keeping = [
        record
        for record in candidates
        if max(measured_violations(limits, record.measurements).values(), default=0.0) <= 0
        and (min_value is None or front.points[record.number].likely_value >= min_value)
    ]
    if not keeping:
        raise _none_keeps(study, limits, min_value, candidates)
    return max(keeping, key=lambda record: chances[record.number])


def _chances(front: Front, limits: Mapping[str, float], min_value: float | None) -> dict[int, float]:
    """Returns the probability of each candidate that it meets the limit that it meets least probably."""
    found = {}
    for record in front.candidates:
        chances = list(measured_chances(limits, record.measurements).values())
        if min_value is not None:
            chances.append(front.points[record.number].probability_at_least(min_value, front.seed_noise))
        found[record.number] = min(chances)
    return found


def _none_keeps(
    study: StoredStudy, limits: Mapping[str, float], min_value: float | None, records: Sequence[TrialRecord]
) -> NotFoundError:
    """Returns the error for limits that no trial meets. It names the best value of each limit."""
    best = []
    metric = metric_named(study.manifest.plan.score_metric)
    for name in limits:
        values = [(value, r.number) for r in records if (value := measured_values(r.measurements)[name]) is not None]
        value, number = (max if LIMITS[name].is_floor else min)(values)
        best.append(f"the best, trial {number}, has {name} {value:.4g}")
    asked = " and ".join(limit_text(name, bound) for name, bound in limits.items())
    if min_value is not None:
        top = max(records, key=_value_of)
        best.append(f"the best, trial {top.number}, has {metric.label} {metric.text(_value_of(top))}")
        asked = " and ".join(filter(None, (asked, f"{metric.label} >= {metric.text(min_value)}")))
    return NotFoundError(
        f"no trial of study {study.title} meets {asked}; {'; '.join(best)}. Relax the limits, or resume the search "
        "with --trials."
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
            text=f"trial {record.number} meets {limit_text(name, in_force[name])} {_likely(chance)}",
            is_sure=chance >= KEPT_SURELY,
        )
        for name, chance in measured_chances(in_force, record.measurements).items()
    ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recommendation:
    """A chosen trial, the rule that chose it, and how sure the choice is."""

    record: TrialRecord
    rule: str
    """The rule as a noun phrase, such as `the best score among ...`."""
    promises: tuple[Promise, ...]
    """Probability that the trial meets each limit."""
    best_probabilities: Mapping[int, float]
    """Probability of each candidate that it is the best of those that meet the limits, by trial number, highest first.
    Empty for the knee, which follows from the measured values."""

    def sentences(self) -> list[str]:
        """Returns the recommendation and its uncertainty as sentences."""
        number = self.record.number
        found = [f"trial {number} is recommended: {self.rule}"]
        found += [promise.text if promise.is_sure else f"warning: {promise.text} only" for promise in self.promises]
        if self.best_probabilities:
            own = self.best_probabilities.get(number, 0.0)
            others = [(n, p) for n, p in self.best_probabilities.items() if n != number and p >= _WORTH_NAMING]
            text = f"it is truly the best of them with a probability of {probability_text(own)}"
            if others:
                named = ", ".join(f"trial {n} {probability_text(p)}" for n, p in others[:_MOST_RIVALS])
                text += f" ({named}), given the errors of speeds and scores"
            found.append(text)
        return found


def recommend(
    study: StoredStudy,
    *,
    limits: Mapping[str, float] | None = None,
    min_value: float | None = None,
    at_knee: bool = False,
) -> Recommendation:
    """Returns the trial that `choose_trial` chooses, with the rule and its uncertainty.

    Args:
        study: The study.
        limits: Limits by name, as in `hilo_nas.space.limits`.
        min_value: Minimum value.
        at_knee: Choose the knee of the front.

    Raises:
        UsageError: Limits and the knee are given, or neither, or a limit is not above 0.
        NotFoundError: No trial meets the limits.
    """
    record = choose_trial(study, limits=limits, min_value=min_value, at_knee=at_knee)
    promises = promises_of(study.manifest, record, limits)
    if at_knee:
        rule = "the knee of the front, where both a higher speed and a higher score cost most"
        return Recommendation(record=record, rule=rule, promises=tuple(promises), best_probabilities={})
    from hilo_nas.study.simulation import simulate_best  # imports numpy

    front, metric = study.front(), metric_named(study.manifest.plan.score_metric)
    texts = [limit_text(name, bound) for name, bound in (limits or {}).items()]
    if min_value is not None:
        chance = front.points[record.number].probability_at_least(min_value, front.seed_noise)
        texts.append(f"{metric.label} >= {metric.text(min_value)}")
        text = f"trial {record.number} meets {texts[-1]} {_likely(chance)}"
        promises.append(Promise(text=text, is_sure=chance >= KEPT_SURELY))
    asked, chances = " and ".join(texts), _chances(front, limits or {}, min_value)
    best = "the best score" if min_value is None else "the highest speed"
    rule = f"{best} among the networks that meet {asked} with a probability of at least {KEPT_SURELY:.0%}"
    if chances[record.number] < KEPT_SURELY:
        rule = f"no network meets {asked} with a probability of {KEPT_SURELY:.0%}, and this one is the most probable"
    candidates = [front.points[own.number] for own in front.candidates]
    probabilities = simulate_best(candidates, chances, noise=front.seed_noise, by_speed=min_value is not None)
    return Recommendation(record=record, rule=rule, promises=tuple(promises), best_probabilities=probabilities)


def _likely(chance: float) -> str:
    return f"with a probability of {probability_text(chance)}"


def _speed_of(record: TrialRecord) -> float:
    assert record.measurement is not None
    return record.measurement.images_per_s


def _value_of(record: TrialRecord) -> float:
    assert record.score is not None
    return record.score.value
