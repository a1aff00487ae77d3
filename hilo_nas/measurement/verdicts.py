"""Verdicts on the machine while it timed networks: steady, bursty, throttled or contended."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hilo_nas.measurement import VERDICTS, Calibration, Contention, Measurement, find_contention
from hilo_nas.measurement.rounds import Rounds, fast_seconds

__all__ = [
    "MIN_ROUNDS",
    "POWER_CAP",
    "SLOW",
    "Judgement",
    "cohort_quality",
    "is_throttling",
    "judge",
    "judge_calibration",
    "judge_cohort",
    "judge_cohorts",
    "quality",
    "verdict_name",
    "verdict_of",
]

POWER_CAP = "software power cap"
"""The only reason for a reduced clock that does not count as throttling (see `is_throttling`)."""
MIN_ROUNDS = 12
"""Minimum number of rounds for a meaningful interval or verdict."""
SLOW = 1.25
"""Factor of a network's fast time above which a block counts as disturbed."""
_BURSTY_SHARE = 0.2
"""Minimum share of disturbed blocks on a bursty machine.

In the experiment above, 12 % of the timings on the quiet machine and 87 % of those under load were judged bursty.
"""
_BUSY_CORES = 0.2
"""Minimum number of cores with other work that explains a slowdown. Below it, the device has throttled."""
_THROTTLED = 1.06
"""Factor of a slowdown from the first to the last third of the rounds above which a device has throttled."""

_JUDGEMENT = "_judgement"
"""Attribute in which a measurement caches its `Judgement`."""
_JUDGED_SINCE = 2
"""First protocol whose rounds are judged."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """Verdict on the machine during a timing, judged from the rounds and the device state."""

    verdict: str
    """`steady`, `bursty`, `throttled` or `contended`."""
    text: str
    """Finding behind the verdict, and advice to the user."""


def judge(
    rounds: Mapping[str, Rounds],
    *,
    device_state: Mapping[str, Any] | None = None,
    contention: Contention | None = None,
) -> Judgement:
    """Returns the verdict on the machine while networks were timed in the same rounds.

    Args:
        rounds: Seconds per call of each network in each round.
        device_state: State of the device during the rounds, as in `Measurement.device_state`.
        contention: CPU contention during the rounds, which the rounds themselves may not show.
    """
    state = device_state or {}
    others_cores = state.get("others_cores", 0.0)
    if contention is not None:
        error, between = 100 * contention.relative_error, 100 * contention.relative_error_between
        return Judgement(
            verdict="contended",
            text=f"{contention.text}, but the timing needed these cores: the error of images/s may be {error:.0f} % or "
            f"more, and that of ratios {between:.0f} % or more. {contention.way_out}",
        )
    slower = _slowdown(list(rounds.values()))
    if is_throttling(state) or (slower > _THROTTLED and others_cores < _BUSY_CORES):
        slowdown = f"everything became {100 * (slower - 1):.0f} % slower"
        seen = slowdown if slower > _THROTTLED else "the device reported throttling"
        return Judgement(
            verdict="throttled",
            text=f"the device slowed down during the timing ({seen}): ratios are still valid, but images/s are less "
            "accurate. Cool the device, or set a lower fixed clock or power limit, and repeat the timing.",
        )
    limits = {name: SLOW * fast_seconds(own) for name, own in rounds.items()}
    disturbed = [seconds > limits[name] for name, own in rounds.items() for seconds in own]
    share = sum(disturbed) / len(disturbed)
    if share >= _BURSTY_SHARE or slower > _THROTTLED:
        used = f" ({others_cores:.1f} cores)" if others_cores >= _BUSY_CORES else ""
        seen = f"disturbed {100 * share:.0f} % of the timed blocks"
        if share < _BURSTY_SHARE:
            seen = f"made everything {100 * (slower - 1):.0f} % slower during the timing"
        return Judgement(
            verdict="bursty",
            text=f"other work{used} {seen}: only fast rounds count, so intervals are wide. Repeat the timing on a "
            "quiet machine, or for a longer time.",
        )
    return Judgement(verdict="steady", text=f"{100 * share:.0f} % of the timed blocks were disturbed")


def _slowdown(rounds: Sequence[Rounds]) -> float:
    """Returns the slowdown factor of the least affected network from the first to the last third of the rounds.

    It is 1 if there are too few rounds.
    """
    third = len(rounds[0]) // 3
    if third < MIN_ROUNDS // 2:
        return 1.0
    return min(fast_seconds(own[-third:]) / fast_seconds(own[:third]) for own in rounds)


def is_throttling(device_state: Mapping[str, Any]) -> bool:
    """Returns True if the device reported throttling. A power cap does not count because many GPUs always have one.

    Args:
        device_state: `Measurement.device_state`.
    """
    return bool(set(device_state.get("throttle_reasons", ())) - {POWER_CAP})


def verdict_of(measurement: Measurement) -> Judgement | None:
    """Returns the verdict on the machine while a network was timed, judged again from the stored rounds.

    None for protocol 1, and if the rounds are not stored. The stored `Measurement.verdict` can differ because it comes
    from the version that made the timing. The first call takes about 50 us. Later calls use a cached judgement.
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
    """Returns the verdict of `verdict_of`, one of `VERDICTS`. Without rounds, returns the stored one or None."""
    judgement = verdict_of(measurement)
    return measurement.verdict if judgement is None else judgement.verdict


def judge_calibration(calibration: Calibration, *, threads: int | None) -> Judgement:
    """Returns the verdict on the machine during the calibration of the reference network.

    It is judged from the stored seconds per call. `Judgement.verdict` is one of `VERDICTS`.

    Args:
        calibration: The calibration.
        threads: Number of CPU threads during the calibration.
    """
    state, device = calibration.device_state, calibration.device
    return judge(
        {"reference": calibration.call_seconds},
        device_state=state,
        contention=find_contention(state, threads=threads, device=device),
    )


def judge_cohorts(measurements: Iterable[Measurement]) -> list[Judgement]:
    """Returns one verdict on the machine per cohort, a group of networks that were timed in the same rounds."""
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
    """Returns the worst verdict of `judge_cohorts`, in the order of `VERDICTS`. Needs at least one measurement."""
    return max(judge_cohorts(measurements), key=lambda judgement: VERDICTS.index(judgement.verdict))


def cohort_quality(measurements: Sequence[Measurement]) -> int:
    """Returns the `quality` of a cohort, judged from the rounds of all its networks: 0 is the best, 3 the worst."""
    if any(verdict_of(measurement) is None for measurement in measurements):
        return max(quality(measurement) for measurement in measurements)
    return VERDICTS.index(judge_cohort(measurements).verdict)


def quality(measurement: Measurement) -> int:
    """Returns the index of a timing's verdict in `VERDICTS`: 0 (`steady`) is the best, 3 the worst.

    A timing without a verdict has 0.
    """
    verdict = verdict_name(measurement)
    return 0 if verdict is None else VERDICTS.index(verdict)
