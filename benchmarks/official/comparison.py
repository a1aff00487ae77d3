"""This package's LITv2 beside the official code, which is run from a checkout that the user has.

Both have the same weights. What they give is compared first; then each network at each batch is timed in a cohort of
its own, so that every ratio is measured round by round.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.official.cases import OURS, Case, Duellist, list_cases, list_duellists
from benchmarks.official.checkout import find_fault, read_state
from hilo_nas.arch.config import PRESETS
from hilo_nas.bench.backbones.forms import name_form
from hilo_nas.bench.cohort_timing import advise, ratio_fields, speed_fields, time_together
from hilo_nas.errors import MeasurementError, OutOfMemoryError, UsageError, WorkerError
from hilo_nas.evaluation import BenchWorker, Evaluator, Inspect, Time, Timing, evaluator_or_local, run_task
from hilo_nas.events import BenchStepped, Emit, Notice
from hilo_nas.measurement import PRECISIONS, Condition, Measurement, kind_of_device

__all__ = ["BATCH_SIZES", "NETWORKS", "OfficialFindings", "OfficialPlan", "Timed", "run_official"]

NETWORKS = tuple(PRESETS)
BATCH_SIZES = (1, 8, 32, 64)
_IDLE_TIMEOUT_S = 1800.0
"""Seconds of silence after which a process counts as hung: compiling takes minutes and says nothing."""
_SAME = {"cpu": 1e-3}
"""Largest difference, as a share, up to which fp32 outputs are the same but for the order of sums."""
_SAME_ELSEWHERE = 1e-2
"""The same on devices whose convolutions round their inputs (TF32)."""
_SAME_IN_HALF = 0.1
"""The same in half precision, or twice what the official code differs by under autocast."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfficialPlan:
    """What is to be timed.

    Raises:
        UsageError: With every fault of the values given.
    """

    checkout: Path
    """Folder of a checkout of github ziplab/LITv2."""
    device: str | None = None
    """None for the fastest kind that this machine has."""
    networks: Sequence[str] = NETWORKS
    batch_sizes: Sequence[int] = BATCH_SIZES
    precisions: Sequence[str] = ("fp32",)
    """Of our weights; the official code is timed in fp32, and under autocast beside each half precision."""
    training: bool = True
    """Whether training steps are timed, too."""
    compile: bool | None = None
    """Whether compiled forms of both are timed, too; None for on a CUDA device alone."""
    seconds: float = 5.0
    """Seconds that each form is timed for at most; 12 rounds are timed in any case."""
    threads: int | None = None

    def __post_init__(self) -> None:
        faults = [find_fault(self.checkout)]
        for name, values, choices in (
            ("network", self.networks, NETWORKS),
            ("precision", self.precisions, PRECISIONS),
        ):
            faults += [f"{name} must be one of {', '.join(choices)}, but got {v!r}" for v in values if v not in choices]
            faults += [f"at least one {name} is needed"] * (not values)
        faults += [f"batch_size must be at least 1, but got {size}" for size in self.batch_sizes if size < 1]
        faults += ["at least one batch_size is needed"] * (not self.batch_sizes)
        if self.seconds <= 0:
            faults.append(f"seconds must be above 0, but got {self.seconds:g}")
        try:
            Condition(device=kind_of_device(self.device or "cpu"), threads=self.threads)
        except UsageError as error:
            faults.append(str(error))
        if found := [fault for fault in faults if fault]:
            raise UsageError("\n".join(found))

    def list_duels(self, device: str) -> list[tuple[Case, list[Duellist]]]:
        """Returns each case with those who meet in it."""
        compiles = device.startswith("cuda") if self.compile is None else self.compile
        cases = list_cases(self.networks, self.batch_sizes, device, training=self.training)
        return [
            (case, list_duellists(case, self.precisions, device=device, threads=self.threads, compiles=compiles))
            for case in cases
        ]

    @property
    def is_part(self) -> bool:
        """Whether less than everything is timed."""
        return not (self.training and {*NETWORKS} <= {*self.networks} and {*BATCH_SIZES} <= {*self.batch_sizes})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timed:
    """One case: what was timed, and how far its outputs are from the official network's in fp32."""

    case: Case
    duellists: Sequence[Duellist]
    timing: Timing
    differences: Mapping[str, float | None]
    """By name; of a training step those of the gradients. Empty where nothing could be compared."""

    def list_rows(self) -> list[dict[str, Any]]:
        """Returns a row for each that met: its speed, and its ratio to the official code."""
        return [self._row(item) for item in self.duellists]

    def _row(self, item: Duellist) -> dict[str, Any]:
        taken = self.timing.measurements
        own, rival, first = taken.get(item.name), taken.get(item.rival), taken.get(self.duellists[0].name)
        return {
            "step": self.case.step,
            "network": self.case.network,
            "img_size": self.case.img_size,
            "batch_size": self.case.batch_size,
            "code": item.code,
            "form": name_form(item.condition),
            "precision": item.condition.precision,
            **speed_fields(own, "images_per_s"),
            **ratio_fields(own, rival, "ratio"),
            **ratio_fields(own, first, "ratio_fp32"),
            "difference": self.differences.get(item.name),
            "latency_ms_p50": own.latency_ms_p50 if own else None,
            "memory_mib": own.memory_mib if own else None,
            "implementation": own.form if own else None,
            "rounds": len(own.call_seconds) if own else None,
            "verdict": own.verdict if own else "failed",
            "failure": str(self.timing.failures[item.name]) if item.name in self.timing.failures else None,
        }

    def find_stranger(self) -> str | None:
        """Returns which form of ours gives something else than the official network, in words; None for none."""
        for item in self.duellists:
            difference = self.differences.get(item.name)
            if item.code != OURS or difference is None:
                continue
            same = _SAME.get(item.condition.device, _SAME_ELSEWHERE)
            if item.condition.precision != "fp32":
                theirs = self.differences.get(item.rival)  # what the official code itself loses, at that precision
                same = max(_SAME_IN_HALF, 2 * (theirs or 0.0))
            if not difference <= same:
                what = "gradients" if self.case.is_training else "outputs"
                return f"{self.case}: {what} of {item.name} differ by {difference:.1e} of the largest: another network"
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfficialFindings:
    """All cases, and which state of the official code was run."""

    state: str
    timed: Sequence[Timed]

    @property
    def measurements(self) -> list[Measurement]:
        """All that were taken."""
        return [measurement for timed in self.timed for measurement in timed.timing.measurements.values()]

    @property
    def failures(self) -> dict[str, str]:
        """By form and case, why it could not be timed."""
        return {
            f"{name}, {timed.case}": str(error) for timed in self.timed for name, error in timed.timing.failures.items()
        }

    def list_rows(self, *, is_training: bool) -> list[dict[str, Any]]:
        """Returns a row for each form in each case of a kind."""
        return [row for timed in self.timed if timed.case.is_training == is_training for row in timed.list_rows()]

    def advise(self) -> list[str]:
        """Returns which outputs were not the same, and what to do about the machine if it was not steady."""
        strangers = [text for timed in self.timed if (text := timed.find_stranger())]
        return strangers + advise(self.measurements)


def run_official(
    plan: OfficialPlan,
    emit: Emit,
    *,
    logs: Path,
    evaluator: Evaluator | None = None,
    start_worker: Callable[..., BenchWorker] = BenchWorker,
) -> OfficialFindings:
    """Compares what both codes give, then times them side by side, case by case.

    Args:
        plan: What to time.
        emit: Receives an event for each step, each form and each round.
        logs: Folder for what the processes print.
        evaluator: Times; that of this machine if left out.
        start_worker: Creates the process that compares outputs.

    Raises:
        UsageError: The official code, or something that it needs, is not there.
        MeasurementError: Nothing could be timed.
        DeviceError: This machine does not have the device.
    """
    state = read_state(plan.checkout)
    with evaluator_or_local(evaluator, logs, purpose="bench official", idle_timeout_s=_IDLE_TIMEOUT_S) as evaluator:
        report = run_task(evaluator, Inspect(target=plan.device), emit)
        duels = [
            (case, met, {item.name: item.entrant(case, plan.checkout) for item in met})
            for case, met in plan.list_duels(report.identity.kind)
        ]
        purpose = "comparing outputs with the official code's"
        with start_worker(logs / "comparing.log", purpose=purpose, idle_timeout_s=_IDLE_TIMEOUT_S) as worker:
            compare = functools.partial(worker.call, emit=emit, device=report.identity)
            compare("benchmarks.official.official_code:check_code", {"checkout": str(plan.checkout)})
            differences: list[dict[str, float | None]] = []
            for case, _, entrants in duels:
                emit(BenchStepped(text=f"outputs: {case}", done=len(differences), total=2 * len(duels)))
                arguments = {
                    "entrants": {
                        name: {"subject": dict(entrant.subject), "condition": entrant.condition.to_dict()}
                        for name, entrant in entrants.items()
                    },
                    "num_classes": case.num_classes,
                    "target": report.target,
                }
                try:
                    differences.append(compare("benchmarks.official.output_differences:compare_outputs", arguments))
                except (OutOfMemoryError, WorkerError) as error:
                    emit(Notice(level="warning", text=f"outputs could not be compared ({case}): {error}"))
                    differences.append({})
        timed: list[Timed] = []
        for (case, met, entrants), found in zip(duels, differences, strict=True):
            emit(BenchStepped(text=str(case), done=len(duels) + len(timed), total=2 * len(duels)))
            task = Time(condition=met[0].condition, entries=entrants, target=report.target, seconds=plan.seconds)
            timing = time_together(evaluator, task, emit)
            timed.append(Timed(case=case, duellists=met, timing=timing, differences=found))
    findings = OfficialFindings(state=state, timed=timed)
    if not findings.measurements:
        name, why = next(iter(findings.failures.items()))
        raise MeasurementError(f"nothing could be timed; {name}: {why}")
    return findings
