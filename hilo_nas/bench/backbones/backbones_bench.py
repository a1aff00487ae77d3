"""Benchmark of LITv2 and other backbones in two forms: plain (eager, NCHW) and best (the fastest form on the device).

A short preliminary timing finds the best form of each network: in torch, and with `BackbonesPlan.best` also in ONNX
Runtime and OpenVINO. Then the plain and best forms of all networks are timed in cohorts that share their rounds. A
cohort holds 24 entries at most, so two cohorts are needed for all networks. LITv2-S runs in both, so that every ratio
to it is measured round by round.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hilo_nas.arch.config import PRESETS
from hilo_nas.arch.cost import NetworkCost, count_cost
from hilo_nas.bench.backbones.forms import BackbonesFindings, Cohort, NetworkForms, list_forms, name_form
from hilo_nas.bench.backbones.known_backbones import BASE, Backbone, choose_backbones
from hilo_nas.bench.cohort_timing import time_together
from hilo_nas.errors import HiloNasError, MeasurementError, OutOfMemoryError, UsageError, WorkerError
from hilo_nas.evaluation import (
    CHOICE_SECONDS,
    Count,
    Evaluator,
    Inspect,
    Runtimes,
    Time,
    Timing,
    evaluator_or_local,
    find_runtimes,
    run_task,
)
from hilo_nas.events import BenchStepped, Calibrated, Emit, Notice
from hilo_nas.measurement import Condition, Measurement, kind_of_device
from hilo_nas.timing import TOGETHER, Entrant

__all__ = ["BackbonesPlan", "group_networks", "run_backbones"]

_BATCH_SIZES = {"cpu": 8}
_BATCH_SIZE = 64
_NUM_CLASSES = 1000
_IDLE_TIMEOUT_S = 1800.0
"""Seconds without output after which a worker counts as hung. Compilation takes minutes and prints nothing."""
_TimeEach = Callable[[dict[str, Entrant], float], Timing]
"""Function that times entries in the same rounds, each for the given number of seconds at most."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackbonesPlan:
    """Settings of the backbone benchmark.

    Raises:
        UsageError: A value is invalid.
    """

    device: str | None = None
    """Name of the device. None selects the fastest kind on this machine."""
    batch_size: int | None = None
    """Images per batch. None selects 8 on a CPU and 64 elsewhere."""
    img_size: int = 224
    precision: str = "fp32"
    networks: Sequence[str] = ()
    """Names from `BACKBONES`. If empty, all are timed. LITv2-S is always included."""
    compile: bool | None = None
    """True to try compiled forms too. None compiles on CUDA devices only, because a CPU takes minutes per network."""
    best: bool = False
    """True to try ONNX Runtime and OpenVINO too, if they are installed and support the device and the precision."""
    seconds: float = 10.0
    """Maximum seconds per form in the final timing. At least 12 rounds are always timed."""
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise UsageError(f"seconds must be above 0, but got {self.seconds:g}")
        if self.precision == "int8" and not self.best:
            raise UsageError("precision int8 needs --best, because only the runtimes quantize networks")
        self.condition(kind_of_device(self.device or "cpu"))
        choose_backbones(self.networks)

    def condition(self, device: str) -> Condition:
        """Returns the condition of the plain forms. They are in fp32 if the runtimes are asked for int8."""
        kind = device.partition(":")[0]
        return Condition(
            device=device,
            batch_size=_BATCH_SIZES.get(kind, _BATCH_SIZE) if self.batch_size is None else self.batch_size,
            img_size=self.img_size,
            precision="fp32" if self.precision == "int8" else self.precision,
            threads=self.threads,
        )

    def is_compiling(self, device: str) -> bool:
        """Returns True if compiled forms are tried on a device."""
        return device.startswith("cuda") if self.compile is None else self.compile


def run_backbones(
    plan: BackbonesPlan, emit: Emit, *, logs: Path, evaluator: Evaluator | None = None
) -> BackbonesFindings:
    """Returns the speed of each network in its plain and best forms.

    Args:
        plan: Settings.
        emit: Receives an event for each step, each form and each round.
        logs: Folder for the output of worker processes.
        evaluator: Evaluator that counts and times. Defaults to local workers.

    Raises:
        MeasurementError: The reference does not fit into memory, or no network could be timed.
        DeviceError: This machine does not have the device.
    """
    backbones = choose_backbones(plan.networks)
    with evaluator_or_local(evaluator, logs, purpose="bench backbones", idle_timeout_s=_IDLE_TIMEOUT_S) as evaluator:
        report = run_task(evaluator, Inspect(target=plan.device), emit)
        condition = plan.condition(report.identity.kind)
        runtimes = Runtimes()
        if plan.best:
            runtimes = find_runtimes(condition, evaluator, emit, target=report.target, precision=plan.precision)
        if plan.precision == "int8" and not runtimes.found:
            raise UsageError(
                "precision int8 needs a runtime that quantizes networks, but this machine has none:\n"
                + "\n".join(runtimes.skipped.values())
            )
        costs = _count(backbones, plan.img_size, evaluator, emit)
        calibration = run_task(evaluator, Time(condition=condition, target=report.target), emit).calibration
        assert calibration is not None, "a timing task without entries must return a calibration"
        emit(Calibrated(condition=condition.label(), images_per_s=calibration.images_per_s))

        def time_each(entries: dict[str, Entrant], seconds: float) -> Timing:
            task = Time(
                condition=condition, entries=entries, calibration=calibration, target=report.target, seconds=seconds
            )
            return time_together(evaluator, task, emit)

        networks: list[NetworkForms] = []
        for backbone in backbones:
            emit(BenchStepped(text=f"forms of {backbone.name}", done=len(networks), total=len(backbones) + 1))
            forms = list_forms(
                condition, has_own_layout=backbone.name in PRESETS, runtimes=runtimes.found, precision=plan.precision
            )
            networks.append(_try_forms(time_each, backbone, costs[backbone.name], plan, forms))
        emit(BenchStepped(text="plain and best forms of all networks", done=len(backbones), total=len(backbones) + 1))
        cohorts: list[Cohort] = []
        failures: dict[str, HiloNasError] = {}
        for group in group_networks(networks):
            cohort, failed = _time_group(time_each, group, plan, condition)
            cohorts.append(cohort)
            failures |= failed
    found = BackbonesFindings(networks=networks, cohorts=cohorts, failures=failures, runtimes=runtimes)
    if not found.measurements:
        name, why = next(iter(found.list_failures().items()))
        raise MeasurementError(f"none of {len(backbones)} networks could be timed; {name}: {why}")
    return found


def _count(
    backbones: Sequence[Backbone], img_size: int, evaluator: Evaluator, emit: Emit
) -> dict[str, NetworkCost | None]:
    """Returns the cost of each network: by formula for presets, by counting for others. None if counting failed."""
    emit(Notice(text="counting multiply-adds"))
    found: dict[str, NetworkCost | None] = {}
    for backbone in backbones:
        if backbone.name in PRESETS:
            found[backbone.name] = count_cost(PRESETS[backbone.name], img_size)
            continue
        try:
            task = Count(subject=backbone.subject(img_size), img_size=img_size, num_classes=_NUM_CLASSES)
            found[backbone.name] = run_task(evaluator, task, emit)
        except (OutOfMemoryError, WorkerError) as error:
            emit(Notice(level="warning", text=f"multiply-adds of {backbone.name} could not be counted: {error}"))
            found[backbone.name] = None
    return found


def _try_forms(
    time_each: _TimeEach,
    backbone: Backbone,
    cost: NetworkCost | None,
    plan: BackbonesPlan,
    conditions: Sequence[Condition],
) -> NetworkForms:
    """Times the forms of one network in the same rounds, then its best forms together with the compiled one.

    Args:
        time_each: Times the forms.
        backbone: The network.
        cost: Its cost, if it could be counted.
        plan: Settings.
        conditions: Conditions of the forms without compilation, the plain one first.
    """
    forms: dict[str, Measurement] = {}
    failures: dict[str, HiloNasError] = {}

    def try_out(conditions: Sequence[Condition]) -> NetworkForms:
        subject = backbone.subject(plan.img_size)
        entrants = {name_form(form): Entrant(subject=subject, condition=form) for form in conditions}
        timing = time_each(entrants, CHOICE_SECONDS)
        forms.update(timing.measurements)
        failures.update(timing.failures)
        return NetworkForms(backbone=backbone, forms=dict(forms), failures=dict(failures), cost=cost)

    network = try_out(conditions)
    plain, in_torch, best = conditions[0], network.best_in_torch, network.best
    if in_torch is not None and best is not None and plan.is_compiling(plain.device):
        # The plain form comes first, because the reference uses the layout of the first entry. Equal forms are one.
        network = try_out([plain, in_torch, best, in_torch.vary(compile=True)])
    return network


def group_networks(networks: Sequence[NetworkForms]) -> list[list[NetworkForms]]:
    """Returns groups of networks that are timed together.

    The plain and best forms of a group fit into one cohort. `BASE` is in every group. Networks that failed in all forms
    are left out.
    """
    base = [network for network in networks if network.forms and network.backbone.name == BASE]
    others = [network for network in networks if network.forms and network.backbone.name != BASE]
    count = max(1, -(-len(others) // (TOGETHER // 2 - 1)))
    return [
        base + others[len(others) * i // count : len(others) * (i + 1) // count] for i in range(count) if base or others
    ]


def _time_group(
    time_each: _TimeEach, group: Sequence[NetworkForms], plan: BackbonesPlan, condition: Condition
) -> tuple[Cohort, Mapping[str, HiloNasError]]:
    """Returns the speeds of each network's plain and best forms, and the errors of forms that failed."""
    wanted = {
        (network.backbone.name, name_form(form)): Entrant(
            subject=network.backbone.subject(plan.img_size), condition=form
        )
        for network in group
        for form in (condition, network.best)
        if form is not None and name_form(form) in network.forms
    }
    timing = time_each({" ".join(key): entrant for key, entrant in wanted.items()}, plan.seconds)
    cohort: dict[str, dict[str, Measurement]] = {}
    for name, form in wanted:
        if f"{name} {form}" in timing.measurements:
            cohort.setdefault(name, {})[form] = timing.measurements[f"{name} {form}"]
    return cohort, timing.failures
