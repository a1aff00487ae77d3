"""The report of `hilo-nas bench stages`."""

from __future__ import annotations

from hilo_nas.bench.report_notes import INTERVALS, plan_settings
from hilo_nas.bench.stages.stages_bench import StagesFindings
from hilo_nas.report import BenchReport, BenchTable
from hilo_nas.report.benches import between, number, percent, word

__all__ = ["report_stages"]


def report_stages(findings: StagesFindings, command: str) -> BenchReport:
    """Returns the report of a network's parts.

    Args:
        findings: What was found.
        command: What makes it again.
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
            f"At best, in the same rounds: {findings.macs_per_s / 1e9:,.4g} billion multiply-adds a second (a product "
            f"of large matrices in this precision) and {findings.bytes_per_s / 2**30:,.4g} GiB/s (a copy, read and "
            "written bytes together).",
            "floor: the later of the part's multiply-adds at that rate, and of the bytes that it must at least move "
            "(weights, the map that comes in, the map that goes out) at that bandwidth. A share may exceed 1 where a "
            f"part's tensors stay in a cache. {INTERVALS}",
            "Parts run in their inference form, each on a map of its own; `the network` is the whole, in the same "
            "rounds.",
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
        condition=f"{plan.network}-{plan.img_size}px-{plan.precision}-b{plan.batch_size}",
    )
