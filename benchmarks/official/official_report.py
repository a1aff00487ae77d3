"""Report of `python -m benchmarks.official`."""

from __future__ import annotations

from typing import Any

from benchmarks.official.comparison import BATCH_SIZES, NETWORKS, OfficialFindings, OfficialPlan
from hilo_nas.bench.report_notes import INTERVALS, plan_settings
from hilo_nas.report import BenchReport, BenchTable
from hilo_nas.report.benches import Column, between, number, word

__all__ = ["report_official"]


def report_official(plan: OfficialPlan, findings: OfficialFindings, command: str) -> BenchReport:
    """Returns the report of the comparison: a table of inference and a table of training steps."""
    tables = [
        BenchTable(
            title="Inference",
            rows=findings.list_rows(is_training=False),
            columns=_columns(plan, "outputs differ"),
            notes=[
                "plain: as built. fused: ours, in its inference form. compiled: with torch.compile, the same for both. "
                "torchvision's operator replaces the official deformable convolution, an extension for CUDA only.",
                "All forms of one network and batch size shared their rounds. The ratio is to the plain official code: "
                f"in fp32, and for half precision with autocast, the only way that it supports. {INTERVALS}",
                "outputs differ: largest difference to the official network's output in fp32, divided by its largest "
                "output. Weights are random, sampling offsets are not zero, and batch norms have random statistics.",
                "MiB: peak of the allocator during one call, weights included.",
            ],
        )
    ]
    if plan.training:
        tables.append(
            BenchTable(
                name="training",
                title="Training step",
                rows=findings.list_rows(is_training=True),
                columns=_columns(plan, "gradients differ"),
                notes=[
                    "Forward, loss and backward, without the optimizer and without drop path. Weights are in fp32. "
                    "Half precision means autocast in both codes.",
                    "gradients differ: largest difference of all gradients, divided by the largest gradient.",
                ],
            )
        )
    return BenchReport(
        bench="official",
        title="LITv2 compared with the official code",
        command=command,
        settings={**_settings(plan), "official code": findings.state},
        measurements=findings.measurements,
        tables=tables,
        failures=findings.failures,
        advice=findings.advise(),
        is_part=plan.is_part,
        condition="-".join(_what_was_timed(plan)),
    )


def _what_was_timed(plan: OfficialPlan) -> list[str]:
    """Returns the parts of the file name: networks and batch sizes if some were left out, then precisions."""
    part = [] if {*NETWORKS} <= {*plan.networks} else [*plan.networks]
    part += [] if {*BATCH_SIZES} <= {*plan.batch_sizes} else [f"b{size}" for size in plan.batch_sizes]
    return [*part, *plan.precisions]


def _settings(plan: OfficialPlan) -> dict[str, Any]:
    # Paths differ between machines.
    return {name: value for name, value in plan_settings(plan).items() if name != "checkout"}


def _columns(plan: OfficialPlan, difference: str) -> list[Column]:
    only_fp32 = set(plan.precisions) == {"fp32"}
    return [
        word("network", "network"),
        word("px", "img_size"),
        word("batch", "batch_size"),
        word("code", "code"),
        word("form", "form"),
        word("precision", "precision"),
        between("images/s", "images_per_s"),
        between("ratio to official", "ratio", 3),
        *[between("ratio to official fp32", "ratio_fp32", 3)] * (not only_fp32),
        (difference, _share),
        number("MiB", "memory_mib", 3),
        word("verdict", "verdict"),
    ]


def _share(row: Any) -> str:
    return "-" if row["difference"] is None else f"{row['difference']:.1e}"
