"""Timing of networks given by name, without a study."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from hilo_nas.errors import HiloNasError, UsageError
from hilo_nas.evaluation.drive import run_task
from hilo_nas.evaluation.named_networks import FILES, NamedNetwork, find_network
from hilo_nas.evaluation.protocol import Evaluator
from hilo_nas.evaluation.runtime_choice import CHOICE_SECONDS, choose_fastest, find_runtimes
from hilo_nas.evaluation.tasks import Inspect, Time, Timing
from hilo_nas.events import BenchStepped, Emit, Notice
from hilo_nas.measurement import TORCH_ONLY, Condition, Measurement
from hilo_nas.measurement.condition_options import BEST_RUNTIME, build_objective, expected_objective
from hilo_nas.text.figures import figure
from hilo_nas.timing import Entrant

__all__ = ["NamedTimings", "measure_named"]

_DEFAULTS = {"batch_size": 32, "img_size": 224}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedTimings:
    """Speeds of named networks that were timed in the same rounds."""

    condition: Condition
    """Condition of all networks. If they can differ in their runtime, it is that of the reference, in plain torch."""
    measurements: Mapping[str, Measurement]
    """Measurement of each network, by name."""
    failures: Mapping[str, HiloNasError]
    """Error of each network that could not be timed, by name."""
    tried: Mapping[str, Mapping[str, Measurement]] = dataclasses.field(default_factory=dict)
    """With the runtime `best`, the brief timings of each network by runtime. Empty otherwise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Timer:
    """Settings with which named networks are timed."""

    condition: Condition
    """Common condition. Its runtime is the default of the networks."""
    evaluator: Evaluator
    emit: Emit
    num_classes: int
    target: str | None
    seconds: float | None

    def time(self, entries: Mapping[str, tuple[NamedNetwork, str]], seconds: float | None) -> Timing:
        """Returns the speeds of networks that are timed in the same rounds, each in a runtime."""
        entrants = {
            name: Entrant(
                subject=network.subject,
                condition=self.condition.vary(runtime=runtime),
                num_classes=network.defaults.get("num_classes", self.num_classes),
            )
            for name, (network, runtime) in entries.items()
        }
        task = Time(condition=self.condition, entries=entrants, target=self.target, seconds=seconds)
        timing = run_task(self.evaluator, task, self.emit)
        measurements = {
            name: dataclasses.replace(item, condition=item.condition.vary(img_size=_img_size(entries[name][0], item)))
            for name, item in timing.measurements.items()
        }
        return dataclasses.replace(timing, measurements=measurements)


def _img_size(network: NamedNetwork, measurement: Measurement) -> int:
    size: int = network.subject.get("img_size", measurement.condition.img_size)
    return size


def measure_named(
    names: Sequence[str],
    given: Mapping[str, Any],
    evaluator: Evaluator,
    emit: Emit,
    *,
    device: str | None,
    num_classes: int,
    seconds: float | None,
) -> NamedTimings:
    """Returns the common condition and the speeds of networks that are timed in the same rounds.

    With the runtime `best`, each network is first timed briefly in torch (in its inference form) and in every other
    runtime of this machine. Then all networks are timed together, each in its fastest runtime.

    Args:
        names: Names in the format of `find_network`. The first network from a study provides the defaults of the
            condition.
        given: Fields of the condition that override the defaults. The runtime can be `BEST_RUNTIME`.
        evaluator: Evaluator of the timing.
        emit: Receives the events of the timing.
        device: Name of the device. Defaults to that of the study, or else to the fastest available kind.
        num_classes: Number of outputs of the classifiers, for networks that are not from a study.
        seconds: Maximum seconds per network.

    Raises:
        UsageError: A name is unknown, a field of the condition is invalid, or the files of networks leave the runtime
            of another network open.
        DeviceError: This machine does not have the device.
        MeasurementError: The reference network does not fit in memory.
    """
    networks = [find_network(name) for name in dict.fromkeys(names)]
    own = {} if "runtime" in given else _runtimes_of_files(networks)
    is_best = given.get("runtime") == BEST_RUNTIME
    from_study = next((network.defaults for network in networks if network.defaults), {})
    defaults = {name: value for name, value in from_study.items() if name not in ("device", "num_classes", "threads")}
    fields = {**_DEFAULTS, **defaults, **given}
    if is_best or own:
        is_int8 = fields.get("precision") == "int8"
        fields["runtime"] = ("openvino" if is_int8 else "torch") if is_best else next(iter(own.values()))
    if {fields.get("runtime", "torch"), from_study.get("runtime", "torch")} != {"torch"}:
        fields = {name: value for name, value in fields.items() if name in given or name not in TORCH_ONLY}
    device = device or from_study.get("device")
    expected_objective(fields, device)
    report = run_task(evaluator, Inspect(target=device), emit)
    timer = _Timer(
        condition=build_objective(fields, report.target, report.threads),
        evaluator=evaluator,
        emit=emit,
        num_classes=num_classes,
        target=report.target,
        seconds=seconds,
    )
    if is_best:
        return _time_in_best_runtimes(networks, timer)
    entries = {network.name: (network, own.get(network.name, timer.condition.runtime)) for network in networks}
    timing = timer.time(entries, seconds)
    is_mixed = len({runtime for _, runtime in entries.values()}) > 1
    return NamedTimings(
        condition=timer.condition.eager() if is_mixed else timer.condition,
        measurements=timing.measurements,
        failures=timing.failures,
    )


def _runtimes_of_files(networks: Sequence[NamedNetwork]) -> dict[str, str]:
    """Returns the runtime of each network that follows from files among the networks; empty if there is no file.

    Files of one kind set the runtime of all networks. With both kinds, each file runs in its own runtime.

    Raises:
        UsageError: There are files of both kinds, and other networks.
    """
    by_kind = {kind: [network.name for network in networks if kind in network.subject] for kind in FILES}
    kinds = [kind for kind, names in by_kind.items() if names]
    if len(kinds) == 1:
        return {network.name: FILES[kinds[0]][0] for network in networks}
    found = {name: FILES[kind][0] for kind in kinds for name in by_kind[kind]}
    if others := [network.name for network in networks if found and network.name not in found]:
        runtimes = " and ".join(FILES[kind][0] for kind in kinds)
        raise UsageError(
            f"files of networks must set one runtime for {', '.join(others)}, but {', '.join(found)} run in "
            f"{runtimes}. Use --runtime openvino, or --runtime {BEST_RUNTIME} for the fastest of each network."
        )
    return {network.name: found[network.name] for network in networks if found}


def _time_in_best_runtimes(networks: Sequence[NamedNetwork], timer: _Timer) -> NamedTimings:
    """Times each network briefly in every runtime, and then all networks together in their fastest runtimes."""
    runtimes = find_runtimes(timer.condition, timer.evaluator, timer.emit, target=timer.target)
    found = [*["torch"] * (timer.condition.precision != "int8"), *runtimes.found]  # torch does not quantize
    best: dict[str, tuple[NamedNetwork, str]] = {}
    tried: dict[str, Mapping[str, Measurement]] = {}
    failures: dict[str, HiloNasError] = {}
    total = len(networks) + 1
    for i, network in enumerate(networks):
        timer.emit(BenchStepped(text=f"runtimes of {network.name}", done=i, total=total))
        possible = [runtime for runtime in found if runtime in network.runtimes]
        if not possible:
            why = "; ".join(runtimes.skipped.get(runtime, "torch has no int8") for runtime in network.runtimes)
            failures[network.name] = UsageError(
                f"{network.name} needs the runtime {' or '.join(network.runtimes)}, but {why}"
            )
        elif len(possible) == 1:
            tried[network.name], best[network.name] = {}, (network, possible[0])
        else:
            timing = _try_runtimes(network, possible, timer)
            tried[network.name] = timing.measurements
            if timing.measurements:
                best[network.name] = network, _name_fastest(timing.measurements)
            else:
                failures[network.name] = next(iter(timing.failures.values()))
    timing = Timing()
    if best:
        timer.emit(BenchStepped(text="all networks, each in its fastest runtime", done=len(networks), total=total))
        timing = timer.time(best, timer.seconds)
    return NamedTimings(
        condition=timer.condition.eager(),
        measurements=timing.measurements,
        failures={**failures, **timing.failures},
        tried=tried,
    )


def _try_runtimes(network: NamedNetwork, runtimes: Sequence[str], timer: _Timer) -> Timing:
    """Returns the speeds and failures of a network by runtime, from one brief timing."""
    names = {f"{network.name} in {runtime}": runtime for runtime in runtimes}
    seconds = CHOICE_SECONDS if timer.seconds is None else min(CHOICE_SECONDS, timer.seconds)
    timing = timer.time({name: (network, runtime) for name, runtime in names.items()}, seconds)
    found = {runtime: timing.measurements[name] for name, runtime in names.items() if name in timing.measurements}
    for name, error in timing.failures.items():
        timer.emit(Notice(text=f"{name} could not be timed: {error}"))
    if found:
        speeds = ", ".join(f"{figure(own.images_per_s)} in {runtime}" for runtime, own in found.items())
        timer.emit(Notice(text=f"{network.name} runs in {_name_fastest(found)}. Images/s: {speeds}"))
    return Timing(measurements=found, failures={names[name]: error for name, error in timing.failures.items()})


def _name_fastest(measurements: Mapping[str, Measurement]) -> str:
    fastest = choose_fastest(list(measurements.values()))
    return next(runtime for runtime, own in measurements.items() if own is fastest)
