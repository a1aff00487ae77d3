"""What happens below the command line, as plain values: rooms emit events, `cli` draws them and the log keeps them."""

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
    "TrialFinished",
    "TrialStarted",
    "event_from_dict",
    "event_to_dict",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened; the class name is its kind."""


Emit = Callable[[Event], None]


def ignore_event(event: Event) -> None:
    """Receives an event and does nothing with it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Notice(Event):
    """A sentence for the user; a wish that is skipped is a warning, never silence."""

    text: str
    level: str = "info"
    """`info` or `warning`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataPrepared(Event):
    """Images decoded into the cache so far."""

    done: int
    total: int | None
    """None where the source does not know its length."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataRead(Event):
    """The images are ready: what they are, how they are split, and what was left out."""

    summary: dict[str, Any]
    """`DataSummary.to_dict()`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceAwaited(Event):
    """Others hold the device; this process waits until they let it go."""

    device: str
    holders: tuple[str, ...]
    """In words; empty where they did not say who they are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationStarted(Event):
    """The reference network is being timed for the first time on this device."""

    condition: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibrated(Event):
    """The reference network's speed, which anchors every later measurement of the study."""

    condition: str
    images_per_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationChanged(Event):
    """A new measurement of the reference's speed replaced the study's: all images/s are read by it."""

    condition: str
    old_images_per_s: float
    images_per_s: float

    @property
    def ratio(self) -> float:
        """Factor by which all images/s of the condition change."""
        return self.images_per_s / self.old_images_per_s


@dataclasses.dataclass(frozen=True, kw_only=True)
class LimitsForeseen(Event):
    """A sample of the space was timed to see whether the limits can be kept."""

    limits: tuple[str, ...]
    """As a user reads them."""
    networks: int
    """Networks drawn evenly from the space and timed."""
    keeping: int
    """How many of them keep every limit."""
    share_low: float
    """95 % interval of the share of the space's networks that do."""
    share_high: float
    smallest_keeps: bool
    """Whether one of the space's smallest networks does."""
    seen: tuple[str, ...]
    """Per limit, the range of the values measured."""
    timed_by: str | None = None
    """Name of the study whose timings were copied; None where the sample was timed now."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CostForeseen(Event):
    """Estimated cost of the search that is about to begin, from a few networks tried for a moment."""

    trials: int
    total_s: float
    seconds: float
    """Seconds that the estimate took."""
    tried: int | None = None
    """Networks tried so far, where further ones will refine the estimate; None for the final one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CohortTimed(Event):
    """Networks of a study were timed again, side by side."""

    networks: int
    condition: str
    verdict: str
    """The worst that was found while they were timed."""
    text: str
    """What that means, and what to do about it."""
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchStarted(Event):
    """A search opened or resumed its study."""

    study: str
    done: int
    """Networks measured before this run."""
    total: int
    """Networks to be measured in all."""
    device: str
    stopped: int = 0
    """Networks stopped at a rung before this run."""
    metric: str = "top1"
    """Of the study's scores; see `ProxyScore.metric`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialStarted(Event):
    """A candidate was chosen."""

    number: int
    key: str
    params_m: float | None
    """None for a peer, whose parameters and multiply-adds are still to be counted."""
    gmacs: float | None
    origin: str
    """See `TrialRecord.origin`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchStepped(Event):
    """A bench begins its next step."""

    text: str
    """What is timed in it."""
    done: int
    """Steps that are over."""
    total: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkPrepared(Event):
    """One more network of a cohort is built and warm."""

    name: str
    done: int
    total: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworksTimed(Event):
    """So many networks of a sample are timed and stored."""

    done: int
    total: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundTimed(Event):
    """One round of timing blocks is done."""

    condition: str
    round: int
    rounds: int
    images_per_s: float
    """The candidate's raw speed in this round."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingProgressed(Event):
    """A proxy training moved on."""

    images_seen: int
    images_total: int
    loss: float | None = None
    """The latest; None of a proxy that is not ours."""
    score: float | None = None
    """What such a proxy says of its score so far."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RungReached(Event):
    """A network under training was scored; that score is in its record."""

    number: int
    """The trial's."""
    images_seen: int
    images_total: int
    """The full budget."""
    value: float
    goes_on: bool
    """Whether it is trained further; of the full budget, false."""
    metric: str = "top1"
    compared: int = 0
    """Networks of the space with a score at this rung when that was decided, itself included where it is one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfirmationForeseen(Event):
    """Networks on the front, near it or compared with it are to be trained with further seeds."""

    networks: int
    trainings: int
    seconds: float
    """What the trainings will take, from what their networks took before."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedScored(Event):
    """A network was trained with a further seed; that score is in its record."""

    number: int
    """The trial's."""
    seed: int
    value: float
    done: int
    total: int
    metric: str = "top1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class OtherProxyScored(Event):
    """A network was judged by a further proxy, for comparison; that score is in its record."""

    number: int
    """The trial's."""
    proxy: str
    value: float
    done: int
    """Scores and trainings that are over, of those due."""
    total: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialFinished(Event):
    """A trial's record is written."""

    number: int
    key: str
    state: str
    """`complete`, `stopped`, `infeasible` or `failed`."""
    reason: str | None
    images_per_s: float | None
    value: float | None
    seconds: float
    measured: int
    """Networks measured so far in the study."""
    total: int
    verdict: str | None = None
    """How the machine behaved while the network was timed; see `Measurement.verdict`."""
    is_peer: bool = False
    """Whether the network is one of others, which fronts leave out."""
    metric: str = "top1"
    network: str = ""
    """The architecture in one line; empty for a peer, whose key is its name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrontChanged(Event):
    """A search has another front than before: at its start, after a trial, or after timings were repeated."""

    points: tuple[tuple[float, float], ...]
    """Images/s and value of each member, the fastest first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchFinished(Event):
    """A search ended."""

    study: str
    measured: int
    total: int
    stopped_by: str
    """`total`, `timeout` or `exhausted`."""
    seconds: float
    """Of the whole run, calibration and repeated timings included."""


_KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in Event.__subclasses__()}


def event_to_dict(event: Event) -> dict[str, Any]:
    """Returns the event as plain data, its kind under `event`."""
    return {"event": type(event).__name__, **dataclasses.asdict(event)}


def event_from_dict(fields: dict[str, Any]) -> Event:
    """Builds the event that `event_to_dict` described."""
    fields = dict(fields)
    return _KINDS[fields.pop("event")](**fields)
