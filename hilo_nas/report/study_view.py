"""Study as plots and reports show it: the figures, errors and place of each of its networks.

Places and errors come from `Front`. Plots only draw them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from hilo_nas.arch.config import ArchConfig, describe_arch
from hilo_nas.errors import UsageError
from hilo_nas.measurement.verdicts import verdict_name
from hilo_nas.proxy.kinds import Metric, metric_named
from hilo_nas.space import SearchSpace
from hilo_nas.study.front import Front
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.posteriors import PredictedNetwork
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.text.figures import with_spread

__all__ = ["NetworkView", "Place", "StudyView", "check_same_metric"]


class Place(StrEnum):
    """Place of a network relative to the front of its study."""

    FRONT = "on the front"
    TIED = "tied with the front"
    BEATEN = "beaten"
    STOPPED = "stopped at a rung"
    UNTRAINED = "did not train"
    INFEASIBLE = "infeasible"
    TIMED = "timed, not trained"
    BASELINE = "baseline"
    PREDICTED = "predicted"
    FAILED = "failed"
    OPEN = "not finished"

    @property
    def is_complete(self) -> bool:
        """True for a network of the space that was trained with the full budget and did train."""
        return self in (Place.FRONT, Place.TIED, Place.BEATEN)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkView:
    """Figures of one network. Unknown ones are None. Intervals are 95 % intervals."""

    number: int | None
    """Trial number. None for a predicted network, which has no trial."""
    key: str
    place: Place
    title: str
    """The architecture in one line, or the name of a baseline."""
    anchor: str | None = None
    """Name of the anchor that the network is."""
    images_per_s: float | None = None
    images_per_s_low: float | None = None
    images_per_s_high: float | None = None
    latency_ms_p50: float | None = None
    latency_ms_p95: float | None = None
    memory_mib: float | None = None
    verdict: str | None = None
    is_brief: bool = False
    """True if the network was timed only briefly (`Measurement.is_preliminary`)."""
    value: float | None = None
    value_low: float | None = None
    value_high: float | None = None
    images_seen: int | None = None
    seeds: int = 0
    float_value: float | None = None
    """Value before quantization to INT8. None if networks are scored in float, and so is `drop_error`."""
    drop_error: float | None = None
    """Standard error of `float_value - value`."""
    float_layers: tuple[str, ...] = ()
    """Layers that stayed in float in the quantized network."""
    probability: float | None = None
    """P(front)."""
    parameters: int | None = None
    macs: int | None = None
    knobs: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Value of each knob of the space by parameter name. Empty for a network outside the space."""
    arch: ArchConfig | None = None
    """None for a baseline."""
    origin: str = ""
    reason: str | None = None
    finished_at: str | None = None
    seconds: float = 0.0
    timing_s: float = 0.0
    training_s: float = 0.0

    @property
    def speed_text(self) -> str:
        """Images/s with half of the interval."""
        return with_spread(self.images_per_s, _half(self.images_per_s, self.images_per_s_low, self.images_per_s_high))

    def value_text(self, metric: Metric) -> str:
        """Returns the value with half of the interval, in the unit of `Metric.heading`."""
        half = _half(self.value, self.value_low, self.value_high)
        return with_spread(self.value, half, scale=metric.scale, decimals=metric.decimals)

    @property
    def is_drawable(self) -> bool:
        """True if the network has a speed, so that a plot of the front can show it."""
        return self.images_per_s is not None and (
            self.value is not None or self.place in (Place.INFEASIBLE, Place.TIMED)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyView:
    """A study under its objective condition, or under another one (`StoredStudy.title`)."""

    name: str
    """Title of the study."""
    address: str
    """Name or path of the study for a command, with the label of the condition if it is not the objective."""
    manifest: Manifest
    front: Front
    networks: tuple[NetworkView, ...]
    """One per trial, sorted by number, then the predicted ones."""
    index: int = 0
    """Position among the studies that are shown together."""

    @classmethod
    def from_study(cls, study: StoredStudy, index: int = 0) -> StudyView:
        """Returns the view of a stored study.

        Args:
            study: The study.
            index: Position among the studies that are shown together.

        Raises:
            RecordError: A record is invalid.
        """
        front, manifest = study.front(), study.manifest
        probabilities = front.probabilities()
        members = {member.number for member in front.members}
        untrained = {record.number for record in front.untrained}
        networks = [
            _view_trial(
                record,
                manifest,
                _place_of(record, members, front, untrained),
                half_width=front.half_widths.get(record.number),
                probability=probabilities.get(record.number),
            )
            for record in front.records
        ]
        predicted = study.posteriors.predicted if study.posteriors is not None else ()
        networks += [_view_predicted(own, manifest.space) for own in predicted]
        return cls(
            name=study.title,
            address=study.view_address,
            manifest=manifest,
            front=front,
            networks=tuple(networks),
            index=index,
        )

    @property
    def metric(self) -> Metric:
        """Metric of the values."""
        return metric_named(self.manifest.plan.score_metric)

    @property
    def condition(self) -> str:
        """Device and condition of the speeds."""
        return f"{self.manifest.device.model}, {self.manifest.objective.label()}"

    @property
    def ref_point(self) -> tuple[float, float]:
        """Images/s and value below which a network adds nothing to the hypervolume.

        The speed is the limit of the study, or else the slowest complete network. The value is that of guessing, or
        else the lowest of the complete networks.

        Raises:
            UsageError: The study has no complete trial.
        """
        points = [(own.images_per_s, own.value) for own in self.networks if own.place.is_complete]
        speeds = [speed for speed, _ in points if speed is not None]
        values = [value for _, value in points if value is not None]
        if not speeds or not values:
            raise UsageError(f"study {self.name} has no complete trial that trained")
        limit, guessing = self.manifest.limits_in_force.get("images_per_s"), self.manifest.guessing_score
        return limit or min(speeds), min(values) if guessing is None else guessing


def _half(value: float | None, low: float | None, high: float | None) -> float | None:
    """Returns the half-width of an interval, on the scale on which it is symmetric, as `with_spread` takes it."""
    if value is None or low is None or high is None:
        return None
    if value > 0 and low > 0 and math.isclose(low * high, value**2, rel_tol=1e-6):
        return value * math.log(high / value)
    return (high - low) / 2


def check_same_metric(views: Sequence[StudyView]) -> Metric:
    """Returns the metric of studies that are shown on the same axes.

    Raises:
        UsageError: The studies have different metrics, or there are none.
    """
    metrics = {view.metric.name: view.metric for view in views}
    if len(metrics) != 1:
        shown = ", ".join(f"{view.name} has {view.metric.name}" for view in views) or "none was given"
        raise UsageError(f"studies on the same axes must have the same metric, but {shown}. Show them one by one.")
    return next(iter(metrics.values()))


def _place_of(record: TrialRecord, members: set[int], front: Front, untrained: set[int]) -> Place:
    if record.number in untrained:
        return Place.UNTRAINED
    if record.is_baseline and record.state == TrialState.COMPLETE:
        return Place.BASELINE
    if record.number in members:
        return Place.FRONT
    if record.number in front.ties:
        return Place.TIED
    return {
        TrialState.COMPLETE: Place.BEATEN,
        TrialState.STOPPED: Place.STOPPED,
        TrialState.INFEASIBLE: Place.INFEASIBLE,
        TrialState.TIMED: Place.TIMED,
        TrialState.FAILED: Place.FAILED,
    }.get(record.state, Place.OPEN)


def _view_trial(
    record: TrialRecord, manifest: Manifest, place: Place, *, half_width: float | None, probability: float | None
) -> NetworkView:
    figures: dict[str, Any] = {}
    if (measured := record.measurement) is not None:
        low, high = measured.images_per_s_interval or (None, None)
        figures |= {"images_per_s": measured.images_per_s, "images_per_s_low": low, "images_per_s_high": high}
        figures |= {name: getattr(measured, name) for name in ("latency_ms_p50", "latency_ms_p95", "memory_mib")}
        figures |= {"verdict": verdict_name(measured), "is_brief": measured.is_preliminary}
    if (score := record.score) is not None:
        spread = score.half_width if half_width is None else half_width  # a rung's score has no entry in the front
        figures |= {"value": score.value, "value_low": score.value - spread, "value_high": score.value + spread}
        figures |= {"images_seen": score.images_seen, "seeds": score.seeds}
        figures |= {name: getattr(score, name) for name in ("float_value", "drop_error", "float_layers")}
    arch, made = record.arch, manifest.created_at  # copied results are older, and another study paid for them
    timing_s = math.fsum(own.seconds for own in record.measurements if own.measured_at >= made)
    training_s = math.fsum(own.seconds for own in record.scores if own.scored_at >= made)
    is_copied = record.finished_at is not None and record.finished_at < made
    return NetworkView(
        number=record.number,
        key=record.key,
        place=place,
        title=record.key if arch is None else describe_arch(arch),
        anchor=manifest.anchor_names.get(record.key),
        probability=probability,
        parameters=record.parameters,
        macs=record.macs,
        knobs=_knobs_of(manifest.space, record.params),
        arch=arch,
        origin=record.origin,
        reason=record.reason,
        finished_at=record.finished_at,
        seconds=timing_s + training_s if is_copied else record.seconds,
        timing_s=timing_s,
        training_s=training_s,
        **figures,
    )


def _view_predicted(own: PredictedNetwork, space: SearchSpace) -> NetworkView:
    arch = space.decode(own.params)
    return NetworkView(
        number=None,
        key=own.key,
        place=Place.PREDICTED,
        title=describe_arch(arch),
        images_per_s=own.images_per_s,
        images_per_s_low=own.images_per_s_low,
        images_per_s_high=own.images_per_s_high,
        value=own.value,
        value_low=own.value_low,
        value_high=own.value_high,
        knobs=_knobs_of(space, own.params),
        arch=arch,
    )


def _knobs_of(space: SearchSpace, params: dict[str, int] | None) -> dict[str, Any]:
    """Returns the value of each knob with several choices. Empty without parameters."""
    if params is None:
        return {}
    return {knob.param: knob.choices[params[knob.param]] for knob in space.knobs if knob.param in params}
