"""Comparison of a front with well-known networks: the space's anchors, and peers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from hilo_nas.figures import probability_text
from hilo_nas.front import SURE, front_of, probability_beats, probability_of_speed, seed_noise, top1_errors
from hilo_nas.measurement import METRICS
from hilo_nas.pareto import dominates
from hilo_nas.records import TrialRecord
from hilo_nas.states import TrialState

__all__ = ["Standing", "compare_references"]

_Z95 = 1.96


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
    """Standard error of the gain; see `hilo_nas.front.top1_errors`."""
    metric: str = "top1"
    """Of the scores; see `ProxyScore.metric`."""
    probability: float | None = None
    """Probability that that trial really is both faster and more accurate; see `probability_beats`."""
    score: float | None = None
    """The network's own proxy score, where it did not train."""
    chance: float | None = None
    """Score of guessing, where it did not train."""
    reason: str | None = None
    """Why its trial is not complete."""

    @property
    def top1_gain_half_width(self) -> float:
        """Half of the 95 % interval of the gain; 0.0 where there is none."""
        return _Z95 * (self.top1_gain_se or 0.0)

    @property
    def kind(self) -> str:
        """`anchor` or `peer`."""
        return "peer" if self.name.startswith("timm:") else "anchor"

    def sentence(self) -> str:
        """Returns the standing in words."""
        who = f"{self.name} (trial {self.number})"
        if self.verdict == "did not train":
            return (
                f"{who} did not train: its {METRICS.get(self.metric, self.metric)} of {_percent(self.score)} cannot be "
                f"told from guessing ({_percent(self.chance)}), so no trial is compared with it. Train it on more "
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
            of_score = f"{METRICS.get(self.metric, self.metric)} not distinguishable ({self._difference()})"
        text = f"trial {self.by}: {self.speed_ratio:.3g}x the images/s of {who}, {of_score}"
        if (self.speed_ratio or 0.0) > 1 and (self.top1_gain or 0.0) > 0:
            text += f", both better with a probability of {probability_text(self.probability or 0.0)}"
        return text + stands

    def _difference(self) -> str:
        gain, half_width = self.top1_gain or 0.0, self.top1_gain_half_width
        if self.metric in METRICS:
            return f"{100 * gain:+.1f} ± {100 * half_width:.1f} points"
        return f"{gain:+.4g} ± {half_width:.2g}"

    def _gain(self) -> str:
        what = f"proxy {METRICS[self.metric]}" if self.metric in METRICS else self.metric
        return f"{self._difference()} of {what}"


def compare_references(records: Sequence[TrialRecord]) -> list[Standing]:
    """Returns the standing of each anchor and each peer of a study, in the order of their trials."""
    latest = {record.origin: record for record in records if record.origin.startswith(("anchor:", "peer:"))}
    origins = {record.key: origin for origin, record in latest.items()}
    for record in records:  # one that was cut off lives on under its retry
        if record.key in origins and record.state == TrialState.COMPLETE:
            latest[origins[record.key]] = record
    comparison = _Comparison(records)
    return [comparison.stand(origin.removeprefix("anchor:"), record) for origin, record in latest.items()]


class _Comparison:
    """The front of a study's records, with the errors of their scores."""

    def __init__(self, records: Sequence[TrialRecord]) -> None:
        self._front, self._errors, self._noise = front_of(records), top1_errors(records), seed_noise(records)

    def stand(self, name: str, record: TrialRecord) -> Standing:
        """Returns the comparison of a network with the front."""
        name, number = record.key if record.is_peer else name, record.number
        if record.state != TrialState.COMPLETE or record.score is None:
            return Standing(name=name, number=number, verdict="not measured", reason=record.reason)
        metric = record.score.metric
        if not record.has_trained:
            value, chance = record.score.value, record.score.chance
            return Standing(
                name=name, number=number, verdict="did not train", score=value, chance=chance, metric=metric
            )
        rivals = [rival for rival in self._front if rival.number != number]
        verdict = "not beaten" if len(rivals) == len(self._front) else "on the front"
        chances = {rival.number: probability_beats(rival, record, noise=self._noise) for rival in rivals}
        better = [r for r in rivals if chances[r.number] >= SURE and dominates(_point(r), _point(record))]
        best = max(better, key=_point) if better else self._best_trade(record, rivals)
        if best is None:
            return Standing(name=name, number=number, verdict=verdict)
        return Standing(
            name=name,
            number=number,
            verdict="beaten" if better else verdict,
            by=best.number,
            speed_ratio=_point(best)[0] / _point(record)[0],
            top1_gain=_point(best)[1] - _point(record)[1],
            top1_gain_se=self._gain_se(best, record),
            metric=metric,
            probability=chances[best.number],
        )

    def _best_trade(self, record: TrialRecord, rivals: Sequence[TrialRecord]) -> TrialRecord | None:
        """Returns the fastest of those surely faster and not surely less accurate.

        Without one: the most accurate of those surely faster; else the fastest of those surely more accurate; else the
        fastest of those that are better by their values.
        """
        faster = [rival for rival in rivals if probability_of_speed(rival, record) >= SURE]
        gains = {r.number: (_point(r)[1] - _point(record)[1]) / self._gain_se(r, record) for r in rivals}
        if even := [rival for rival in faster if gains[rival.number] >= -_Z95]:
            return max(even, key=_point)
        if faster:
            return max(faster, key=lambda rival: gains[rival.number])
        more_accurate = [rival for rival in rivals if gains[rival.number] > _Z95]
        by_values = [rival for rival in rivals if dominates(_point(rival), _point(record))]
        return max(more_accurate or by_values, key=_point, default=None)

    def _gain_se(self, own: TrialRecord, other: TrialRecord) -> float:
        return math.hypot(self._errors[own.number], self._errors[other.number]) or 1e-12


def _percent(share: float | None) -> str:
    return "an unknown share" if share is None else f"{100 * share:.1f} %"


def _point(record: TrialRecord) -> tuple[float, float]:
    assert record.measurement is not None
    assert record.score is not None
    return record.measurement.images_per_s, record.score.value
