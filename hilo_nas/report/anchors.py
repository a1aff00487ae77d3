"""How a front stands to the architectures that everyone knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hilo_nas.front import front_of
from hilo_nas.measurement import METRICS
from hilo_nas.pareto import dominates
from hilo_nas.records import TrialRecord

__all__ = ["AnchorStanding", "compare_anchors"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnchorStanding:
    """One anchor beside the front."""

    name: str
    number: int
    """Its trial."""
    verdict: str
    """`beaten`, `on the front`, or `not measured`."""
    by: int | None = None
    """The trial that beats it by the most: the fastest of those at least as accurate."""
    speed_ratio: float | None = None
    """That trial's images/s over the anchor's."""
    top1_gain: float | None = None
    """That trial's proxy score less the anchor's."""
    top1_gain_se: float | None = None
    """Standard error of the gain, from those of the two scores."""
    metric: str = "top1"
    """Of the scores; see `ProxyScore.metric`."""

    def sentence(self) -> str:
        """Returns the standing in words."""
        if self.verdict == "beaten":
            gain, gain_se = self.top1_gain or 0.0, self.top1_gain_se or 0.0
            gained = f"{gain:+.4g} ± {gain_se:.2g} of {self.metric}"
            if self.metric in METRICS:
                gained = f"{100 * gain:+.1f} ± {100 * gain_se:.1f} points of proxy top-1"
            beaten = f"trial {self.by} beats {self.name} (trial {self.number})"
            return f"{beaten}: {self.speed_ratio:.2f} x its images/s, {gained}"
        if self.verdict == "on the front":
            return f"no trial beats {self.name} (trial {self.number}): it stands on the front itself"
        return f"{self.name} (trial {self.number}) has no speed and score to compare with"


def compare_anchors(records: Sequence[TrialRecord]) -> list[AnchorStanding]:
    """Returns the standing of each anchor of a study, in the order of their trials."""
    front = [(record, _point(record)) for record in front_of(records)]
    latest = {record.origin: record for record in records if record.origin.startswith("anchor:")}
    keys = {record.key: name for name, record in latest.items()}
    for record in records:  # an anchor that was cut off lives on under its retry
        if record.key in keys and record.state == "complete":
            latest[keys[record.key]] = record
    standings = []
    for origin, record in latest.items():
        name = origin.removeprefix("anchor:")
        if record.state != "complete":
            standings.append(AnchorStanding(name=name, number=record.number, verdict="not measured"))
            continue
        point = _point(record)
        better = [rival for rival, other in front if dominates(other, point)]
        if not better:
            standings.append(AnchorStanding(name=name, number=record.number, verdict="on the front"))
            continue
        best = max(better, key=_point)
        assert best.score is not None
        assert record.score is not None
        standings.append(
            AnchorStanding(
                name=name,
                number=record.number,
                verdict="beaten",
                by=best.number,
                speed_ratio=_point(best)[0] / point[0],
                top1_gain=_point(best)[1] - point[1],
                top1_gain_se=(best.score.proxy_top1_se**2 + record.score.proxy_top1_se**2) ** 0.5,
                metric=record.score.metric,
            )
        )
    return standings


def _point(record: TrialRecord) -> tuple[float, float]:
    assert record.measurement is not None
    assert record.score is not None
    return record.measurement.images_per_s, record.score.proxy_top1
