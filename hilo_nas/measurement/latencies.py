"""Latency from single calls inside the rounds: percentiles over undisturbed rounds, with an interval.

A caller waits for single calls, so latency is not divided by the reference's. Instead, rounds that other work disturbed
are left out: a round counts if neither the network's block nor the reference's was slow. Calls of one round are slowed
down together, so rounds are drawn anew for the interval, never calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from hilo_nas.measurement.rounds import SLOW, fast_seconds

__all__ = ["PERCENTILES", "is_undisturbed", "latency_figures"]

PERCENTILES = (50, 95, 99)
_RESAMPLES = 300
_LEAST_ROUNDS = 6


def is_undisturbed(own: Sequence[float], reference: Sequence[float]) -> list[bool]:
    """Returns per round whether neither the network's block nor the reference's took 1.25 times its fast time."""
    limits = SLOW * fast_seconds(own), SLOW * fast_seconds(reference)
    return [ours <= limits[0] and theirs <= limits[1] for ours, theirs in zip(own, reference, strict=True)]


def latency_figures(
    seconds: Sequence[float], rounds: Sequence[int], own: Sequence[float], reference: Sequence[float]
) -> dict[str, float]:
    """Returns `latency_ms_pN` and the 95 % interval of the 95th percentile, from the calls of undisturbed rounds.

    Where fewer than 6 rounds with a call were undisturbed, all calls count: so few would give no interval.

    Args:
        seconds: Of each single call.
        rounds: The round of each.
        own: The network's seconds per call and round.
        reference: The reference's.
    """
    quiet = is_undisturbed(own, reference)
    by_round: dict[int, list[float]] = {}
    for call, i in zip(seconds, rounds, strict=True):
        by_round.setdefault(i, []).append(call)
    kept = [calls for i, calls in by_round.items() if quiet[i]]
    if len(kept) < _LEAST_ROUNDS:
        kept = list(by_round.values())
    pooled = sorted(call for calls in kept for call in calls)
    figures = {f"latency_ms_p{share}": _percentile(pooled, share) for share in PERCENTILES}
    random = Random(0)  # the same calls always give the same interval
    drawn = sorted(
        _percentile(sorted(call for calls in random.choices(kept, k=len(kept)) for call in calls), 95)
        for _ in range(_RESAMPLES)
    )
    cut = _RESAMPLES // 40
    return {**figures, "latency_ms_p95_low": drawn[cut], "latency_ms_p95_high": drawn[-cut - 1]}


def _percentile(ordered: Sequence[float], share: int) -> float:
    """The smallest sample in milliseconds that this share of all does not exceed."""
    return ordered[-(-share * len(ordered) // 100) - 1] * 1e3
