"""Estimate, before a search, of the share of networks that meet the limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from hilo_nas.evaluation import Evaluator
from hilo_nas.events import Emit, LimitsForeseen, Notice
from hilo_nas.measurement import Measurement
from hilo_nas.searching.opening.study_setup import StudySetup
from hilo_nas.searching.tasks.study_tasks import time_together
from hilo_nas.space import LIMITS, draw_networks, limit_text, measured_values, measured_violations
from hilo_nas.study.records import Subject

__all__ = ["LimitSample", "estimate_limits", "has_measured_limits"]

_NETWORKS = 12
_SMALLEST_OF = 500
"""Number of random networks among which the smallest by multiply-adds are selected."""
_SMALLEST = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class LimitSample:
    """A sample of the space's networks that was timed to check the limits."""

    event: LimitsForeseen
    """Estimated share of networks that meet the limits, as emitted."""
    feasible: tuple[Subject, ...]
    """Networks of the sample that meet the limits."""

    @property
    def share(self) -> float:
        """Estimated share of networks that meet the limits, from 0 to 1: the midpoint of the interval."""
        return (self.event.share_low + self.event.share_high) / 2

    @property
    def sentence(self) -> str:
        """The number of networks of the sample that meet the limits, as a sentence."""
        event = self.event
        kind = "random networks" if event.timed_by is None else f"networks timed in study {event.timed_by}"
        return (
            f"{event.keeping} of {event.networks} {kind} meet {' and '.join(event.limits)}; only such networks are "
            "trained"
        )


def estimate_limits(setup: StudySetup, evaluator: Evaluator, emit: Emit) -> LimitSample | None:
    """Times a sample of networks and returns the estimated share that meets the limits on measured quantities.

    Returns None if no limit needs a measurement, or if no network could be timed. The sample consists of random
    networks within the limits on params and MACs (`hilo_nas.space.draw`). The two networks with the fewest
    multiply-adds among 500 random ones are timed too. If even they violate a limit, the space probably contains no
    network that meets it.
    """
    limits = {**setup.space.limits, **setup.limits}
    measured = _measured_limits(setup)
    if not measured:
        return None
    drawn, smallest = _draw(setup, limits)
    found = _measure({**drawn, **smallest}, setup, evaluator, emit)
    names = tuple(limit_text(name, bound) for name, bound in measured.items())
    if not found:
        text = (
            f"the share of networks with {' and '.join(names)} is unknown, because no network was found that meets the "
            "limits on params and MACs and can be timed"
        )
        emit(Notice(level="warning", text=text))
        return None
    keeping = {key: max(measured_violations(measured, own).values()) <= 0 for key, own in found.items()}
    sample = {key: keeping[key] for key in (found if setup.timed else drawn) if key in keeping}
    low, high = _share_interval(sum(sample.values()), len(sample))
    estimated = LimitsForeseen(
        limits=names,
        networks=len(sample),
        keeping=sum(sample.values()),
        share_low=low,
        share_high=high,
        smallest_keeps=any(keeping[key] for key in smallest if key in keeping),
        seen=tuple(_range_of(name, found) for name in measured),
        timed_by=setup.timed_by,
    )
    emit(estimated)
    subjects = {record.key: record.subject for record in setup.timed} if setup.timed else drawn
    return LimitSample(event=estimated, feasible=tuple(subjects[key] for key, keeps in sample.items() if keeps))


def has_measured_limits(setup: StudySetup) -> bool:
    """Returns True if a study has limits that need a measurement."""
    return bool(_measured_limits(setup))


def _measured_limits(setup: StudySetup) -> dict[str, float]:
    limits = {**setup.space.limits, **setup.limits}
    return {name: bound for name, bound in limits.items() if not LIMITS[name.partition("@")[0]].is_free}


def _draw(setup: StudySetup, limits: Mapping[str, float]) -> tuple[dict[str, Subject], dict[str, Subject]]:
    """Returns the random sample and the smallest of many networks, by key."""
    networks = list(
        draw_networks(
            setup.space,
            limits,
            img_size=setup.conditions[0].img_size,
            num_classes=setup.data.num_classes,
            draws=_SMALLEST_OF,
        )
    )
    smallest = sorted(networks, key=lambda network: network[1].macs)[:_SMALLEST]
    drawn, small = ({arch.key(): Subject(arch=arch) for arch, _ in some} for some in (networks[:_NETWORKS], smallest))
    return drawn, small


def _measure(
    subjects: Mapping[str, Subject],
    setup: StudySetup,
    evaluator: Evaluator,
    emit: Emit,
) -> dict[str, list[Measurement]]:
    """Returns short measurements of the networks under each condition.

    Networks that fail under a condition are left out.
    """
    if setup.timed is not None:
        return {record.key: list(record.measurements) for record in setup.timed if not record.is_baseline}
    found: dict[str, list[Measurement]] = {key: [] for key in subjects}
    for condition in setup.conditions:
        task = setup.tasks.time(list(subjects.values()), condition, is_brief=True)
        for key, measurement in time_together(evaluator, task, emit).measurements.items():
            found[key].append(measurement)
    return {key: own for key, own in found.items() if len(own) == len(setup.conditions)}


def _range_of(name: str, found: Mapping[str, Sequence[Measurement]]) -> str:
    values = [value for own in found.values() if (value := measured_values(own)[name]) is not None]
    if not values:
        return f"{name}: not measured"
    return f"{name}: {min(values):.4g} to {max(values):.4g}"


def _share_interval(hits: int, n: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    interval = binomtest(hits, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
