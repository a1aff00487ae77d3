"""What interleaved rounds say: how fast one network is beside another, how sure that is, how the machine behaved.

In every round each network is timed once, for a block of calls. A network's time is that of its fast rounds
(`fast_seconds`), and two networks are compared by the ratio of theirs. Which statistic serves best was taken from
samples: 15 LITv2 networks on two shared CPU cores, 3.1 s of rounds per network and pass, 4 passes, batch 32 at 32 px,
the machine as quiet as it gets and with a bursty load on one core (`hilo-nas bench ruler --device cpu --batch-size 32
--passes 4`; the report lies in benchmarks/). Coefficient of variation between passes, of the time over
that of the whole round (median over the networks), quiet / bursty: mean 1.4 / 2.8 %, median of ratios 1.2 / 5.3 %,
ratio of minima 1.1 / 1.4 %, ratio of the fast rounds 0.6 / 1.2 %. The median fails where most rounds are disturbed, the
minimum hangs on one lucky block.

Plain Python: rounds are few. Sequences that are compared belong to the same rounds, in the same order.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any

from hilo_nas.measurement import VERDICTS, Calibration, Contention, Measurement, find_contention

__all__ = [
    "MIN_ROUNDS",
    "POWER_CAP",
    "SLOW",
    "Judgement",
    "cohort_quality",
    "error_apart",
    "fast_seconds",
    "interval",
    "is_throttling",
    "judge",
    "judge_calibration",
    "judge_cohort",
    "judge_cohorts",
    "normal_above_zero",
    "probability_faster",
    "quality",
    "ratio",
    "robust_spread",
    "standard_error",
    "verdict_name",
    "verdict_of",
]

POWER_CAP = "software power cap"
"""The one reason for a lower clock that is no throttling; see `is_throttling`."""
MIN_ROUNDS = 12
"""Rounds below which neither an interval nor a verdict says anything."""
_FAST = (0.03, 0.15)
"""The band of a network's rounds, ordered by time, that stands for it: the very fastest may be luck."""
_RESAMPLES = 300
SLOW = 1.25
"""A block that takes so many times its network's fast time was disturbed."""
_BURSTY_SHARE = 0.2
"""Share of disturbed blocks from which a machine is bursty.

By it, 12 % of the timings on the machine as quiet as it got, and 87 % of those under the load, were judged bursty (the
report named above).
"""
_BUSY_CORES = 0.2
"""Cores busy with other work from which a slowdown is theirs."""
_THROTTLED = 1.06
"""A device has throttled when everything became slower by so much from the first third of the rounds to the last."""

_JUDGEMENT = "_judgement"
"""Where a measurement keeps its judgement, as a cached property would."""
_JUDGED_SINCE = 2
"""Protocol from which rounds are judged."""

Rounds = Sequence[float]
"""Seconds of one call, one value per round."""


def fast_seconds(rounds: Rounds) -> float:
    """Returns the mean of a network's fast rounds, in seconds: those between its 3rd and its 15th percentile."""
    first, last = _fast_places(len(rounds))
    return statistics.fmean(sorted(rounds)[first:last])


def _fast_places(rounds: int) -> tuple[int, int]:
    """The places of the fast rounds among all, in the order of their seconds; the second is the first beyond them."""
    first = round(rounds * _FAST[0])
    return first, max(first + 1, round(rounds * _FAST[1]))


def ratio(own: Rounds, other: Rounds) -> float:
    """Returns how many times as fast as the other network this one is."""
    return fast_seconds(other) / fast_seconds(own)


def robust_spread(values: Sequence[float]) -> float:
    """Returns 1.4826 times the median absolute deviation: the standard deviation, if outliers are left out."""
    middle = statistics.median(values)
    return 1.4826 * statistics.median(abs(value - middle) for value in values)


def interval(own: Rounds, other: Rounds, *, share: float = 0.95) -> tuple[float, float]:
    """Returns the bootstrap interval of `ratio`: pairs of rounds are drawn anew, never single calls.

    Calls of a block are slowed down together, so they are no samples of their own; and what slows down a round may hit
    both networks, so the two stay paired. The interval knows these rounds alone: what changes from one timing to the
    next is not in it.
    """
    ratios = sorted(_resampled(own, other, ratio))
    cut = (1 - share) / 2
    return ratios[math.floor(cut * len(ratios))], ratios[math.ceil((1 - cut) * len(ratios)) - 1]


def standard_error(own: Rounds, other: Rounds) -> float:
    """Returns the bootstrap standard error of the logarithm of `ratio`: about its relative error."""
    import numpy as np  # a front of 3,000 networks asks for hundreds of these

    if len(own) != len(other):
        raise ValueError(f"rounds must be paired, but got {len(own)} and {len(other)}")
    places, (first, last) = np.array(_draw_places(len(own))), _fast_places(len(own))
    fast = [np.sort(np.asarray(rounds)[places], axis=1)[:, first:last].mean(axis=1) for rounds in (own, other)]
    return float(np.log(fast[1] / fast[0]).std())


def error_apart(shared: Measurement) -> float:
    """Returns the relative standard error between two networks of shared rounds that these rounds do not show.

    Others who used the cores slowed each network down by a share of its own.

    Args:
        shared: The timing of either network, with the device's state in their rounds.
    """
    return 0.0 if shared.contention is None else shared.contention.relative_error_between


def probability_faster(own: Rounds, other: Rounds, apart: float = 0.0) -> float:
    """Returns how probable it is that this network is the faster one, from paired rounds.

    The logarithm of `ratio` and its bootstrap standard error, as a normal distribution: 300 draws alone could not tell
    0.999 from 1.

    Args:
        own: Its rounds.
        other: Those of the other network.
        apart: Relative standard error that the rounds do not show; see `error_apart`.
    """
    return normal_above_zero(math.log(ratio(own, other)), math.hypot(standard_error(own, other), apart))


def normal_above_zero(mean: float, deviation: float) -> float:
    """Returns how probable it is that a normally distributed value lies above zero; 0.5 for a difference of nothing."""
    if deviation <= 0:
        return 0.5 if mean == 0 else float(mean > 0)
    return 0.5 * (1 + math.erf(mean / deviation / math.sqrt(2)))


def _resampled(own: Rounds, other: Rounds, statistic: Callable[[Rounds, Rounds], float]) -> list[float]:
    pairs = list(zip(own, other, strict=True))
    return [statistic([pairs[i][0] for i in drawn], [pairs[i][1] for i in drawn]) for drawn in _draw_places(len(pairs))]


@functools.lru_cache(maxsize=64)
def _draw_places(rounds: int) -> Sequence[Sequence[int]]:
    """The places of the rounds in each sample, drawn once: the same rounds always give the same interval."""
    random = Random(0)
    return [random.choices(range(rounds), k=rounds) for _ in range(_RESAMPLES)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the rounds and the device say of the machine."""

    verdict: str
    """`steady`, `bursty`, `throttled` or `contended`."""
    text: str
    """What was seen, and what to do about it."""


def judge(
    rounds: Mapping[str, Rounds],
    *,
    device_state: Mapping[str, Any] | None = None,
    contention: Contention | None = None,
) -> Judgement:
    """Returns how the machine behaved while some networks were timed side by side.

    Args:
        rounds: Seconds per round of each network, all in the same rounds.
        device_state: What the device said of itself meanwhile, as in `Measurement.device_state`.
        contention: What others took of the cores that the timing needed; nothing in the rounds need show it.
    """
    state = device_state or {}
    others_cores = state.get("others_cores", 0.0)
    if contention is not None:
        error, between = 100 * contention.relative_error, 100 * contention.relative_error_between
        return Judgement(
            verdict="contended",
            text=f"{contention.text}, which the timing needed: images/s may be off by {error:.0f} %, and ratios by "
            f"{between:.0f} %, or more. {contention.way_out}",
        )
    slower = _slowdown(list(rounds.values()))
    if is_throttling(state) or (slower > _THROTTLED and others_cores < _BUSY_CORES):
        slowdown = f"everything became {100 * (slower - 1):.0f} % slower"
        seen = slowdown if slower > _THROTTLED else "the device says so itself"
        return Judgement(
            verdict="throttled",
            text=f"the device slowed down while it was timed ({seen}): ratios still hold, images/s less so. Cool it, "
            "or set a lower fixed clock or power limit, and time again.",
        )
    limits = {name: SLOW * fast_seconds(own) for name, own in rounds.items()}
    disturbed = [seconds > limits[name] for name, own in rounds.items() for seconds in own]
    share = sum(disturbed) / len(disturbed)
    if share >= _BURSTY_SHARE or slower > _THROTTLED:
        used = f" ({others_cores:.1f} cores)" if others_cores >= _BUSY_CORES else ""
        seen = f"disturbed {100 * share:.0f} % of the timed blocks"
        if share < _BURSTY_SHARE:
            seen = f"made everything {100 * (slower - 1):.0f} % slower meanwhile"
        return Judgement(
            verdict="bursty",
            text=f"other work{used} {seen}: the fast rounds count, and intervals are wide. Time again on a quiet "
            "machine, or for longer.",
        )
    return Judgement(verdict="steady", text=f"{100 * share:.0f} % of the timed blocks were disturbed")


def _slowdown(rounds: Sequence[Rounds]) -> float:
    """How many times as long as the first third the last third of the rounds took, for the network that felt it least.

    1 where there are too few rounds to tell.
    """
    third = len(rounds[0]) // 3
    if third < MIN_ROUNDS // 2:
        return 1.0
    return min(fast_seconds(own[-third:]) / fast_seconds(own[:third]) for own in rounds)


def is_throttling(device_state: Mapping[str, Any]) -> bool:
    """Returns whether a device said that it slowed down; a power cap alone is how many cards always run.

    Args:
        device_state: `Measurement.device_state`.
    """
    return bool(set(device_state.get("throttle_reasons", ())) - {POWER_CAP})


def verdict_of(measurement: Measurement) -> Judgement | None:
    """Returns how the machine behaved while a network was timed, judged by what is stored.

    None of protocol 1, and where the rounds were not kept. The stored `Measurement.verdict` is what the version that
    timed it knew. Costs about 50 us once, since the judgement stays with the measurement.
    """
    if measurement.protocol < _JUDGED_SINCE or not measurement.reference_seconds:
        return None
    kept = vars(measurement)
    if _JUDGEMENT not in kept:
        kept[_JUDGEMENT] = judge(
            {"own": measurement.call_seconds, "reference": measurement.reference_seconds},
            device_state=measurement.device_state,
            contention=measurement.contention,
        )
    found: Judgement = kept[_JUDGEMENT]
    return found


def verdict_name(measurement: Measurement) -> str | None:
    """Returns the verdict of `verdict_of`, one of `VERDICTS`; without rounds the stored one, which may be None."""
    judgement = verdict_of(measurement)
    return measurement.verdict if judgement is None else judgement.verdict


def judge_calibration(calibration: Calibration, *, threads: int | None) -> Judgement:
    """Returns how the machine behaved while the reference was calibrated, judged by what is stored.

    Args:
        calibration: The calibration.
        threads: Those of its condition.
    """
    state, device = calibration.device_state, calibration.device
    return judge(
        {"reference": calibration.call_seconds},
        device_state=state,
        contention=find_contention(state, threads=threads, device=device),
    )


def judge_cohorts(measurements: Iterable[Measurement]) -> list[Judgement]:
    """Returns how the machine behaved while networks were timed, a judgement for those that shared their rounds."""
    cohorts: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        cohorts.setdefault(measurement.cohort, []).append(measurement)
    judgements = []
    for members in cohorts.values():
        rounds = {str(i): member.call_seconds for i, member in enumerate(members)}
        rounds["reference"] = members[0].reference_seconds
        worst = max(members, key=lambda member: (member.contention_error, is_throttling(member.device_state)))
        judgements.append(judge(rounds, device_state=worst.device_state, contention=worst.contention))
    return judgements


def judge_cohort(measurements: Iterable[Measurement]) -> Judgement:
    """Returns the worst of `judge_cohorts`; there must be at least one measurement."""
    return max(judge_cohorts(measurements), key=lambda judgement: VERDICTS.index(judgement.verdict))


def cohort_quality(measurements: Sequence[Measurement]) -> int:
    """Returns the `quality` of networks that were timed together, judged by all of their rounds."""
    if any(verdict_of(measurement) is None for measurement in measurements):
        return max(quality(measurement) for measurement in measurements)
    return VERDICTS.index(judge_cohort(measurements).verdict)


def quality(measurement: Measurement) -> int:
    """Returns the place of a timing's verdict in `VERDICTS`: 0 is the best, for which a timing without one counts."""
    verdict = verdict_name(measurement)
    return 0 if verdict is None else VERDICTS.index(verdict)
