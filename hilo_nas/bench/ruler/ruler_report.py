"""Report of `hilo-nas bench ruler`."""

from __future__ import annotations

from typing import Any

from hilo_nas.arch.config import describe_arch
from hilo_nas.arch.cost import count_macs, count_params
from hilo_nas.bench.report_notes import plan_settings
from hilo_nas.bench.ruler.repeated_passes import RulerFindings
from hilo_nas.bench.ruler.ruler_bench import RulerPlan
from hilo_nas.report import BenchReport, BenchTable
from hilo_nas.report.benches import number, percent, word

__all__ = ["report_ruler"]


def report_ruler(plan: RulerPlan, findings: RulerFindings, command: str) -> BenchReport:
    """Returns the report of the ruler. Rows per network and pass appear in a CSV file only.

    Args:
        plan: Settings of the benchmark.
        findings: Findings of the benchmark.
        command: Command that reproduces them.
    """
    machine = BenchTable(
        title="Timing resolution of this machine",
        rows=findings.summarize(),
        columns=[
            word("machine", "state"),
            word("way", "way"),
            percent("CV %", "cv_relative_median", 2),
            percent("CV max %", "cv_relative_max", 2),
            percent("CV images/s %", "cv_anchored_median", 2),
            percent("max %", "cv_anchored_max", 2),
            number("tau", "tau_mean", 3),
            number("tau min", "tau_min", 3),
            number("smallest ratio", "smallest_ratio", 4),
            number("s of rounds", "timed_s", 3),
            number("s in total", "pass_s", 3),
            percent("steady %", "steady", 0),
            percent("bursty %", "bursty", 0),
            percent("throttled %", "throttled", 0),
            percent("contended %", "contended", 0),
            number("others' cores", "others_cores", 2),
        ],
        notes=[
            "CV: coefficient of variation between passes of a network's relative speed (its speed divided by the mean "
            "of the pass), which ranking uses. Median and maximum over networks. CV images/s: the same for images/s "
            "anchored by the reference, with one calibration for all passes.",
            "tau: Kendall's tau between every two passes, mean and minimum.",
            "smallest ratio: smallest ratio of two speeds that one pass distinguishes with 95 % confidence: "
            "exp(1.96 √2 CV).",
            "s: seconds per network and pass, of the rounds and in total, which includes building, warm-up and single "
            "calls.",
            "steady, bursty, throttled, contended: share of timings with that verdict. Others' cores: number of cores "
            "that other processes keep busy, including the load, median over the timings.",
            "cohort: all networks in the same rounds. alone: one after the other, each with the reference.",
        ],
    )
    statistics = BenchTable(
        name="statistics",
        title="Statistics compared on the samples of the cohorts",
        rows=findings.compare_statistics(),
        columns=[
            word("machine", "state"),
            word("statistic", "statistic"),
            percent("CV relative to the round %", "cv_relative_median", 2),
            percent("max %", "cv_relative_max", 2),
            percent("CV relative to the reference %", "cv_anchored_median", 2),
            percent("max %", "cv_anchored_max", 2),
            number("tau", "tau_mean", 3),
            number("tau min", "tau_min", 3),
        ],
        notes=["Measurements use fast rounds: between the 3rd and the 15th percentile."],
    )
    timings = BenchTable(name="passes", title="", rows=findings.list_timings(), columns=[], is_shown=False)
    return BenchReport(
        bench="ruler",
        title="Timing resolution of this machine",
        command=command,
        settings={**plan_settings(plan), "space": plan.space.name},
        measurements=[measurement for item in findings.passes for measurement in item.measurements.values()],
        tables=[machine, statistics, _list_networks(plan, findings), timings],
        failures={key: str(error) for key, error in findings.failures.items()},
        advice=findings.advise(),
    )


def _list_networks(plan: RulerPlan, findings: RulerFindings) -> BenchTable:
    rows: list[dict[str, Any]] = [
        {
            "network": key,
            "params_m": count_params(arch, num_classes=plan.num_classes) / 1e6,
            "mmacs": count_macs(arch, plan.img_size, num_classes=plan.num_classes) / 1e6,
            "architecture": describe_arch(arch),
            "failure": str(findings.failures[key]) if key in findings.failures else None,
        }
        for key, arch in findings.networks.items()
    ]
    columns = [word("network", "network"), number("params M", "params_m", 3), number("MMACs", "mmacs", 3)]
    columns += [word("architecture", "architecture"), word("failed", "failure")]
    return BenchTable(name="networks", title="Networks", rows=rows, columns=columns)
