"""Timing calls against a clock: warm-up, blocks long enough to drown the clock, rounds that interleave.

Nothing here knows of torch: a call is a function, synchronising is a function, the clock is a function. So tests run it
on a fake clock.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Callable, Sequence

__all__ = ["MIN_BLOCK_S", "Rounds", "Stopwatch", "WarmUp", "robust_spread"]

MIN_BLOCK_S = 0.02
"""Least length of a timed block in seconds."""

_AGREEMENT = 0.10
"""The last blocks of a warm-up agree when the slowest takes at most this share longer than the fastest."""
_AGREEING_BLOCKS = 4

Call = Callable[[], object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmUp:
    """What a warm-up found."""

    calls: int
    call_seconds: float
    """Median of the last blocks: seconds of one call."""
    steady: bool
    """Whether the last blocks agreed before the time was up."""

    @property
    def calls_per_block(self) -> int:
        """Calls that make a block of at least `MIN_BLOCK_S`."""
        return max(1, -(-int(MIN_BLOCK_S * 1e9) // max(1, int(self.call_seconds * 1e9))))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rounds:
    """Interleaved samples of a candidate and the reference."""

    candidate: tuple[float, ...]
    """Seconds of one call, one block a round."""
    reference: tuple[float, ...]
    """The same for the reference, which comes first and last: one more than the candidate has."""

    @property
    def ratios(self) -> tuple[float, ...]:
        """Per round, how many times the reference's speed the candidate has; drift within a round cancels."""
        around = itertools.pairwise(self.reference)
        return tuple((before + after) / 2 / own for own, (before, after) in zip(self.candidate, around, strict=True))


def robust_spread(values: Sequence[float]) -> float:
    """Returns 1.4826 times the median absolute deviation: the standard deviation, if outliers are left out."""
    middle = statistics.median(values)
    return 1.4826 * statistics.median(abs(value - middle) for value in values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stopwatch:
    """Times calls on one device."""

    clock: Callable[[], float]
    """Returns seconds, monotonic."""
    synchronize: Callable[[], None]
    """Waits until the device has done everything asked of it."""

    def time_block(self, call: Call, calls: int) -> float:
        """Returns the mean seconds of one call over a block, synchronised around it."""
        self.synchronize()
        start = self.clock()
        for _ in range(calls):
            call()
        self.synchronize()
        return (self.clock() - start) / calls

    def warm_up(self, call: Call, *, at_most_s: float) -> WarmUp:
        """Calls until the last blocks agree, or until the time is up; at least five blocks, however long they take."""
        start = self.clock()
        blocks = [self.time_block(call, 1)]
        total = 1
        while True:
            steady = len(blocks) > _AGREEING_BLOCKS and _agree(blocks[-_AGREEING_BLOCKS:])
            found = WarmUp(calls=total, call_seconds=statistics.median(blocks[-_AGREEING_BLOCKS:]), steady=steady)
            enough = len(blocks) > _AGREEING_BLOCKS and self.clock() - start >= at_most_s
            if steady or enough:
                return found
            calls = WarmUp(calls=0, call_seconds=blocks[-1], steady=False).calls_per_block
            blocks.append(self.time_block(call, calls))
            total += calls

    def time_rounds(
        self,
        candidate: Call,
        reference: Call,
        *,
        calls: tuple[int, int],
        rounds: int,
        on_round: Callable[[int, float], None] = lambda done, seconds: None,
    ) -> Rounds:
        """Returns blocks of the two in turn: reference, candidate, reference, candidate, ..., reference.

        Args:
            candidate: One call of the network in question.
            reference: One call of the reference network.
            calls: Calls per block of candidate and reference.
            rounds: Number of the candidate's blocks.
            on_round: Told after each round its number, from 1, and the candidate's seconds per call.
        """
        own: list[float] = []
        anchors = [self.time_block(reference, calls[1])]
        for done in range(1, rounds + 1):
            own.append(self.time_block(candidate, calls[0]))
            anchors.append(self.time_block(reference, calls[1]))
            on_round(done, own[-1])
        return Rounds(candidate=tuple(own), reference=tuple(anchors))

    def time_latency(self, call: Call, *, at_most_s: float, at_most: int) -> tuple[float, ...]:
        """Returns the seconds of single calls, each synchronised, as a caller who waits for each would see them."""
        start = self.clock()
        samples = [self.time_block(call, 1)]
        while len(samples) < at_most and self.clock() - start < at_most_s:
            samples.append(self.time_block(call, 1))
        return tuple(samples)


def _agree(blocks: Sequence[float]) -> bool:
    return max(blocks) <= min(blocks) * (1 + _AGREEMENT)
