"""Statistic of interleaved rounds: the ratio of two speeds. `intervals` has its errors, `verdicts` the machine's state.

Each round times one block of calls of every network. The time of a network is the mean of its fast rounds
(`fast_seconds`). The ratio of these means compares two networks.

This statistic was chosen by an experiment with 15 LITv2 networks on two shared CPU cores: 3.1 s of rounds per network
and pass, 4 passes, batch size 32 at 32 px, on a quiet machine and with a bursty load on one core (`hilo-nas bench ruler
--device cpu --batch-size 32 --passes 4`, with the report in benchmarks/). The table lists the coefficient of variation
between passes of a network's time relative to that of the whole round, as the median over the networks:

    statistic               quiet     bursty
    mean                    1.4 %     2.8 %
    median of ratios        1.2 %     5.3 %
    ratio of minima         1.1 %     1.4 %
    ratio of fast rounds    0.6 %     1.2 %

The median fails if most rounds are disturbed. The minimum depends on a single lucky block.

The code is plain Python because there are few rounds. Sequences that are compared must belong to the same rounds, in
the same order.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

__all__ = ["Rounds", "fast_places", "fast_seconds", "ratio", "robust_spread"]

_FAST = (0.03, 0.15)
"""Percentiles of a network's rounds that bound its fast rounds. The very fastest rounds may be luck."""

Rounds = Sequence[float]
"""Mean seconds per call of one network, one value per round."""


def fast_seconds(rounds: Rounds) -> float:
    """Returns the mean seconds of a network's fast rounds, which lie between its 3rd and its 15th percentile."""
    first, last = fast_places(len(rounds))
    return statistics.fmean(sorted(rounds)[first:last])


def fast_places(rounds: int) -> tuple[int, int]:
    """Returns the first index (inclusive) and the last index (exclusive) of the fast rounds among the sorted rounds."""
    first = round(rounds * _FAST[0])
    return first, max(first + 1, round(rounds * _FAST[1]))


def ratio(own: Rounds, other: Rounds) -> float:
    """Returns the speed of a network relative to another one. Above 1, the first network is faster."""
    return fast_seconds(other) / fast_seconds(own)


def robust_spread(values: Sequence[float]) -> float:
    """Returns 1.4826 times the median absolute deviation, which estimates the standard deviation without outliers."""
    middle = statistics.median(values)
    return 1.4826 * statistics.median(abs(value - middle) for value in values)
