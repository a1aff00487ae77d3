"""What this machine can resolve: the same networks timed again and again, on a quiet machine and under a bursty load.

Two ways of timing are tried: `cohort`, all networks side by side in the same rounds, which is what a front is timed in;
and on request `alone`, one network after the other beside the reference, which is what a search does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Mapping
from pathlib import Path

from hilo_nas.arch import ArchConfig
from hilo_nas.bench.load import bursty_load
from hilo_nas.bench.passes import STATES, WAYS, RulerFindings, TimedPass
from hilo_nas.bench.timing import time_together
from hilo_nas.errors import HiloNasError, MeasurementError, OutOfMemoryError, UsageError, WorkerError
from hilo_nas.events import BenchStepped, Calibrated, Emit, Notice
from hilo_nas.measure import TOGETHER, Entrant, Ruler
from hilo_nas.measurement import Calibration, Condition, Measurement, kind_of_device
from hilo_nas.space import SearchSpace, draw_networks

__all__ = ["RulerPlan", "bench_ruler", "networks_of"]

_DRAWS = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class RulerPlan:
    """What is to be timed, and how often.

    Raises:
        UsageError: With every fault of the values given.
    """

    space: SearchSpace
    """Networks are drawn from it."""
    device: str | None = None
    """None for the fastest kind that this machine has."""
    networks: int = 15
    passes: int = 6
    """Passes in each state and way."""
    seconds: float = 3.0
    """Seconds that a network is timed for in a pass at most."""
    batch_size: int = 64
    img_size: int = 32
    precision: str = "fp32"
    threads: int | None = None
    seed: int = 0
    """Draws the networks and the load's bursts."""
    alone: bool = False
    """Whether networks are also timed one after the other."""

    def __post_init__(self) -> None:
        faults = []
        if not 2 <= self.networks <= TOGETHER:
            faults.append(f"networks must be from 2 to {TOGETHER}, as many as share a cohort, but got {self.networks}")
        if self.passes < 2:
            faults.append(f"passes must be at least 2, for they are compared, but got {self.passes}")
        if self.seconds <= 0:
            faults.append(f"seconds must be above 0, but got {self.seconds:g}")
        if faults:
            raise UsageError("\n".join(faults))
        self.condition(kind_of_device(self.device or "cpu"))

    @property
    def num_classes(self) -> int:
        """Outputs of the networks' classifiers: the space's own number."""
        return self.space.defaults.get("num_classes", 1000)

    def condition(self, device: str) -> Condition:
        """Returns how the networks are timed."""
        return Condition(
            device=device,
            batch_size=self.batch_size,
            img_size=self.img_size,
            precision=self.precision,
            threads=self.threads,
        )


def networks_of(plan: RulerPlan) -> dict[str, ArchConfig]:
    """Returns different networks of the plan's space within its limits on size, by key; see `hilo_nas.space.draw`.

    Raises:
        UsageError: The space holds too few.
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
            f"its limits and at {plan.img_size} px. Use fewer --networks, a larger --img-size or another --space."
        )
    return found


def bench_ruler(plan: RulerPlan, emit: Emit, *, log: Path, idle_timeout_s: float = 600.0) -> RulerFindings:
    """Times the networks in passes, quiet and then under a load that is started and stopped here.

    Args:
        plan: What to time.
        emit: Told of each step, each network and each round.
        log: File for what the timing process prints.
        idle_timeout_s: Seconds of silence after which the timing process counts as hung.

    Raises:
        MeasurementError: The reference does not fit, fewer than two networks could be timed, or the load did not run.
        DeviceError: This machine does not have the device.
    """
    networks = networks_of(plan)
    ways = WAYS if plan.alone else WAYS[:1]
    steps = [(state, way, number) for state in STATES for number in range(plan.passes) for way in ways]
    passes: list[TimedPass] = []
    failures: dict[str, HiloNasError] = {}
    with Ruler(log, purpose="bench ruler", idle_timeout_s=idle_timeout_s) as ruler, contextlib.ExitStack() as load:
        device = ruler.read_device(plan.device, emit)[1].kind
        condition = plan.condition(device)
        calibration = ruler.calibrate(condition, emit)
        emit(Calibrated(condition=condition.label(), images_per_s=calibration.images_per_s))
        for done, (state, way, number) in enumerate(steps):
            if state == "bursty" and steps[done - 1][0] != state:
                load.enter_context(bursty_load(device, seed=plan.seed))
            text = f"{state}, {way}, pass {number + 1} of {plan.passes}"
            emit(BenchStepped(text=text, done=done, total=len(steps)))
            entrants = {
                key: Entrant(subject={"arch": arch.to_dict()}, condition=condition, num_classes=plan.num_classes)
                for key, arch in networks.items()
                if key not in failures
            }
            start = time.monotonic()
            measurements, failed = _time_pass(ruler, way, entrants, calibration, plan.seconds, emit)
            passes.append(
                TimedPass(
                    state=state,
                    way=way,
                    number=number + 1,
                    measurements=measurements,
                    seconds=time.monotonic() - start,
                )
            )
            failures |= failed
            if len(networks) - len(failures) < 2:
                name, error = next(iter(failures.items()))
                raise MeasurementError(
                    f"at least two networks are needed, but {len(failures)} of {len(networks)} failed; {name}: {error}"
                )
    return RulerFindings(networks=networks, passes=passes, failures=failures)


def _time_pass(
    ruler: Ruler, way: str, entrants: Mapping[str, Entrant], calibration: Calibration, seconds: float, emit: Emit
) -> tuple[dict[str, Measurement], dict[str, HiloNasError]]:
    """Returns what was measured, and why some were not."""
    if way == "cohort":
        cohort = time_together(ruler, entrants, emit, calibration=calibration, seconds_each=seconds)
        return cohort.measurements, cohort.failures
    measurements: dict[str, Measurement] = {}
    failures: dict[str, HiloNasError] = {}
    for key, entrant in entrants.items():
        try:
            measurements[key] = ruler.measure(entrant, calibration, emit, seconds_each=seconds)
        except (OutOfMemoryError, WorkerError) as error:
            failures[key] = error
            emit(Notice(level="warning", text=f"{key} could not be timed: {error}"))
    return measurements, failures
