"""Latency percentiles over the single calls in undisturbed rounds, with a 95 % interval.

Latency is the raw time of a single call, so it is not divided by that of the reference. Instead, disturbed rounds are
left out. A round is undisturbed if neither the network's block nor the reference's block was slow. A disturbance slows
down all calls of a round together, so the bootstrap for the interval resamples rounds, not calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from hilo_nas.measurement.rounds import fast_seconds
from hilo_nas.measurement.verdicts import SLOW

__all__ = ["PERCENTILES", "is_undisturbed", "latency_figures"]

PERCENTILES = (50, 95, 99)
_RESAMPLES = 300
_MIN_ROUNDS = 6


def is_undisturbed(own: Sequence[float], reference: Sequence[float]) -> list[bool]:
    """Returns for each round True if the blocks of network and reference both took at most 1.25 x their fast time."""
    limits = SLOW * fast_seconds(own), SLOW * fast_seconds(reference)
    return [ours <= limits[0] and theirs <= limits[1] for ours, theirs in zip(own, reference, strict=True)]


def latency_figures(
    seconds: Sequence[float], rounds: Sequence[int], own: Sequence[float], reference: Sequence[float]
) -> dict[str, float]:
    """Returns `latency_ms_pN` and the 95 % interval of the 95th percentile, from the calls in undisturbed rounds.

    If fewer than 6 undisturbed rounds have a call, all calls count, because 5 rounds are too few for an interval.

    Args:
        seconds: Seconds of each single call.
        rounds: Round of each single call.
        own: Seconds per call of the network in each round.
        reference: Seconds per call of the reference in each round.
    """
    quiet = is_undisturbed(own, reference)
    by_round: dict[int, list[float]] = {}
    for call, i in zip(seconds, rounds, strict=True):
        by_round.setdefault(i, []).append(call)
    kept = [calls for i, calls in by_round.items() if quiet[i]]
    if len(kept) < _MIN_ROUNDS:
        kept = list(by_round.values())
    pooled = sorted(call for calls in kept for call in calls)
    figures = {f"latency_ms_p{share}": _percentile(pooled, share) for share in PERCENTILES}
    random = Random(0)  # makes the interval reproducible
    drawn = sorted(
        _percentile(sorted(call for calls in random.choices(kept, k=len(kept)) for call in calls), 95)
        for _ in range(_RESAMPLES)
    )
    cut = _RESAMPLES // 40
    return {**figures, "latency_ms_p95_low": drawn[cut], "latency_ms_p95_high": drawn[-cut - 1]}


def _percentile(ordered: Sequence[float], share: int) -> float:
    """Returns the percentile of sorted seconds, in milliseconds: the smallest sample with `share` percent up to it."""
    return ordered[-(-share * len(ordered) // 100) - 1] * 1e3
