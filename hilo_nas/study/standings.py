"""Comparison of a front with anchors (hand-made architectures) and baselines (other networks)."""

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
    """Comparison of one anchor or baseline with the front."""

    name: str
    """Name of the anchor, or `timm:NAME`."""
    number: int
    """Trial number of the anchor or baseline."""
    verdict: str
    """One of `beaten` (with a probability of at least 95 %), `on the front` (anchors only), `not beaten`,
    `did not train`, and `not measured` (the trial failed, is infeasible or is not complete)."""
    by: int | None = None
    """Number of the front's trial in the comparison: the one that beats the network, or else the best trade-off."""
    speed_ratio: float | None = None
    """Ratio of the images/s of trial `by` to those of the network."""
    top1_gain: float | None = None
    """Score of the front's trial `by` minus the score of the anchor or baseline, in the unit of `metric`."""
    top1_gain_se: float | None = None
    """Standard error of the gain, including the noise between seeds."""
    metric: str = "top1"
    """Metric of the scores, as in `ProxyScore.metric`."""
    probability: float | None = None
    """Probability that trial `by` has both a higher speed and a better value than the network."""
    score: float | None = None
    """Value of the network. Set only if the verdict is `did not train`."""
    chance: float | None = None
    """Score of guessing, in the unit of `metric`. Set only if the verdict is `did not train`."""
    reason: str | None = None
    """Reason why the trial is not complete."""

    @property
    def top1_gain_half_width(self) -> float:
        """Half-width of the 95 % interval of the gain, or 0.0 without a gain."""
        return Z95 * (self.top1_gain_se or 0.0)

    @property
    def kind(self) -> str:
        """Kind of network: `anchor` or `baseline`."""
        return "baseline" if self.name.startswith("timm:") else "anchor"

    def sentence(self) -> str:
        """Returns the comparison as a sentence."""
        who = f"{self.name} (trial {self.number})"
        if self.verdict == "did not train":
            return (
                f"{who} did not train: its {self._metric.short} of {self._text(self.score)} is not distinguishable "
                f"from guessing ({self._text(self.chance)}), so no trial is compared with it. Train it on more "
                "images, in a study with a larger --proxy-images."
            )
        if self.verdict == "not measured":
            return f"{who} is left out of the comparison: {' '.join((self.reason or 'it has no score yet').split())}"
        if self.verdict == "beaten":
            return f"trial {self.by} beats {who}: {self.speed_ratio:.2f} x its images/s, {self._gain()}"
        note = "; it is itself on the front" * (self.verdict == "on the front")
        if self.by is None:
            return f"no trial beats {who}" + (note.replace(";", ":") or ": none is as fast and as accurate")
        of_score = self._gain()
        if abs(self.top1_gain or 0.0) <= self.top1_gain_half_width:
            of_score = f"{self._metric.short} not distinguishable ({self._difference()})"
        text = f"trial {self.by}: {self.speed_ratio:.3g}x the images/s of {who}, {of_score}"
        if (self.speed_ratio or 0.0) > 1 and (self.top1_gain or 0.0) > 0:
            text += f", both better with a probability of {probability_text(self.probability or 0.0)}"
        return text + note

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
    """Returns the trial of each anchor and each baseline by name, in the order of their first trials.

    Args:
        records: Records of the study, sorted by number.
    """
    records = list(records)
    tried = [record for record in records if record.state != TrialState.TIMED]
    latest = {record.origin: record for record in tried if record.origin.startswith(("anchor:", "baseline:"))}
    origins = {record.key: origin for origin, record in latest.items()}
    for record in records:  # earlier versions stored the retry of an interrupted trial as a separate record
        if record.key in origins and record.state == TrialState.COMPLETE:
            latest[origins[record.key]] = record
    return {
        record.key if record.is_baseline else origin.removeprefix("anchor:"): record
        for origin, record in latest.items()
    }


def stand(name: str, record: TrialRecord, own: Point | None, members: Sequence[Point], noise: float) -> Standing:
    """Returns the comparison of an anchor or baseline with the front.

    Args:
        name: Name of the anchor, or `timm:NAME`.
        record: Record of its trial.
        own: Speed and value of that trial, or None if it was not timed or did not train.
        members: Members of the front.
        noise: Standard deviation of a value between training seeds.
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
    """Returns the member with the best trade-off, by the first rule that applies.

    1. The fastest member that is surely faster and not surely less accurate.
    2. The most accurate member that is surely faster.
    3. The fastest member that is surely more accurate.
    4. The fastest member that dominates the network by its measured values.
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
