"""Comparison of a front with well-known networks: the space's anchors, and peers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from hilo_nas.measurement.intervals import Z95
from hilo_nas.proxy.kinds import Metric, metric_named
from hilo_nas.study.comparison import SURE, Point
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.text.figures import probability_text

__all__ = ["Standing", "find_references", "stand"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standing:
    """Comparison of one anchor or peer with the front."""

    name: str
    """The anchor's, or `timm:NAME`."""
    number: int
    """Its trial."""
    verdict: str
    """`beaten`, with at least 95 %; `on the front` (an anchor); `not beaten`; `did not train`; or `not measured`,
    of a trial that failed, broke a limit or is not done."""
    by: int | None = None
    """The trial that it is compared with: the one that beats it, or else the one that makes the best trade."""
    speed_ratio: float | None = None
    """That trial's images/s over the network's."""
    top1_gain: float | None = None
    """That trial's proxy score less the network's."""
    top1_gain_se: float | None = None
    """Standard error of the gain; see `hilo_nas.study.front.Front.standard_errors`."""
    metric: str = "top1"
    """Of the scores; see `ProxyScore.metric`."""
    probability: float | None = None
    """Probability that that trial really is both faster and more accurate; see `Point.probability_beats`."""
    score: float | None = None
    """The network's own proxy score, where it did not train."""
    chance: float | None = None
    """Score of guessing, where it did not train."""
    reason: str | None = None
    """Why its trial is not complete."""

    @property
    def top1_gain_half_width(self) -> float:
        """Half of the 95 % interval of the gain; 0.0 where there is none."""
        return Z95 * (self.top1_gain_se or 0.0)

    @property
    def kind(self) -> str:
        """`anchor` or `peer`."""
        return "peer" if self.name.startswith("timm:") else "anchor"

    def sentence(self) -> str:
        """Returns the standing in words."""
        who = f"{self.name} (trial {self.number})"
        if self.verdict == "did not train":
            return (
                f"{who} did not train: its {self._metric.short} of {self._text(self.score)} cannot be "
                f"told from guessing ({self._text(self.chance)}), so no trial is compared with it. Train it on more "
                "images, in a study with a larger --proxy-images."
            )
        if self.verdict == "not measured":
            return f"{who} is left out of the comparison: {' '.join((self.reason or 'it has no score yet').split())}"
        if self.verdict == "beaten":
            return f"trial {self.by} beats {who}: {self.speed_ratio:.2f} x its images/s, {self._gain()}"
        stands = "; it stands on the front itself" * (self.verdict == "on the front")
        if self.by is None:
            return f"no trial beats {who}" + (stands.replace(";", ":") or ": none is as fast and as accurate")
        of_score = self._gain()
        if abs(self.top1_gain or 0.0) <= self.top1_gain_half_width:
            of_score = f"{self._metric.short} not distinguishable ({self._difference()})"
        text = f"trial {self.by}: {self.speed_ratio:.3g}x the images/s of {who}, {of_score}"
        if (self.speed_ratio or 0.0) > 1 and (self.top1_gain or 0.0) > 0:
            text += f", both better with a probability of {probability_text(self.probability or 0.0)}"
        return text + stands

    @property
    def _metric(self) -> Metric:
        return metric_named(self.metric)

    def _text(self, value: float | None) -> str:
        return "an unknown share" if value is None else self._metric.text(value)

    def _difference(self) -> str:
        return self._metric.difference_text(self.top1_gain or 0.0, self.top1_gain_half_width)

    def _gain(self) -> str:
        return f"{self._difference()} of {self._metric.gain}"


def find_references(records: Iterable[TrialRecord]) -> dict[str, TrialRecord]:
    """Returns the trial of each anchor and each peer by its name, in the order of their first trials.

    Args:
        records: The study's, in the order of their numbers.
    """
    records = list(records)
    tried = [record for record in records if record.state != TrialState.TIMED]
    latest = {record.origin: record for record in tried if record.origin.startswith(("anchor:", "peer:"))}
    origins = {record.key: origin for origin, record in latest.items()}
    for record in records:  # in studies of earlier versions one that was cut off lives on under its retry
        if record.key in origins and record.state == TrialState.COMPLETE:
            latest[origins[record.key]] = record
    return {
        record.key if record.is_peer else origin.removeprefix("anchor:"): record for origin, record in latest.items()
    }


def stand(name: str, record: TrialRecord, own: Point | None, members: Sequence[Point], noise: float) -> Standing:
    """Returns the comparison of an anchor or peer with the front.

    Args:
        name: Of the network.
        record: Its trial's.
        own: The same as a point; None where it has none.
        members: The front.
        noise: Standard deviation of a value from one training seed to another.
    """
    number, score = record.number, record.score
    if record.state == TrialState.COMPLETE and score is not None and score.is_at_chance:
        return Standing(
            name=name,
            number=number,
            verdict="did not train",
            score=score.value,
            chance=score.chance,
            metric=score.metric,
        )
    if own is None or score is None:
        return Standing(name=name, number=number, verdict="not measured", reason=record.reason)
    rivals = [rival for rival in members if rival.number != number]
    verdict = "not beaten" if len(rivals) == len(members) else "on the front"
    better = [rival for rival in rivals if rival.dominates(own) and rival.surely_beats(own, noise)]
    best = max(better, key=_values) if better else _best_trade(own, rivals, noise)
    if best is None:
        return Standing(name=name, number=number, verdict=verdict)
    return Standing(
        name=name,
        number=number,
        verdict="beaten" if better else verdict,
        by=best.number,
        speed_ratio=best.images_per_s / own.images_per_s,
        top1_gain=best.value - own.value,
        top1_gain_se=_gain_error(best, own, noise),
        metric=score.metric,
        probability=best.probability_beats(own, noise),
    )


def _best_trade(own: Point, rivals: Sequence[Point], noise: float) -> Point | None:
    """Returns the fastest of those surely faster and not surely less accurate.

    Without one: the most accurate of those surely faster; else the fastest of those surely more accurate; else the
    fastest of those that are better by their values.
    """
    faster = [rival for rival in rivals if rival.probability_faster(own) >= SURE]
    gains = {rival.number: (rival.value - own.value) / _gain_error(rival, own, noise) for rival in rivals}
    if even := [rival for rival in faster if gains[rival.number] >= -Z95]:
        return max(even, key=_values)
    if faster:
        return max(faster, key=lambda rival: gains[rival.number])
    more_accurate = [rival for rival in rivals if gains[rival.number] > Z95]
    by_values = [rival for rival in rivals if rival.dominates(own)]
    return max(more_accurate or by_values, key=_values, default=None)


def _gain_error(own: Point, other: Point, noise: float) -> float:
    return math.hypot(own.value_error(noise), other.value_error(noise)) or 1e-12


def _values(point: Point) -> tuple[float, float]:
    return point.images_per_s, point.value
