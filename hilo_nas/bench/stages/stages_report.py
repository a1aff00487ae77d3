"""Report of `hilo-nas bench stages`."""

from __future__ import annotations

from hilo_nas.bench.report_notes import INTERVALS, plan_settings
from hilo_nas.bench.stages.stages_bench import StagesFindings
from hilo_nas.report import BenchReport, BenchTable
from hilo_nas.report.benches import between, number, percent, word
from hilo_nas.study.stored_study import slug

__all__ = ["report_stages"]


def report_stages(findings: StagesFindings, command: str) -> BenchReport:
    """Returns the report of a network's parts.

    Args:
        findings: Findings of the benchmark.
        command: Command that reproduces them.
    """
    plan = findings.plan
    table = BenchTable(
        title=f"Where the time of {plan.network} goes, at batch {plan.batch_size}",
        rows=findings.list_rows(),
        columns=[
            word("part", "part"),
            number("ms", "time_ms", 4),
            percent("time %", "share_of_time", 1),
            number("floor ms", "floor_ms", 4),
            word("bound by", "bound"),
            between("share of the floor", "share_of_floor", 2),
            number("MMACs", "mmacs", 4),
            number("MiB moved", "mib", 3),
            word("verdict", "verdict"),
        ],
        notes=[
            f"Rates of the device in the same rounds: {findings.macs_per_s / 1e9:,.4g} billion multiply-adds per s "
            "(a product of large matrices in this precision) and "
            f"{findings.bytes_per_s / 2**30:,.4g} GiB/s (a copy, read plus written bytes).",
            "floor: the time of the part's multiply-adds at that rate, or of its minimum memory traffic (weights, "
            "input map, output map) at that bandwidth if that is larger. A share can exceed 1 if a part's tensors stay "
            f"in a cache. {INTERVALS}",
            "Parts run separately in their inference form, on random inputs. `the network` is the whole network, timed "
            "in the same rounds.",
        ],
    )
    return BenchReport(
        bench="stages",
        title="Where a network's time goes",
        command=command,
        settings=plan_settings(plan),
        measurements=list(findings.measurements.values()),
        tables=[table],
        failures={name: str(error) for name, error in findings.failures.items()},
        advice=findings.advise(),
        condition=f"{slug(plan.network)}-{plan.img_size}px-{plan.precision}-b{plan.batch_size}",
    )
