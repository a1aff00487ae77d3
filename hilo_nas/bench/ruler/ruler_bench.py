"""Timing resolution of this machine: the same networks timed repeatedly, on a quiet machine and under a bursty load.

There are two ways of timing. `cohort` times all networks in the same rounds, as for a front. `alone` (on request) times
one network after the other, each with the reference, as a search does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from hilo_nas.arch.config import ArchConfig
from hilo_nas.bench.cohort_timing import time_together
from hilo_nas.bench.ruler.bursty_load import bursty_load
from hilo_nas.bench.ruler.repeated_passes import STATES, WAYS, RulerFindings, TimedPass
from hilo_nas.errors import HiloNasError, MeasurementError, UsageError
from hilo_nas.evaluation import Evaluator, Inspect, Time, Timing, evaluator_or_local, run_task
from hilo_nas.events import BenchStepped, Calibrated, Emit, Event, Notice
from hilo_nas.measurement import Condition, kind_of_device
from hilo_nas.space import SearchSpace, draw_networks
from hilo_nas.timing import TOGETHER, Entrant

__all__ = ["RulerPlan", "draw_ruler_networks", "run_ruler"]

_DRAWS = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class RulerPlan:
    """Settings of the ruler benchmark.

    Raises:
        UsageError: One or more values are invalid. The message lists all of them.
    """

    space: SearchSpace
    """Search space that networks are drawn from."""
    device: str | None = None
    """Name of the device. None selects the fastest kind on this machine."""
    networks: int = 15
    passes: int = 6
    """Number of passes in each state and way."""
    seconds: float = 3.0
    """Maximum seconds per network in a pass."""
    batch_size: int = 64
    img_size: int = 32
    precision: str = "fp32"
    threads: int | None = None
    seed: int = 0
    """Seed for the networks and for the bursts of the load."""
    alone: bool = False
    """True to also time networks one after the other."""

    def __post_init__(self) -> None:
        faults = []
        if not 2 <= self.networks <= TOGETHER:
            faults.append(f"networks must be from 2 to {TOGETHER} (the size of a cohort), but got {self.networks}")
        if self.passes < 2:
            faults.append(f"passes must be at least 2, because passes are compared, but got {self.passes}")
        if self.seconds <= 0:
            faults.append(f"seconds must be above 0, but got {self.seconds:g}")
        if faults:
            raise UsageError("\n".join(faults))
        self.condition(kind_of_device(self.device or "cpu"))

    @property
    def num_classes(self) -> int:
        """Number of classes of the networks, from the space's defaults."""
        return self.space.defaults.get("num_classes", 1000)

    def condition(self, device: str) -> Condition:
        """Returns the condition of the timings."""
        return Condition(
            device=device,
            batch_size=self.batch_size,
            img_size=self.img_size,
            precision=self.precision,
            threads=self.threads,
        )


def draw_ruler_networks(plan: RulerPlan) -> dict[str, ArchConfig]:
    """Returns different networks of the plan's space by key, all within the space's limits on size.

    Raises:
        UsageError: Fewer networks than requested were found in 10,000 draws.
    """
    drawn = draw_networks(
        plan.space,
        plan.space.limits,
        img_size=plan.img_size,
        num_classes=plan.num_classes,
        draws=_DRAWS,
        seed=plan.seed,
        skip_too_large=True,
    )
    found = {arch.key(): arch for arch, _ in itertools.islice(drawn, plan.networks)}
    if len(found) < plan.networks:
        raise UsageError(
            f"{plan.networks} networks must be drawn from {plan.space.name}, but only {len(found)} were found within "
            f"its limits at {plan.img_size} px. Use fewer --networks, a larger --img-size or another --space."
        )
    return found


def run_ruler(
    plan: RulerPlan,
    emit: Emit,
    *,
    logs: Path,
    evaluator: Evaluator | None = None,
    load: Callable[..., AbstractContextManager[object]] = bursty_load,
) -> RulerFindings:
    """Returns timings of the networks in repeated passes: first quiet, then under a load.

    Args:
        plan: Settings.
        emit: Receives an event for each step, each network and each round.
        logs: Folder for the output of the worker process.
        evaluator: Evaluator that times. Defaults to local workers.
        load: Function with the signature of `bursty_load`. It returns a context manager that loads a device.

    Raises:
        MeasurementError: The reference does not fit into memory, fewer than two networks could be timed, or the load
            did not run.
        DeviceError: This machine does not have the device.
    """
    networks = draw_ruler_networks(plan)
    ways = WAYS if plan.alone else WAYS[:1]
    steps = [(state, way, number) for state in STATES for number in range(plan.passes) for way in ways]
    passes: list[TimedPass] = []
    failures: dict[str, HiloNasError] = {}
    with (
        evaluator_or_local(evaluator, logs, purpose="bench ruler") as evaluator,
        contextlib.ExitStack() as stack,
    ):
        report = run_task(evaluator, Inspect(target=plan.device), emit)
        condition = plan.condition(report.identity.kind)
        calibration = run_task(evaluator, Time(condition=condition, target=report.target), emit).calibration
        assert calibration is not None, "a timing task without entries must return a calibration"
        emit(Calibrated(condition=condition.label(), images_per_s=calibration.images_per_s))
        for done, (state, way, number) in enumerate(steps):
            if state == "bursty" and steps[done - 1][0] != state:
                stack.enter_context(load(report.target, seed=plan.seed))
            text = f"{state}, {way}, pass {number + 1} of {plan.passes}"
            emit(BenchStepped(text=text, done=done, total=len(steps)))
            entries = {
                key: Entrant(subject={"arch": arch.to_dict()}, condition=condition, num_classes=plan.num_classes)
                for key, arch in networks.items()
                if key not in failures
            }
            task = Time(
                condition=condition,
                entries=entries,
                calibration=calibration,
                target=report.target,
                seconds=plan.seconds,
            )
            start = time.monotonic()
            timing = _time_pass(evaluator, way, task, emit)
            passes.append(
                TimedPass(
                    state=state,
                    way=way,
                    number=number + 1,
                    measurements=timing.measurements,
                    seconds=time.monotonic() - start,
                )
            )
            failures |= timing.failures
            if len(networks) - len(failures) < 2:
                name, error = next(iter(failures.items()))
                raise MeasurementError(
                    f"at least two networks must run, but {len(failures)} of {len(networks)} failed; {name}: {error}"
                )
    return RulerFindings(networks=networks, passes=passes, failures=failures)


def _time_pass(evaluator: Evaluator, way: str, task: Time, emit: Emit) -> Timing:
    """Returns one pass: all networks of a task, timed in the same rounds or one after the other."""
    if way == "cohort":
        return time_together(evaluator, task, emit)

    def emit_progress(event: Event) -> None:
        # Notices are dropped: verdicts per network are expected under load, and the findings report failures.
        if not isinstance(event, Notice):
            emit(event)

    timings = [
        time_together(evaluator, dataclasses.replace(task, entries={key: entrant}), emit_progress)
        for key, entrant in task.entries.items()
    ]
    return Timing(
        measurements={key: item for timing in timings for key, item in timing.measurements.items()},
        failures={key: error for timing in timings for key, error in timing.failures.items()},
    )
