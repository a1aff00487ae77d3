"""Timing calls against a clock: warm-up, blocks long enough to drown the clock, rounds that interleave.

Nothing here knows of torch: a call is a function, synchronising is a function, the clock is a function. So tests run it
on a fake clock.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from random import Random

__all__ = ["MIN_BLOCK_S", "Stopwatch", "WarmUp"]

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
        entrants: Mapping[str, tuple[Call, int]],
        *,
        is_enough: Callable[[Mapping[str, Sequence[float]]], bool],
        random: Random,
    ) -> dict[str, tuple[float, ...]]:
        """Returns the seconds of one call of each entrant, one value per round; every round has an order of its own.

        Args:
            entrants: By name, one call and the calls that make a block.
            is_enough: Told after each round all samples so far; True ends the timing.
            random: Draws the orders.
        """
        rounds: dict[str, list[float]] = {name: [] for name in entrants}
        order = list(entrants)
        while True:
            random.shuffle(order)
            for name in order:
                call, calls = entrants[name]
                rounds[name].append(self.time_block(call, calls))
            if is_enough(rounds):
                return {name: tuple(seconds) for name, seconds in rounds.items()}

    def time_latency(self, call: Call, *, at_most_s: float, at_most: int) -> tuple[float, ...]:
        """Returns the seconds of single calls, each synchronised, as a caller who waits for each would see them."""
        start = self.clock()
        samples = [self.time_block(call, 1)]
        while len(samples) < at_most and self.clock() - start < at_most_s:
            samples.append(self.time_block(call, 1))
        return tuple(samples)


def _agree(blocks: Sequence[float]) -> bool:
    return max(blocks) <= min(blocks) * (1 + _AGREEMENT)
