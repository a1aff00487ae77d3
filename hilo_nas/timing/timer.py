"""Timing calls against a clock: warm-up, blocks long enough to drown the clock, rounds that interleave.

Nothing here knows of torch: a call is a function, synchronising is a function, the clock is a function. So tests run it
on a fake clock.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from random import Random

__all__ = ["MIN_BLOCK_S", "SingleCalls", "Stopwatch", "WarmUp"]

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

    calls_per_block: int
    """Calls that make a block of at least `Stopwatch.min_block_s`."""


@dataclasses.dataclass(kw_only=True)
class SingleCalls:
    """Single calls of one network inside the rounds, each synchronised, as a caller who waits for each would see them.

    There are `wanted` calls, unless these take longer than `at_most_s`: then as many as fit, and at least one a round.
    """

    per_round: int
    wanted: int
    at_most_s: float
    found: list[tuple[int, float]] = dataclasses.field(default_factory=list)
    """The round and the seconds of each."""

    @property
    def is_enough(self) -> bool:
        """Whether there are as many as wanted, or their time is up."""
        return len(self.found) >= self.wanted or sum(seconds for _, seconds in self.found) >= self.at_most_s


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stopwatch:
    """Times calls on one device."""

    clock: Callable[[], float]
    """Returns seconds, monotonic."""
    synchronize: Callable[[], None]
    """Waits until the device has done everything asked of it."""
    min_block_s: float = MIN_BLOCK_S
    """Least length of a block of calls in seconds."""

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
            enough = len(blocks) > _AGREEING_BLOCKS and self.clock() - start >= at_most_s
            if steady or enough:
                call_s = statistics.median(blocks[-_AGREEING_BLOCKS:])
                per_block = self._calls_per_block(call_s)
                return WarmUp(calls=total, call_seconds=call_s, steady=steady, calls_per_block=per_block)
            calls = self._calls_per_block(blocks[-1])
            blocks.append(self.time_block(call, calls))
            total += calls

    def _calls_per_block(self, call_seconds: float) -> int:
        return max(1, -(-int(self.min_block_s * 1e9) // max(1, int(call_seconds * 1e9))))

    def time_rounds(
        self,
        entrants: Mapping[str, tuple[Call, int]],
        *,
        is_enough: Callable[[Mapping[str, Sequence[float]]], bool],
        random: Random,
        singles: Mapping[str, SingleCalls] | None = None,
    ) -> dict[str, tuple[float, ...]]:
        """Returns the seconds of one call of each entrant, one value per round; every round has an order of its own.

        Args:
            entrants: By name, one call and the calls that make a block.
            is_enough: Told after each round all samples so far; True ends the timing.
            random: Draws the orders.
            singles: By name, the single calls that follow a network's blocks; a block of one call is one of them.
        """
        rounds: dict[str, list[float]] = {name: [] for name in entrants}
        order = list(entrants)
        while True:
            random.shuffle(order)
            for name in order:
                call, calls = entrants[name]
                seconds = self.time_block(call, calls)
                rounds[name].append(seconds)
                if singles and name in singles:
                    self._time_singles(call, singles[name], len(rounds[name]) - 1, seconds if calls == 1 else None)
            if is_enough(rounds):
                return {name: tuple(seconds) for name, seconds in rounds.items()}

    def _time_singles(self, call: Call, singles: SingleCalls, i: int, block_s: float | None) -> None:
        taken = 0
        if block_s is not None:
            singles.found.append((i, block_s))
            taken = 1
        while taken < singles.per_round and (taken == 0 or not singles.is_enough):
            singles.found.append((i, self.time_block(call, 1)))
            taken += 1


def _agree(blocks: Sequence[float]) -> bool:
    return max(blocks) <= min(blocks) * (1 + _AGREEMENT)
