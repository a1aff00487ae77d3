"""Events that report the progress of searches and timings as plain values.

All packages below `cli` emit events. `cli` displays them, and the event log stores them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

__all__ = [
    "BenchStepped",
    "Calibrated",
    "CalibrationStarted",
    "CohortTimed",
    "ConfirmationForeseen",
    "CostForeseen",
    "DataPrepared",
    "DataRead",
    "DeviceAwaited",
    "Emit",
    "Event",
    "FrontChanged",
    "LimitsForeseen",
    "NetworkPrepared",
    "NetworksTimed",
    "Notice",
    "OtherProxyScored",
    "RoundTimed",
    "RungReached",
    "SearchFinished",
    "SearchStarted",
    "SeedScored",
    "TrainingProgressed",
    "TrainingStarted",
    "TrialFinished",
    "TrialStarted",
    "event_from_dict",
    "event_to_dict",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """Base class of all events. The name of the class is the kind of the event."""


Emit = Callable[[Event], None]


def ignore_event(event: Event) -> None:
    """Ignores an event."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Notice(Event):
    """A message for the user. If a request of the user cannot be fulfilled, a warning is emitted."""

    text: str
    level: str = "info"
    """`info` or `warning`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataPrepared(Event):
    """More images are decoded into the cache."""

    done: int
    total: int | None
    """None if the length of the source is unknown."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataRead(Event):
    """The images are ready. The event describes the data set, its split, and the images that were left out."""

    summary: dict[str, Any]
    """`DataSummary.to_dict()`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceAwaited(Event):
    """The process waits for a device lock that other processes hold."""

    device: str
    holders: tuple[str, ...]
    """Text about each process that holds the lock. Empty if they are unknown."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationStarted(Event):
    """The first timing of the reference network on this device has started."""

    condition: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrated(Event):
    """The reference network was timed. Its speed sets the scale of all later measurements of the study."""

    condition: str
    images_per_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationChanged(Event):
    """A new calibration of the reference replaced the study's calibration, which changes all images/s."""

    condition: str
    old_images_per_s: float
    images_per_s: float

    @property
    def ratio(self) -> float:
        """New speed of the reference network divided by the old one.

        All images/s under this condition change by this factor.
        """
        return self.images_per_s / self.old_images_per_s


@dataclasses.dataclass(frozen=True, kw_only=True)
class LimitsForeseen(Event):
    """A sample of the space was timed to check whether the limits are feasible."""

    limits: tuple[str, ...]
    """Limits as text."""
    networks: int
    """Number of networks that were drawn uniformly from the space and timed."""
    keeping: int
    """Number of these networks that meet all limits."""
    share_low: float
    """Lower end of the 95 % interval of the share of the space's networks that meet all limits."""
    share_high: float
    smallest_keeps: bool
    """True if one of the smallest networks of the space meets all limits."""
    seen: tuple[str, ...]
    """Range of the measured values for each limit."""
    timed_by: str | None = None
    """Name of the study from which the timings were copied. None if the sample was timed now."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostForeseen(Event):
    """The cost of the search was estimated from short timings and trainings of a few networks."""

    trials: int
    total_s: float
    seconds: float
    """Seconds that the estimate took."""
    tried: int | None = None
    """Number of networks tried so far if more will refine the estimate. None for the final estimate."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CohortTimed(Event):
    """Networks of a study were timed again in the same rounds."""

    networks: int
    condition: str
    verdict: str
    """Worst verdict on the machine during the timing."""
    text: str
    """Explanation of the verdict, and advice."""
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchPlanned(Event):
    """A new search was planned for a given time."""

    trials: int
    total_s: float
    """Estimated seconds of the search."""
    reasons: tuple[str, ...]
    """One sentence per choice."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchStarted(Event):
    """A search opened or resumed its study."""

    study: str
    done: int
    """Number of networks measured before this run."""
    total: int
    """Total number of networks to measure."""
    device: str
    stopped: int = 0
    """Number of networks stopped at a rung before this run."""
    metric: str = "top1"
    """Metric of the study's scores, as in `ProxyScore.metric`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialStarted(Event):
    """A trial started: its network was selected."""

    number: int
    key: str
    params_m: float | None
    """Parameters in millions. None for a baseline, because they are not counted yet."""
    gmacs: float | None
    origin: str
    """Origin of the network, as in `TrialRecord.origin`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchStepped(Event):
    """A benchmark, or a choice of runtimes, starts its next step."""

    text: str
    """Description of the networks that the step times."""
    done: int
    """Number of finished steps."""
    total: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkPrepared(Event):
    """A network of a cohort is built and warmed up."""

    name: str
    done: int
    total: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworksTimed(Event):
    """More networks of a sample are timed and stored."""

    done: int
    total: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundTimed(Event):
    """A round of a timing is finished."""

    condition: str
    round: int
    rounds: int
    """Expected number of rounds."""
    images_per_s: float
    """Raw speed of the candidate in this round."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingStarted(Event):
    """A proxy training started, or was resumed from its checkpoint, and continues to its next score."""

    subject: dict[str, Any]
    """The network, in the format of `Subject.to_dict()`."""
    seed: int
    images_seen: int
    """Number of training images that the checkpoint has seen. 0 without a checkpoint."""
    images_total: int
    """Number of training images at the next score."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingProgressed(Event):
    """A proxy training made progress."""

    images_seen: int
    images_total: int
    loss: float | None = None
    """Latest loss. None for a custom proxy."""
    score: float | None = None
    """Current score of a custom proxy, if it reports one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RungReached(Event):
    """A network reached a rung or the full budget, and its score is stored in its record."""

    number: int
    """Number of the trial."""
    images_seen: int
    images_total: int
    """The full budget."""
    value: float
    goes_on: bool
    """True if the training continues. False at the full budget."""
    metric: str = "top1"
    compared: int = 0
    """Number of networks of the space with a score at this rung at the time of the decision. It includes this network
    unless it is a baseline."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfirmationForeseen(Event):
    """Networks on the front, near it or compared with it will be trained with more seeds."""

    networks: int
    trainings: int
    seconds: float
    """Estimated seconds of the trainings, from the earlier trainings of their networks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedScored(Event):
    """A network was trained with another seed, and the score is stored in its record."""

    number: int
    """Number of the trial."""
    seed: int
    value: float
    done: int
    total: int
    metric: str = "top1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OtherProxyScored(Event):
    """A network was scored with another proxy for comparison, and the score is stored in its record."""

    number: int
    """Number of the trial."""
    proxy: str
    value: float
    done: int
    """Number of finished scores and trainings."""
    total: int
    """Number of scores and trainings to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialFinished(Event):
    """A trial ended and its record was written."""

    number: int
    key: str
    state: str
    """`complete`, `stopped`, `infeasible` or `failed`."""
    reason: str | None
    images_per_s: float | None
    value: float | None
    seconds: float
    measured: int
    """Number of networks measured so far in the study."""
    total: int
    verdict: str | None = None
    """State of the machine during the timing, as in `Measurement.verdict`."""
    is_baseline: bool = False
    """True for a baseline, which is not part of the front."""
    metric: str = "top1"
    network: str = ""
    """The architecture in one line. Empty for a baseline because its key is its name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrontChanged(Event):
    """The front of a search changed: at its start, after a trial, or after repeated timings."""

    points: tuple[tuple[float, float], ...]
    """Images/s and score of each member, fastest first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchFinished(Event):
    """A search ended."""

    study: str
    measured: int
    total: int
    stopped_by: str
    """`total`, `timeout`, `exhausted` or `gain` (`search.min_gain`)."""
    seconds: float
    """Seconds of the whole run, including calibration and repeated timings."""


_KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in Event.__subclasses__()}


def event_to_dict(event: Event) -> dict[str, Any]:
    """Returns the event as plain data, with its kind in the field `event`."""
    return {"event": type(event).__name__, **dataclasses.asdict(event)}


def event_from_dict(fields: dict[str, Any]) -> Event:
    """Returns an event from the data of `event_to_dict`."""
    fields = dict(fields)
    return _KINDS[fields.pop("event")](**fields)
