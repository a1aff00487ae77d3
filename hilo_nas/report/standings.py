"""How a front stands to the networks that everyone knows: the space's anchors, and peers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from hilo_nas.front import SURE, front_of, probability_beats, seed_noise, top1_errors
from hilo_nas.measurement import METRICS
from hilo_nas.pareto import dominates
from hilo_nas.records import TrialRecord

__all__ = ["Standing", "compare_references"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standing:
    """One anchor or peer beside the front."""

    name: str
    """The anchor's, or `timm:NAME`."""
    number: int
    """Its trial."""
    verdict: str
    """`beaten`, `on the front` (an anchor), `not beaten` (a peer, which no front holds), or `not measured`."""
    by: int | None = None
    """The trial that beats it by the most: the fastest of those at least as accurate."""
    speed_ratio: float | None = None
    """That trial's images/s over the network's."""
    top1_gain: float | None = None
    """That trial's proxy score less the network's."""
    top1_gain_se: float | None = None
    """Standard error of the gain; see `hilo_nas.front.top1_errors`."""
    metric: str = "top1"
    """Of the scores; see `ProxyScore.metric`."""
    probability: float | None = None
    """How probable it is that that trial really is both faster and more accurate; see `probability_beats`."""

    @property
    def kind(self) -> str:
        """`anchor` or `peer`."""
        return "peer" if self.name.startswith("timm:") else "anchor"

    def sentence(self) -> str:
        """Returns the standing in words."""
        who = f"{self.name} (trial {self.number})"
        if self.verdict == "beaten":
            gain, gain_se = self.top1_gain or 0.0, self.top1_gain_se or 0.0
            gained = f"{gain:+.4g} ± {gain_se:.2g} of {self.metric}"
            if self.metric in METRICS:
                gained = f"{100 * gain:+.1f} ± {100 * gain_se:.1f} points of proxy {METRICS[self.metric]}"
            text = f"trial {self.by} beats {who}: {self.speed_ratio:.2f} x its images/s, {gained}"
            is_unsure = self.probability is not None and self.probability < SURE
            return f"{text}, with a probability of {self.probability:.0%}" if is_unsure else text
        if self.verdict == "on the front":
            return f"no trial beats {who}: it stands on the front itself"
        if self.verdict == "not beaten":
            return f"no trial beats {who}: none is as fast and as accurate"
        return f"{who} has no speed and score to compare with"


def compare_references(records: Sequence[TrialRecord]) -> list[Standing]:
    """Returns the standing of each anchor and each peer of a study, in the order of their trials."""
    front = front_of(records)
    latest = {record.origin: record for record in records if record.origin.startswith(("anchor:", "peer:"))}
    origins = {record.key: origin for origin, record in latest.items()}
    for record in records:  # one that was cut off lives on under its retry
        if record.key in origins and record.state == "complete":
            latest[origins[record.key]] = record
    errors, noise = top1_errors(records), seed_noise(records)
    return [_stand(origin.removeprefix("anchor:"), record, front, errors, noise) for origin, record in latest.items()]


def _stand(
    name: str, record: TrialRecord, front: Sequence[TrialRecord], errors: Mapping[int, float], noise: float
) -> Standing:
    name = record.key if record.is_peer else name
    if record.state != "complete":
        return Standing(name=name, number=record.number, verdict="not measured")
    point = _point(record)
    better = [rival for rival in front if dominates(_point(rival), point)]
    if not better:
        return Standing(name=name, number=record.number, verdict="not beaten" if record.is_peer else "on the front")
    best = max(better, key=_point)
    return Standing(
        name=name,
        number=record.number,
        verdict="beaten",
        by=best.number,
        speed_ratio=_point(best)[0] / point[0],
        top1_gain=_point(best)[1] - point[1],
        top1_gain_se=math.hypot(errors[best.number], errors[record.number]),
        metric=record.score.metric if record.score else "top1",
        probability=probability_beats(best, record, noise=noise),
    )


def _point(record: TrialRecord) -> tuple[float, float]:
    assert record.measurement is not None
    assert record.score is not None
    return record.measurement.images_per_s, record.score.proxy_top1
