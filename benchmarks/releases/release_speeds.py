"""Speeds of this release for a few networks, compared with earlier releases.

The reference (timm's `resnet18`, as in every study) is the same in all releases and runs in the same rounds. Ratios to
it can therefore be compared with those of an earlier release on a device of the same model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hilo_nas
from benchmarks.releases.history import Speed, find_earlier
from benchmarks.small_networks import SMALL, SMALL_CLASSES, SMALL_PX
from hilo_nas.arch.config import PRESETS, ArchConfig
from hilo_nas.bench.cohort_timing import advise, time_together
from hilo_nas.bench.report_notes import INTERVALS, plan_settings
from hilo_nas.errors import HiloNasError, MeasurementError, UsageError
from hilo_nas.evaluation import Evaluator, Inspect, Time, evaluator_or_local, run_task
from hilo_nas.events import BenchStepped, Emit
from hilo_nas.measurement import Condition, Measurement, kind_of_device
from hilo_nas.measurement.intervals import interval
from hilo_nas.measurement.rounds import ratio
from hilo_nas.report import BenchReport, BenchTable
from hilo_nas.report.benches import between, number, word
from hilo_nas.timing import Entrant

__all__ = ["ReleasesFindings", "ReleasesPlan", "report_releases", "run_releases"]

_PX = 224
_BATCH_SIZES = {"cpu": (1, 8)}
_BATCH_SIZES_ELSEWHERE = (64,)
_SMALL_BATCH_SIZE = 32
_TRAINED = "litv2_s_third"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReleasesPlan:
    """Settings of the benchmark. The networks are always the same.

    Raises:
        UsageError: One or more values are invalid. The message lists all of them.
    """

    device: str | None = None
    """Device. None selects the fastest kind on this machine."""
    seconds: float = 5.0
    """Maximum seconds per form. At least 12 rounds are always timed."""
    threads: int | None = None

    def __post_init__(self) -> None:
        faults = [f"seconds must be above 0, but got {self.seconds:g}"] * (self.seconds <= 0)
        kind = "cpu"
        try:
            kind = kind_of_device(self.device or kind)
        except UsageError as error:
            faults.append(str(error))
        try:
            self.list_cohorts(kind)
        except UsageError as error:
            faults.append(str(error))
        if faults:
            raise UsageError("\n".join(faults))

    def list_cohorts(self, device: str) -> list[dict[tuple[str, str], Entrant]]:
        """Returns the cohorts to time, each with its entries by network and form."""
        kind = device.partition(":")[0]
        cohorts = [
            _pairs(PRESETS, Condition(device=device, batch_size=batch_size, img_size=_PX, threads=self.threads), 1000)
            for batch_size in _BATCH_SIZES.get(kind, _BATCH_SIZES_ELSEWHERE)
        ]
        small = Condition(device=device, batch_size=_SMALL_BATCH_SIZE, img_size=SMALL_PX, threads=self.threads)
        step = {"training": {"arch": SMALL[_TRAINED].to_dict()}}
        trained = {(_TRAINED, "training"): Entrant(subject=step, condition=small, num_classes=SMALL_CLASSES)}
        return [*cohorts, _pairs(SMALL, small, SMALL_CLASSES) | trained]


def _pairs(archs: dict[str, ArchConfig], condition: Condition, num_classes: int) -> dict[tuple[str, str], Entrant]:
    return {
        (network, form): Entrant(
            subject={"arch": arch.to_dict()},
            condition=dataclasses.replace(condition, fused=form == "prepared"),
            num_classes=num_classes,
        )
        for network, arch in archs.items()
        for form in ("plain", "prepared")
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReleasesFindings:
    """Speeds of this release, with those of earlier releases."""

    speeds: Sequence[Speed]
    measurements: Sequence[Measurement]
    failures: dict[str, str]
    """Reasons of failures by network, form and condition."""
    history: Sequence[Speed]
    """Speeds that were stored before."""

    def list_regressions(self) -> list[str]:
        """Returns a sentence for each speed that is slower than before, as defined by `Speed.is_slower_than`."""
        return [
            f"{speed.network} {speed.form} ({speed.condition}) fell from {earlier.text()} times the reference in "
            f"{earlier.version} (torch {earlier.torch}, {earlier.date[:10]}) to {speed.text()}"
            for speed in self.speeds
            if (earlier := find_earlier(speed, self.history)) and speed.is_slower_than(earlier)
        ]

    def count_compared(self) -> int:
        """Returns the number of speeds that have an earlier speed to compare with."""
        return sum(find_earlier(speed, self.history) is not None for speed in self.speeds)

    def list_rows(self) -> list[dict[str, Any]]:
        """Returns a row for each speed, with the speed of the newest earlier release."""
        return [self._row(speed) for speed in self.speeds]

    def _row(self, speed: Speed) -> dict[str, Any]:
        earlier = find_earlier(speed, self.history)
        return {
            **dataclasses.asdict(speed),
            "earlier_version": earlier.version if earlier else None,
            "earlier_ratio": earlier.ratio if earlier else None,
            "earlier_ratio_low": earlier.ratio_low if earlier else None,
            "earlier_ratio_high": earlier.ratio_high if earlier else None,
            "change": speed.ratio / earlier.ratio if earlier else None,
        }


def run_releases(
    plan: ReleasesPlan,
    emit: Emit,
    *,
    history: Sequence[Speed],
    logs: Path,
    evaluator: Evaluator | None = None,
) -> ReleasesFindings:
    """Returns the speeds of this release. Networks of the same batch and image size share a cohort.

    Args:
        plan: Settings.
        emit: Receives an event for each step, each network and each round.
        history: Speeds of earlier releases.
        logs: Folder for the output of the worker process.
        evaluator: Evaluator that times. Defaults to local workers.

    Raises:
        MeasurementError: No network could be timed.
        DeviceError: This machine does not have the device.
    """
    taken: dict[tuple[str, str, str], Measurement] = {}
    failures: dict[tuple[str, str, str], HiloNasError] = {}
    with evaluator_or_local(evaluator, logs, purpose="bench releases") as evaluator:
        report = run_task(evaluator, Inspect(target=plan.device), emit)
        cohorts = plan.list_cohorts(report.identity.kind)
        for done, entrants in enumerate(cohorts):
            plain = next(iter(entrants.values())).condition
            condition = plain.label()
            emit(BenchStepped(text=f"{len(entrants)} networks, {condition}", done=done, total=len(cohorts)))
            names = {" ".join(key): key for key in entrants}
            task = Time(
                condition=plain,
                entries={name: entrants[key] for name, key in names.items()},
                target=report.target,
                seconds=plan.seconds,
            )
            timing = time_together(evaluator, task, emit)
            taken |= {(*names[name], condition): item for name, item in timing.measurements.items()}
            failures |= {(*names[name], condition): error for name, error in timing.failures.items()}
    if not taken:
        raise MeasurementError(f"nothing could be timed: {next(iter(failures.values()))}")
    return ReleasesFindings(
        speeds=[_speed(*key, measurement) for key, measurement in taken.items()],
        measurements=list(taken.values()),
        failures={" ".join(key): str(error) for key, error in failures.items()},
        history=history,
    )


def _speed(network: str, form: str, condition: str, measurement: Measurement) -> Speed:
    own, reference = measurement.call_seconds, measurement.reference_seconds
    low, high = interval(own, reference)
    return Speed(
        version=hilo_nas.__version__,
        device=measurement.device.model,
        network=network,
        form=form,
        condition=condition,
        ratio=ratio(own, reference),
        ratio_low=low,
        ratio_high=high,
        implementation=measurement.form,
        torch=measurement.device.torch,
        date=measurement.measured_at,
    )


def report_releases(plan: ReleasesPlan, findings: ReleasesFindings, command: str) -> BenchReport:
    """Returns the report of this release's speeds."""
    table = BenchTable(
        title=f"hilo-nas {hilo_nas.__version__} compared with earlier releases",
        rows=findings.list_rows(),
        columns=[
            word("network", "network"),
            word("form", "form"),
            word("condition", "condition"),
            between("ratio to resnet18", "ratio", 3),
            word("earlier", "earlier_version"),
            between("its ratio", "earlier_ratio", 3),
            number("change", "change", 3),
        ],
        notes=[
            "The ratio is images/s divided by those of timm's resnet18 in inference, in the same rounds. training: a "
            f"step without the optimizer. {INTERVALS}",
            "earlier: the newest earlier release that was timed on a device of the same model, else the previous "
            f"timing of this release. {findings.count_compared()} of {len(findings.speeds)} speeds have one.",
        ],
    )
    return BenchReport(
        bench="releases",
        title="Speeds by release",
        command=command,
        settings=plan_settings(plan),
        measurements=findings.measurements,
        tables=[table],
        failures=findings.failures,
        advice=[*findings.list_regressions(), *advise(findings.measurements)],
    )
