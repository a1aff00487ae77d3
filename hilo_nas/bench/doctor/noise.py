"""Devices of this machine and the noise of short timings."""

from __future__ import annotations

from pathlib import Path

from hilo_nas.bench.cohort_timing import advise, time_together
from hilo_nas.bench.doctor.finding import Finding
from hilo_nas.bench.ruler.resolution import summarize_passes
from hilo_nas.bench.ruler.ruler_bench import RulerPlan, draw_ruler_networks
from hilo_nas.evaluation import Evaluator, Inspect, Time, evaluator_or_local, run_task
from hilo_nas.events import BenchStepped, Emit, Event, Notice
from hilo_nas.space import load_space
from hilo_nas.timing import Entrant

__all__ = ["check_timing"]

_NETWORKS = 4
_PASSES = 3
_SECONDS = 1.0
_LARGE_RATIO = 1.05
"""Smallest distinguishable ratio of two speeds above which a search cannot rank similar networks."""


def check_timing(device: str | None, emit: Emit, *, logs: Path, evaluator: Evaluator | None = None) -> list[Finding]:
    """Returns the device, and the resolution of four small networks timed three times. Takes about half a minute.

    Args:
        device: Name of the device. None selects the fastest kind on this machine.
        emit: Receives an event for each pass and each round.
        logs: Folder for the output of the worker process.
        evaluator: Evaluator that times. Defaults to local workers.

    Raises:
        DeviceError: This machine does not have the device.
        MeasurementError: A network could not be timed.
    """
    plan = RulerPlan(space=load_space("litv2_cifar"), device=device, networks=_NETWORKS, passes=_PASSES)
    networks = draw_ruler_networks(plan)

    def emit_progress(event: Event) -> None:
        if not isinstance(event, Notice):  # the findings have the advice
            emit(event)

    with evaluator_or_local(evaluator, logs, purpose="hilo-nas doctor") as evaluator:
        report = run_task(evaluator, Inspect(target=device), emit)
        identity = report.identity
        threads = "" if report.threads is None else f", {report.threads} threads"
        found = [
            Finding(
                name="device",
                text=f"{report.target}: {identity.model}, driver {identity.driver}, torch {identity.torch}{threads}",
            )
        ]
        condition = plan.condition(identity.kind)
        calibration = run_task(evaluator, Time(condition=condition, target=report.target), emit_progress).calibration
        entries = {
            key: Entrant(subject={"arch": arch.to_dict()}, condition=condition, num_classes=plan.num_classes)
            for key, arch in networks.items()
        }
        passes = []
        for number in range(_PASSES):
            emit(BenchStepped(text=f"timing {_NETWORKS} networks", done=number, total=_PASSES))
            task = Time(
                condition=condition,
                entries=entries,
                calibration=calibration,
                target=report.target,
                seconds=_SECONDS,
            )
            passes.append(time_together(evaluator, task, emit_progress).measurements)
    speeds = [{key: own.images_per_s for key, own in measured.items()} for measured in passes]
    resolution = summarize_passes(speeds)
    advice = advise(own for measured in passes for own in measured.values())
    ratio = resolution.smallest_ratio
    text = (
        f"images/s vary by {100 * resolution.cv_anchored_median:.1f} % between passes of {_SECONDS:g} s; a pass "
        f"distinguishes speeds that differ by {100 * (ratio - 1):.1f} % or more"
    )
    is_noisy = ratio > _LARGE_RATIO or bool(advice)
    found.append(
        Finding(
            name="noise",
            text=text,
            problem=(advice[0] if advice else "similar networks cannot be ranked by one timing") if is_noisy else None,
            advice="measure for longer (--set timing.seconds=10), and see `hilo-nas bench ruler`" if is_noisy else None,
        )
    )
    return found
