"""Comparison of this package's LITv2 with the official code, which runs from the user's checkout.

Both have the same weights. First, their outputs are compared. Then the forms of each network at each batch size are
timed in one cohort, so that every ratio is measured round by round.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.official.cases import OURS, Case, TimedForm, list_cases, list_forms
from benchmarks.official.checkout import find_fault, read_state
from hilo_nas.arch.config import PRESETS
from hilo_nas.bench.backbones.forms import name_form
from hilo_nas.bench.cohort_timing import advise, ratio_fields, speed_fields, time_together
from hilo_nas.errors import MeasurementError, OutOfMemoryError, UsageError, WorkerError
from hilo_nas.evaluation import BenchWorker, Evaluator, Inspect, Time, Timing, evaluator_or_local, run_task
from hilo_nas.events import BenchStepped, Emit, Notice
from hilo_nas.measurement import PRECISIONS, Condition, Measurement, kind_of_device

__all__ = ["BATCH_SIZES", "NETWORKS", "OfficialFindings", "OfficialPlan", "TimedCase", "run_official"]

NETWORKS = tuple(PRESETS)
BATCH_SIZES = (1, 8, 32, 64)
_IDLE_TIMEOUT_S = 1800.0
"""Seconds without output after which a worker counts as hung. Compilation takes minutes and prints nothing."""
_TOLERANCE = {"cpu": 1e-3}
"""Largest relative difference of fp32 outputs that a different order of sums can explain, by device."""
_OTHER_TOLERANCE = 1e-2
"""Tolerance on other devices, whose convolutions may round their inputs (TF32)."""
_HALF_TOLERANCE = 0.1
"""Tolerance in half precision. If larger, twice the official code's own difference under autocast is used."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfficialPlan:
    """Settings of the comparison.

    Raises:
        UsageError: One or more values are invalid. The message lists all of them.
    """

    checkout: Path
    """Folder of a checkout of github ziplab/LITv2."""
    device: str | None = None
    """Device. None selects the fastest kind on this machine."""
    networks: Sequence[str] = NETWORKS
    batch_sizes: Sequence[int] = BATCH_SIZES
    precisions: Sequence[str] = ("fp32",)
    """Precisions of our weights. The official code runs in fp32, and with autocast for each half precision."""
    training: bool = True
    """True to time training steps too."""
    compile: bool | None = None
    """True to time compiled forms of both codes too. None compiles only on CUDA devices."""
    seconds: float = 5.0
    """Maximum seconds per form. At least 12 rounds are always timed."""
    threads: int | None = None

    def __post_init__(self) -> None:
        faults = [find_fault(self.checkout)]
        for name, values, choices in (
            ("network", self.networks, NETWORKS),
            ("precision", self.precisions, [name for name in PRECISIONS if name != "int8"]),  # torch has none
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

    def list_cohorts(self, device: str) -> list[tuple[Case, list[TimedForm]]]:
        """Returns each case with the forms to time."""
        compiles = device.startswith("cuda") if self.compile is None else self.compile
        cases = list_cases(self.networks, self.batch_sizes, device, training=self.training)
        return [
            (case, list_forms(case, self.precisions, device=device, threads=self.threads, compiles=compiles))
            for case in cases
        ]

    @property
    def is_part(self) -> bool:
        """True if some networks, batch sizes or the training steps are left out."""
        return not (self.training and {*NETWORKS} <= {*self.networks} and {*BATCH_SIZES} <= {*self.batch_sizes})


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimedCase:
    """Timings of one case, and the differences of its outputs to those of the official network in fp32."""

    case: Case
    forms: Sequence[TimedForm]
    timing: Timing
    differences: Mapping[str, float | None]
    """Differences by form; those of gradients for a training step. Empty if the comparison failed."""

    def list_rows(self) -> list[dict[str, Any]]:
        """Returns a row for each form with its speed and its ratio to the official code."""
        return [self._row(item) for item in self.forms]

    def _row(self, item: TimedForm) -> dict[str, Any]:
        taken = self.timing.measurements
        own, compared_with, first = taken.get(item.name), taken.get(item.compared_with), taken.get(self.forms[0].name)
        return {
            "step": self.case.step,
            "network": self.case.network,
            "img_size": self.case.img_size,
            "batch_size": self.case.batch_size,
            "code": item.code,
            "form": name_form(item.condition),
            "precision": item.condition.precision,
            **speed_fields(own, "images_per_s"),
            **ratio_fields(own, compared_with, "ratio"),
            **ratio_fields(own, first, "ratio_fp32"),
            "difference": self.differences.get(item.name),
            "latency_ms_p50": own.latency_ms_p50 if own else None,
            "memory_mib": own.memory_mib if own else None,
            "implementation": own.form if own else None,
            "rounds": len(own.call_seconds) if own else None,
            "verdict": own.verdict if own else "failed",
            "failure": str(self.timing.failures[item.name]) if item.name in self.timing.failures else None,
        }

    def find_difference(self) -> str | None:
        """Returns a sentence about the first of our forms that differs from the official network; None if none does."""
        for item in self.forms:
            difference = self.differences.get(item.name)
            if item.code != OURS or difference is None:
                continue
            tolerance = _TOLERANCE.get(item.condition.device, _OTHER_TOLERANCE)
            if item.condition.precision != "fp32":
                theirs = self.differences.get(item.compared_with)  # the official code's own error at that precision
                tolerance = max(_HALF_TOLERANCE, 2 * (theirs or 0.0))
            if not difference <= tolerance:
                kind = "gradients" if self.case.is_training else "outputs"
                return (
                    f"{self.case}: {kind} of {item.name} must equal the official ones, but differ by {difference:.1e} "
                    "of the largest value"
                )
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfficialFindings:
    """Timings of all cases, and the version of the official code."""

    state: str
    timed: Sequence[TimedCase]

    @property
    def measurements(self) -> list[Measurement]:
        """Measurements of all cases."""
        return [measurement for timed in self.timed for measurement in timed.timing.measurements.values()]

    @property
    def failures(self) -> dict[str, str]:
        """Reasons of failures by form and case."""
        return {
            f"{name}, {timed.case}": str(error) for timed in self.timed for name, error in timed.timing.failures.items()
        }

    def list_rows(self, *, is_training: bool) -> list[dict[str, Any]]:
        """Returns one row per timed form of each case.

        A form is the official code or ours, with its precision, fusion, memory layout and compilation.

        Args:
            is_training: True for training steps, False for inference.
        """
        return [row for timed in self.timed if timed.case.is_training == is_training for row in timed.list_rows()]

    def advise(self) -> list[str]:
        """Returns sentences about outputs that differ, and advice about the machine if timings were not steady."""
        differences = [text for timed in self.timed if (text := timed.find_difference())]
        return differences + advise(self.measurements)


def run_official(
    plan: OfficialPlan,
    emit: Emit,
    *,
    logs: Path,
    evaluator: Evaluator | None = None,
    start_worker: Callable[..., BenchWorker] = BenchWorker,
) -> OfficialFindings:
    """Returns the differences of outputs and the speeds of both codes in each case.

    Args:
        plan: Settings.
        emit: Receives an event for each step, each form and each round.
        logs: Folder for the output of worker processes.
        evaluator: Evaluator that times. Defaults to local workers.
        start_worker: Function that creates the worker that compares outputs.

    Raises:
        UsageError: The official code or a package that it needs is missing.
        MeasurementError: No form could be timed.
        DeviceError: This machine does not have the device.
    """
    state = read_state(plan.checkout)
    with evaluator_or_local(evaluator, logs, purpose="bench official", idle_timeout_s=_IDLE_TIMEOUT_S) as evaluator:
        report = run_task(evaluator, Inspect(target=plan.device), emit)
        cohorts = [
            (case, forms, {item.name: item.entrant(case, plan.checkout) for item in forms})
            for case, forms in plan.list_cohorts(report.identity.kind)
        ]
        purpose = "comparing outputs with the official code's"
        with start_worker(logs / "comparing.log", purpose=purpose, idle_timeout_s=_IDLE_TIMEOUT_S) as worker:
            compare = functools.partial(worker.call, emit=emit, device=report.identity)
            compare("benchmarks.official.official_code:check_code", {"checkout": str(plan.checkout)})
            differences: list[dict[str, float | None]] = []
            for case, _, entrants in cohorts:
                emit(BenchStepped(text=f"outputs: {case}", done=len(differences), total=2 * len(cohorts)))
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
        timed: list[TimedCase] = []
        for (case, forms, entrants), found in zip(cohorts, differences, strict=True):
            emit(BenchStepped(text=str(case), done=len(cohorts) + len(timed), total=2 * len(cohorts)))
            task = Time(condition=forms[0].condition, entries=entrants, target=report.target, seconds=plan.seconds)
            timing = time_together(evaluator, task, emit)
            timed.append(TimedCase(case=case, forms=forms, timing=timing, differences=found))
    findings = OfficialFindings(state=state, timed=timed)
    if not findings.measurements:
        name, why = next(iter(findings.failures.items()))
        raise MeasurementError(f"nothing could be timed; {name}: {why}")
    return findings
