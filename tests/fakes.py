"""A fake evaluator with a law of its own, so that searches run in milliseconds."""

import math

from builders import build_measurement, build_score

from hilo_nas.cost import count_macs, count_params
from hilo_nas.events import RoundTimed


class FakeExecutor:
    """Speed falls with multiply-adds, top-1 rises with parameters; `happen` may raise before either.

    Args:
        happen: Called with `("measure" | "score", call number of that verb)`.
    """

    def __init__(self, happen=lambda verb, count: None):
        self.happen = happen
        self.measured, self.scored = [], []
        self.closed = False

    def measure(self, subject, emit):
        self.happen("measure", len(self.measured))
        self.measured.append(subject.key)
        emit(RoundTimed(condition="fake", round=1, rounds=1, images_per_s=1.0))
        return (build_measurement(speed(subject.arch)),)

    def score(self, subject, seed, emit):
        self.happen("score", len(self.scored))
        self.scored.append(subject.key)
        return build_score(top1(subject.arch))

    def close(self):
        self.closed = True


def speed(arch):
    """Images per second."""
    return 1e10 / (2e6 + count_macs(arch, 32, num_classes=10))


def top1(arch):
    """Accuracy between chance and 0.95."""
    return 0.95 - 0.85 * math.exp(-count_params(arch, num_classes=10) / 1e6)
