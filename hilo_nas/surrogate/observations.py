"""Networks with their timings and scores so far, as models learn from them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

from hilo_nas.measurement import Measurement
from hilo_nas.space import measured_violations
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import FITS, TIMED_WITH, TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.surrogate.features import NetworkFeatures, describe_network

__all__ = ["KnownNetwork", "KnownScore", "find_timing", "know_networks"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownScore:
    """Score of a network at a budget."""

    value: float
    standard_error: float
    """Standard error due to the finite number of held-out images."""
    budgets_left: int = 0
    """Number of larger budgets of the study: 0 for the full budget."""
    seed: int = 0
    """Training seed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownNetwork:
    """A network with its measurements and scores so far."""

    key: str
    features: NetworkFeatures
    log_speed: float | None = None
    """Natural logarithm of images/s. None if the network was not timed."""
    log_speed_error: float = 0.0
    """Standard error of `log_speed`."""
    group: str = ""
    """Name of the networks that were timed briefly with this one, all in the same rounds. Empty if there are none."""
    is_preliminary: bool = False
    """True if the network was only timed briefly."""
    violations: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Logarithm of the factor by which the network violates each limit that needs a timing, by the current
    calibration. Empty if the network was not timed."""
    scores: tuple[KnownScore, ...] = ()
    has_failed: bool = False
    """True if the network itself caused a failure, such as too little memory or a crash of its training."""
    is_running: bool = False
    """True if a trial of the network is running."""

    @property
    def is_timed(self) -> bool:
        """True if the network was timed in full."""
        return self.log_speed is not None and not self.is_preliminary

    @property
    def is_trained(self) -> bool:
        """True if the network has a score at the full budget."""
        return any(score.budgets_left == 0 for score in self.scores)


def know_networks(records: Iterable[TrialRecord], manifest: Manifest) -> list[KnownNetwork]:
    """Returns the networks of a study, in the order of the trials, without baselines."""
    return [_know(record, manifest) for record in records if record.subject.arch is not None]


def find_timing(record: TrialRecord, manifest: Manifest) -> Measurement | None:
    """Returns the timing under the objective to learn from; None if there is none, or only one of another device."""
    measurement = record.measurement
    return measurement if measurement is not None and manifest.rank_of(measurement) == 0 else None


def _name_group(record: TrialRecord) -> str:
    return "/".join(sorted(record.sampler_memory.get(TIMED_WITH, ()))) if record.is_timed_briefly else ""


def _know(record: TrialRecord, manifest: Manifest) -> KnownNetwork:
    assert record.subject.arch is not None
    measurement, budgets = find_timing(record, manifest), manifest.plan.budgets
    return KnownNetwork(
        key=record.key,
        features=describe_network(record.subject.arch, manifest.objective.img_size, manifest.data.num_classes),
        log_speed=None if measurement is None else math.log(measurement.images_per_s),
        log_speed_error=0.0 if measurement is None else measurement.half_width / measurement.images_per_s / 1.96,
        group=_name_group(record),
        is_preliminary=measurement is not None and measurement.is_preliminary,
        # Computed from the timings, because a new calibration changes all speeds.
        violations=measured_violations(manifest.limits_in_force, record.measurements) if measurement else {},
        scores=tuple(
            KnownScore(
                value=score.value,
                standard_error=score.standard_error or 0.0,
                budgets_left=sum(budget > score.images_seen for budget in budgets),
                seed=score.seed,
            )
            for score in record.scores
        ),
        has_failed=(record.state == TrialState.FAILED and not record.is_interrupted) or FITS in record.violations,
        is_running=record.state == TrialState.RUNNING,
    )
