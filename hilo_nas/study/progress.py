"""Progress, cost and conditions of a study, as values and as text."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from hilo_nas.measurement.verdicts import verdict_name
from hilo_nas.proxy.kinds import metric_named
from hilo_nas.space import limit_text
from hilo_nas.study.descriptions import describe_outlook, describe_proxy
from hilo_nas.study.further_conditions import further_targets
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.posteriors import Outlook
from hilo_nas.study.records import SAMPLED, TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.text.durations import duration
from hilo_nas.text.figures import share_text
from hilo_nas.text.plurals import count_of

__all__ = ["Progress", "describe_conditions", "describe_progress", "reasons_of", "shortened"]

_MOST_NUMBERS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a study and its cost."""

    study: str
    measured: int
    total: int
    states: dict[str, int]
    """Trials of the search by state."""
    timed_ahead: int
    """Number of networks that were timed, but not trained, when the sampler chose between them."""
    verdicts: dict[str, int]
    """Number of timings by verdict on the machine."""
    contended: list[int]
    """Trials that were timed while other processes used the cores."""
    front: list[int]
    further_fronts: dict[str, list[int]]
    """Front of each further target, by the label of its first condition."""
    untrained: list[int]
    """Trials whose score is not distinguishable from guessing."""
    baselines: dict[str, str | None]
    """States of baselines by name; None if not tried yet."""
    timing_s: float
    training_s: float
    trials_s: float
    images_trained: int
    """Number of images in trainings with the first seed of each network."""
    images_in_full: int
    """Number of images that full trainings of these networks would take."""
    images_of_further_seeds: int
    """Number of images in trainings with further seeds."""
    outlook: tuple[Outlook, ...]
    """Expected gains of further trainings, as stored at the end of the last search. Empty if the records have changed
    since."""

    @classmethod
    def of(cls, study: StoredStudy) -> Progress:
        """Returns the progress of a study that has records."""
        manifest, records, front = study.manifest, study.records, study.front()
        baselines: dict[str, str | None] = dict.fromkeys(manifest.baselines)
        baselines |= {
            record.key: record.state for record in records if record.is_baseline and record.state != TrialState.TIMED
        }
        begun = [record for record in records if record.started_at is not None]  # without copied, untried trials
        ahead = [record for record in records if record.started_at is None and record.origin == SAMPLED]
        # In studies of earlier versions, a retry has its own record with the same measurements.
        made = manifest.created_at  # copied measurements are older, and their cost belongs to another study
        timings = [(r, m) for r in (*begun, *ahead) for m in r.measurements if m.measured_at >= made]
        scores = [(r, s) for r in begun for s in r.scores if s.scored_at >= made]
        images = _images_trained(begun)
        searching = sum(next(iter(seen.values())) for seen in images.values())
        timed = [(record.number, timing) for record in records for timing in record.full_measurements[:1]]
        verdicts = Counter(name for _, measurement in timed if (name := verdict_name(measurement)))  # protocol 1: none
        return cls(
            study=study.name,
            measured=sum(map(manifest.counts, records)),
            total=manifest.trials,
            states=dict(Counter(record.state for record in records if not record.is_baseline)),
            timed_ahead=sum(record.state == TrialState.TIMED for record in ahead),
            verdicts=dict(verdicts),
            contended=[number for number, measurement in timed if measurement.contention],
            front=[record.number for record in front.members],
            further_fronts={
                (label := condition.label()): [record.number for record in study.front(label).members]
                for condition in further_targets(manifest)
            },
            untrained=[record.number for record in front.untrained],
            baselines=baselines,
            timing_s=sum({(r.key, m.measured_at, m.condition.label()): m.seconds for r, m in timings}.values()),
            training_s=sum({(r.key, s.seed, s.images_seen): s.seconds for r, s in scores}.values()),
            trials_s=sum(record.seconds for record in records),
            images_trained=searching,
            images_in_full=len(images) * manifest.plan.budgets[-1],
            images_of_further_seeds=sum(sum(seen.values()) for seen in images.values()) - searching,
            outlook=() if study.posteriors is None else study.posteriors.outlook,
        )


def describe_conditions(manifest: Manifest) -> dict[str, str]:
    """Returns what the speeds and values of a study depend on, by name."""
    device = manifest.device
    rows = {
        "space": f"{manifest.space.name} ({manifest.space.n_configs:,} combinations of knob values)",
        "target": f"{manifest.objective.label()} on {device.model} (torch {device.torch})",
        **_describe_further(manifest),
        "proxy": describe_proxy(manifest, whole=True),
        "sampler": f"{manifest.sampler}, seed {manifest.seed}",
    }
    if limits := manifest.limits_in_force:
        rows["limits"] = ", ".join(limit_text(name, bound) for name, bound in limits.items())
    if manifest.speeds:
        rows["timed by"] = f"study {manifest.speeds}"
    return rows


def _describe_further(manifest: Manifest) -> dict[str, str]:
    """Returns the conditions other than the objective, with the device of those on further targets."""
    found = []
    for condition in manifest.conditions[1:]:
        device = manifest.calibrations[condition.label()].device
        is_further = not condition.shares_target(manifest.objective)
        found.append(condition.label() + (f" on {device.model} (torch {device.torch})" if is_further else ""))
    return {"also": ", ".join(found)} if found else {}


def describe_progress(manifest: Manifest, progress: Progress) -> dict[str, str]:
    """Returns the progress and the cost of a study as text, by name."""
    timing, training = duration(progress.timing_s), duration(progress.training_s)
    states = dict(progress.states)
    if progress.timed_ahead:
        states[TrialState.TIMED] -= progress.timed_ahead
    rows = {
        "trials": ", ".join(f"{count} {state}" for state, count in sorted(states.items()) if count) or "none yet",
        "spent": f"{duration(progress.trials_s)} in trials, of which {timing} timing, {training} training",
    }
    if progress.timed_ahead:
        rows["timed"] = f"{count_of(progress.timed_ahead, 'network')} ahead, to choose which to train"
    if progress.images_in_full:
        networks = progress.images_in_full // manifest.plan.budgets[-1]
        rows["trained"] = (
            f"{progress.images_trained:,} images, {share_text(progress.images_trained / progress.images_in_full)} of "
            f"the full trainings of {'this network' if networks == 1 else f'these {networks} networks'}"
        )
        if progress.images_of_further_seeds:
            rows["trained"] += f"; {progress.images_of_further_seeds:,} more with further seeds"
    if progress.outlook:
        metric = metric_named(manifest.plan.score_metric)
        rows["outlook"] = describe_outlook(progress.outlook[-1], metric)
    if progress.further_fronts:
        rows["fronts"] = "; ".join(
            f"{label}: {f'trial {shortened(numbers)}' if numbers else 'none yet'}"
            for label, numbers in {manifest.objective.label(): progress.front, **progress.further_fronts}.items()
        )
    if progress.baselines:
        rows["baselines"] = ", ".join(
            f"{name} ({state or 'not tried yet'})" for name, state in progress.baselines.items()
        )
    if progress.untrained:
        untrained = ", ".join(map(str, progress.untrained))
        rows["untrained"] = f"trial {untrained}: the score is not distinguishable from guessing"
    if progress.verdicts:
        found = Counter(progress.verdicts).most_common()
        rows["machine"] = ", ".join(f"{count_of(count, 'timing')} {verdict}" for verdict, count in found)
        if progress.contended:
            rows["machine"] += f"; contended: trial {shortened(progress.contended)}"
    return rows


def reasons_of(records: Sequence[TrialRecord], limits: Mapping[str, float]) -> dict[str, list[int]]:
    """Returns the numbers of failed trials by reason. Broken limits are grouped by limit, because values differ."""
    reasons: dict[str, list[int]] = {}
    for record in records:
        if record.reason:
            broken = [
                limit_text(name, limits[name]) for name, by in record.violations.items() if by > 0 and name in limits
            ]
            is_beyond = record.state == TrialState.INFEASIBLE and broken
            why = f"{' and '.join(broken)} is a limit" if is_beyond else record.reason[:160]
            reasons.setdefault(f"{record.state}: {why}", []).append(record.number)
    return reasons


def shortened(numbers: Sequence[int]) -> str:
    """Returns up to 20 numbers as text, and the count of the rest."""
    more = f" and {len(numbers) - _MOST_NUMBERS} more" if len(numbers) > _MOST_NUMBERS else ""
    return ", ".join(map(str, numbers[:_MOST_NUMBERS])) + more


def _images_trained(records: Sequence[TrialRecord]) -> dict[str, dict[int, int]]:
    """Returns the number of images per key and seed, with a network's first seed first.

    The number of a training is that of its last score.
    """
    images: dict[str, dict[int, int]] = {}
    for record in records:
        for score in record.scores:
            seen = images.setdefault(record.key, {})
            seen[score.seed] = max(seen.get(score.seed, 0), score.images_seen)
    return images
