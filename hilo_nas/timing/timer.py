"""Timing of calls: warm-up, blocks that are long compared with the clock's resolution, and interleaved rounds.

This module does not import torch. The call, the synchronisation and the clock are functions, so tests use a fake clock.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from random import Random

__all__ = ["MIN_BLOCK_S", "SingleCalls", "Stopwatch", "WarmUp"]

MIN_BLOCK_S = 0.02
"""Minimum length of a timed block in seconds."""

_AGREEMENT = 0.10
"""Maximum relative difference between the slowest and the fastest of the last blocks when a warm-up ends."""
_AGREEING_BLOCKS = 4

Call = Callable[[], object]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmUp:
    """Result of a warm-up."""

    calls: int
    call_seconds: float
    """Seconds of one call: the median of the last blocks."""
    steady: bool
    """True if the last blocks agreed before the time limit."""

    calls_per_block: int
    """Number of calls in a block of at least `Stopwatch.min_block_s`."""


@dataclasses.dataclass(kw_only=True)
class SingleCalls:
    """Single calls of one network inside the rounds. Each is synchronised, so it includes the full latency.

    There are at most `per_round` calls in a round. Calls end when there are `wanted` calls, or after `at_most_s`
    seconds in total, but each round has at least one call.
    """

    per_round: int
    wanted: int
    at_most_s: float
    found: list[tuple[int, float]] = dataclasses.field(default_factory=list)
    """Index of the round, and seconds, of each call."""

    @property
    def is_enough(self) -> bool:
        """True if there are `wanted` calls, or they have taken `at_most_s` seconds."""
        return len(self.found) >= self.wanted or sum(seconds for _, seconds in self.found) >= self.at_most_s


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stopwatch:
    """Times calls on one device."""

    clock: Callable[[], float]
    """Function that returns monotonic seconds."""
    synchronize: Callable[[], None]
    """Function that waits until the device has finished all queued work."""
    min_block_s: float = MIN_BLOCK_S
    """Minimum length of a block of calls in seconds."""

    def time_block(self, call: Call, calls: int) -> float:
        """Returns the mean seconds per call over a block. Synchronises before and after the block."""
        self.synchronize()
        start = self.clock()
        for _ in range(calls):
            call()
        self.synchronize()
        return (self.clock() - start) / calls

    def warm_up(self, call: Call, *, at_most_s: float, min_blocks: int = _AGREEING_BLOCKS + 1) -> WarmUp:
        """Runs blocks of calls until the last blocks agree or the time limit is reached, but at least `min_blocks`."""
        start = self.clock()
        blocks = [self.time_block(call, 1)]
        total = 1
        while True:
            steady = len(blocks) > _AGREEING_BLOCKS and _agree(blocks[-_AGREEING_BLOCKS:])
            enough = len(blocks) >= min_blocks and self.clock() - start >= at_most_s
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
        """Returns the seconds per call of each entrant, one value per round. Each round has a random order.

        Args:
            entrants: The call and the number of calls per block, by name.
            is_enough: Function that receives all samples after each round. True ends the timing.
            random: Generator for the orders.
            singles: Single calls that follow a network's blocks, by name. A block of one call counts as a single call.
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
