"""Before a search: can its limits be met, by how many of the space's networks, and how long will it take?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hilo_nas.evaluation import Evaluator
from hilo_nas.events import Emit, LimitsForeseen, Notice
from hilo_nas.measurement import Measurement
from hilo_nas.searching.opening.study_setup import Setting
from hilo_nas.searching.tasks.study_tasks import time_together
from hilo_nas.space import LIMITS, draw_networks, limit_text, measured_values, measured_violations
from hilo_nas.study.records import Subject

__all__ = ["foresee_limits", "has_measured_limits"]

_NETWORKS = 12
_SMALLEST_OF = 500
"""Random networks among which those with the fewest multiply-adds are looked for."""
_SMALLEST = 2
_SECONDS_EACH = 0.6


def foresee_limits(setting: Setting, evaluator: Evaluator, emit: Emit) -> LimitsForeseen | None:
    """Times a sample of the space and says how it stands to the measured limits; None where there is none.

    The sample is drawn within the limits on params and MACs (`hilo_nas.space.draw`) and joined by the smallest of 500:
    where even those miss a limit, the space hardly holds a network that keeps it.
    """
    limits = {**setting.space.limits, **setting.limits}
    measured = _measured_limits(setting)
    if not measured:
        return None
    drawn, smallest = _draw(setting, limits)
    found = _measure({**drawn, **smallest}, setting, evaluator, emit)
    names = tuple(limit_text(name, bound) for name, bound in measured.items())
    if not found:
        text = (
            f"no network was found to tell from whether {' and '.join(names)} can be kept: of those drawn, none keeps "
            "the limits on params and MACs and can be timed"
        )
        emit(Notice(level="warning", text=text))
        return None
    keeping = {key: max(measured_violations(measured, own).values()) <= 0 for key, own in found.items()}
    evenly = [keeping[key] for key in (found if setting.timed else drawn) if key in keeping]
    low, high = _share_interval(sum(evenly), len(evenly))
    foreseen = LimitsForeseen(
        limits=names,
        networks=len(evenly),
        keeping=sum(evenly),
        share_low=low,
        share_high=high,
        smallest_keeps=any(keeping[key] for key in smallest if key in keeping),
        seen=tuple(_range_of(name, found) for name in measured),
        timed_by=setting.timed_by,
    )
    emit(foreseen)
    return foreseen


def has_measured_limits(setting: Setting) -> bool:
    """Returns whether a study has limits that only a measurement can tell."""
    return bool(_measured_limits(setting))


def _measured_limits(setting: Setting) -> dict[str, float]:
    limits = {**setting.space.limits, **setting.limits}
    return {name: bound for name, bound in limits.items() if not LIMITS[name.partition("@")[0]].is_free}


def _draw(setting: Setting, limits: Mapping[str, float]) -> tuple[dict[str, Subject], dict[str, Subject]]:
    """Returns networks as they are drawn, and the smallest of many, by key."""
    networks = list(
        draw_networks(
            setting.space,
            limits,
            img_size=setting.conditions[0].img_size,
            num_classes=setting.data.num_classes,
            draws=_SMALLEST_OF,
        )
    )
    smallest = sorted(networks, key=lambda network: network[1].macs)[:_SMALLEST]
    drawn, small = ({arch.key(): Subject(arch=arch) for arch, _ in some} for some in (networks[:_NETWORKS], smallest))
    return drawn, small


def _measure(
    subjects: Mapping[str, Subject],
    setting: Setting,
    evaluator: Evaluator,
    emit: Emit,
) -> dict[str, list[Measurement]]:
    """Returns the networks' measurements under each condition, briefly taken, without those that fail under one."""
    if setting.timed is not None:
        return {record.key: list(record.measurements) for record in setting.timed}
    found: dict[str, list[Measurement]] = {key: [] for key in subjects}
    for condition in setting.conditions:
        task = setting.tasks.time(list(subjects.values()), condition, seconds=_SECONDS_EACH)
        for key, measurement in time_together(evaluator, task, emit).measurements.items():
            found[key].append(measurement)
    return {key: own for key, own in found.items() if len(own) == len(setting.conditions)}


def _range_of(name: str, found: Mapping[str, Sequence[Measurement]]) -> str:
    values = [value for own in found.values() if (value := measured_values(own)[name]) is not None]
    if not values:
        return f"{name}: not seen"
    return f"{name}: {min(values):.4g} to {max(values):.4g}"


def _share_interval(hits: int, n: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share by Wilson (1927)."""
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    interval = binomtest(hits, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
