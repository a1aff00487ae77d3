"""LITv2 beside its peers, each as it comes (plain: eager, NCHW) and in the form that is fastest on the device (best).

A short heat finds each network's best form; then plain and best of all are timed in cohorts that share their rounds. A
cohort holds 24 at most, so there are two: LITv2-S runs in both, and every ratio to it is measured round by round.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hilo_nas.arch.config import PRESETS
from hilo_nas.arch.cost import NetworkCost, count_cost
from hilo_nas.bench.backbones.forms import FORMS, BackbonesFindings, Final, Heat, name_form
from hilo_nas.bench.backbones.known_backbones import BASE, Peer, choose_peers
from hilo_nas.bench.cohort_timing import time_together
from hilo_nas.errors import HiloNasError, MeasurementError, OutOfMemoryError, UsageError, WorkerError
from hilo_nas.evaluation import Count, Evaluator, Inspect, Time, Timing, evaluator_or_local, run_task
from hilo_nas.events import BenchStepped, Calibrated, Emit, Notice
from hilo_nas.measurement import Condition, Measurement, kind_of_device
from hilo_nas.timing import TOGETHER, Entrant

__all__ = ["BackbonesPlan", "group_heats", "run_backbones"]

_BATCH_SIZES = {"cpu": 8}
_BATCH_SIZE = 64
_NUM_CLASSES = 1000
_HEAT_S = 2.0
"""Seconds that each form is timed for at most while forms are tried."""
_IDLE_TIMEOUT_S = 1800.0
"""Seconds of silence after which a process counts as hung: compiling takes minutes and says nothing."""
_TimeEach = Callable[[dict[str, Entrant], float], Timing]
"""Times networks side by side, each for so many seconds at most."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackbonesPlan:
    """What is to be timed.

    Raises:
        UsageError: A value cannot be what it is.
    """

    device: str | None = None
    """None for the fastest kind that this machine has."""
    batch_size: int | None = None
    """None for 8 on a CPU, else 64."""
    img_size: int = 224
    precision: str = "fp32"
    networks: Sequence[str] = ()
    """Names of `PEERS`; all for none. LITv2-S is always there."""
    compile: bool | None = None
    """Whether compiled forms are tried too; None for on a CUDA device alone, for a CPU takes minutes per network."""
    seconds: float = 10.0
    """Seconds that each form is timed for at most in the end; 12 rounds are timed in any case."""
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise UsageError(f"seconds must be above 0, but got {self.seconds:g}")
        self.condition(kind_of_device(self.device or "cpu"))
        choose_peers(self.networks)

    def condition(self, device: str) -> Condition:
        """Returns how the plain forms are timed."""
        kind = device.partition(":")[0]
        return Condition(
            device=device,
            batch_size=_BATCH_SIZES.get(kind, _BATCH_SIZE) if self.batch_size is None else self.batch_size,
            img_size=self.img_size,
            precision=self.precision,
            threads=self.threads,
        )

    def is_compiling(self, device: str) -> bool:
        """Returns whether compiled forms are tried on a device."""
        return device.startswith("cuda") if self.compile is None else self.compile


def run_backbones(
    plan: BackbonesPlan, emit: Emit, *, logs: Path, evaluator: Evaluator | None = None
) -> BackbonesFindings:
    """Tries each network's forms, then times plain and best forms side by side.

    Args:
        plan: What to time.
        emit: Receives an event for each step, each form and each round.
        logs: Folder for what the processes print.
        evaluator: Counts and times; that of this machine if left out.

    Raises:
        MeasurementError: The reference does not fit, or nothing could be timed.
        DeviceError: This machine does not have the device.
    """
    peers = choose_peers(plan.networks)
    with evaluator_or_local(evaluator, logs, purpose="bench backbones", idle_timeout_s=_IDLE_TIMEOUT_S) as evaluator:
        report = run_task(evaluator, Inspect(target=plan.device), emit)
        condition = plan.condition(report.identity.kind)
        costs = _count(peers, plan.img_size, evaluator, emit)
        calibration = run_task(evaluator, Time(condition=condition, target=report.target), emit).calibration
        assert calibration is not None, "a timing without an entry is a calibration"
        emit(Calibrated(condition=condition.label(), images_per_s=calibration.images_per_s))

        def time_each(entries: dict[str, Entrant], seconds: float) -> Timing:
            task = Time(
                condition=condition, entries=entries, calibration=calibration, target=report.target, seconds=seconds
            )
            return time_together(evaluator, task, emit)

        heats: list[Heat] = []
        for peer in peers:
            emit(BenchStepped(text=f"forms of {peer.name}", done=len(heats), total=len(peers) + 1))
            heats.append(_try_forms(time_each, peer, costs[peer.name], plan, condition))
        emit(BenchStepped(text="plain and best forms, all together", done=len(peers), total=len(peers) + 1))
        finals: list[Final] = []
        failures: dict[str, HiloNasError] = {}
        for group in group_heats(heats):
            final, failed = _time_group(time_each, group, plan, condition)
            finals.append(final)
            failures |= failed
    found = BackbonesFindings(heats=heats, finals=finals, failures=failures)
    if not found.measurements:
        name, why = next(iter(found.list_failures().items()))
        raise MeasurementError(f"none of {len(peers)} networks could be timed; {name}: {why}")
    return found


def _count(peers: Sequence[Peer], img_size: int, evaluator: Evaluator, emit: Emit) -> dict[str, NetworkCost | None]:
    """Returns the cost of each network: ours by formula, others counted; None where counting failed."""
    emit(Notice(text="counting multiply-adds"))
    found: dict[str, NetworkCost | None] = {}
    for peer in peers:
        if peer.name in PRESETS:
            found[peer.name] = count_cost(PRESETS[peer.name], img_size)
            continue
        try:
            task = Count(subject=peer.subject(img_size), img_size=img_size, num_classes=_NUM_CLASSES)
            found[peer.name] = run_task(evaluator, task, emit)
        except (OutOfMemoryError, WorkerError) as error:
            emit(Notice(level="warning", text=f"multiply-adds of {peer.name} could not be counted: {error}"))
            found[peer.name] = None
    return found


def _try_forms(
    time_each: _TimeEach, peer: Peer, cost: NetworkCost | None, plan: BackbonesPlan, condition: Condition
) -> Heat:
    """Times the forms of one network side by side, then the best of them beside its compiled self."""
    forms: dict[str, Measurement] = {}
    failures: dict[str, HiloNasError] = {}

    def try_out(conditions: Sequence[Condition]) -> Heat:
        subject = peer.subject(plan.img_size)
        entrants = {name_form(form): Entrant(subject=subject, condition=form) for form in conditions}
        timing = time_each(entrants, _HEAT_S)
        forms.update(timing.measurements)
        failures.update(timing.failures)
        return Heat(peer=peer, forms=dict(forms), failures=dict(failures), cost=cost)

    # In its inference form a LITv2 lies as it likes, whatever the layout of the images.
    tried = [form for form in FORMS if form != (True, True) or peer.name not in PRESETS]
    heat = try_out([dataclasses.replace(condition, fused=fused, channels_last=nhwc) for fused, nhwc in tried])
    if heat.best is not None and plan.is_compiling(condition.device):
        # The plain form comes first, for the reference takes the layout of the first.
        heat = try_out([condition, heat.best, dataclasses.replace(heat.best, compile=True)])
    return heat


def group_heats(heats: Sequence[Heat]) -> list[list[Heat]]:
    """Returns networks that are timed together: so many that plain and best of each fit, the base in every group."""
    base = [heat for heat in heats if heat.forms and heat.peer.name == BASE]
    others = [heat for heat in heats if heat.forms and heat.peer.name != BASE]
    count = max(1, -(-len(others) // (TOGETHER // 2 - 1)))
    return [
        base + others[len(others) * i // count : len(others) * (i + 1) // count] for i in range(count) if base or others
    ]


def _time_group(
    time_each: _TimeEach, group: Sequence[Heat], plan: BackbonesPlan, condition: Condition
) -> tuple[Final, Mapping[str, HiloNasError]]:
    """Returns the plain and the best form of each network, by its name, and why some were not timed."""
    wanted = {
        (heat.peer.name, name_form(form)): Entrant(subject=heat.peer.subject(plan.img_size), condition=form)
        for heat in group
        for form in (condition, heat.best)
        if form is not None and name_form(form) in heat.forms
    }
    timing = time_each({" ".join(key): entrant for key, entrant in wanted.items()}, plan.seconds)
    final: dict[str, dict[str, Measurement]] = {}
    for name, form in wanted:
        if f"{name} {form}" in timing.measurements:
            final.setdefault(name, {})[form] = timing.measurements[f"{name} {form}"]
    return final, timing.failures
