"""Runtimes of this machine, and the choice of the fastest of several timings of one network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from hilo_nas.errors import ConversionError, UsageError, WorkerError
from hilo_nas.evaluation.drive import run_task
from hilo_nas.evaluation.protocol import Evaluator
from hilo_nas.evaluation.tasks import Inspect
from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import RUNTIMES, Condition, Measurement

__all__ = ["CHOICE_SECONDS", "Runtimes", "choose_fastest", "find_runtimes"]

CHOICE_SECONDS = 2.0
"""Maximum seconds per entry of a timing that only serves to choose one of the entries."""
_MIN_GAIN = 0.015
"""Relative gain in speed that an entry needs over a simpler one. It is about the width of a timing's interval."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runtimes:
    """Runtimes besides torch that this machine has for a condition."""

    found: tuple[str, ...] = ()
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Reason why each other runtime cannot be used."""


def find_runtimes(
    condition: Condition,
    evaluator: Evaluator,
    emit: Emit,
    *,
    target: str | None = None,
    precision: str | None = None,
) -> Runtimes:
    """Returns the runtimes that are installed and support the device and the precision of a condition.

    Each runtime has to run a tiny LITv2, which takes seconds. Emits a notice about each runtime that cannot.

    Args:
        condition: The condition, in any runtime.
        evaluator: Evaluator of the timings.
        emit: Receives the events.
        target: Name of the device. Defaults to the first device of the condition's kind.
        precision: Precision in the runtimes. Defaults to that of the condition.
    """
    found, skipped = [], {}
    for runtime in RUNTIMES[1:]:
        try:
            form = condition.vary(runtime=runtime, precision=precision or condition.precision)
            run_task(evaluator, Inspect(target=target, forms=(form,)), emit)
        except (UsageError, ConversionError, WorkerError) as error:
            skipped[runtime] = str(error)
            emit(Notice(text=f"runtime {runtime} is skipped: {error}"))
        else:
            found.append(runtime)
    return Runtimes(found=tuple(found), skipped=skipped)


def choose_fastest(timings: Sequence[Measurement]) -> Measurement:
    """Returns the first timing whose speed is within 1.5 % of the fastest.

    Args:
        timings: At least one timing, the simplest form of the network first.
    """
    fastest = max(timing.images_per_s for timing in timings)
    return next(timing for timing in timings if timing.images_per_s >= fastest * (1 - _MIN_GAIN))
