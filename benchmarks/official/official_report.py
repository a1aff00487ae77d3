"""What `benchmarks.official` found as tables and a report."""

from __future__ import annotations

from typing import Any

from benchmarks.official.comparison import BATCH_SIZES, NETWORKS, OfficialFindings, OfficialPlan
from hilo_nas.bench.report_notes import INTERVALS, plan_settings
from hilo_nas.report import BenchReport, BenchTable
from hilo_nas.report.benches import Column, between, number, word

__all__ = ["report_official"]


def report_official(plan: OfficialPlan, findings: OfficialFindings, command: str) -> BenchReport:
    """Returns the report of LITv2 beside the official code."""
    tables = [
        BenchTable(
            title="Inference",
            rows=findings.list_rows(is_training=False),
            columns=_columns(plan, "outputs differ"),
            notes=[
                "plain: as it comes. fused: ours, made ready for inference. compiled: by torch.compile, the same for "
                "both. The official code's deformable convolution, an extension for CUDA alone, is torchvision's "
                "operator here.",
                "All of one network and batch shared their rounds. The ratio is to the official code, plain: in fp32, "
                f"and for half precision under autocast, the only way it knows. {INTERVALS}",
                "outputs differ: largest difference to the official network's in fp32, as a share of its largest "
                "output; random weights, sampling offsets that are not zero, batch norms with statistics of their own.",
                "MiB: peak of the allocator over one call, with the weights.",
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
                    "Forward, loss and backward, without the optimiser and without dropped paths; weights are in fp32, "
                    "and half precision is autocast in both.",
                    "gradients differ: largest difference of all gradients, as a share of the largest one.",
                ],
            )
        )
    return BenchReport(
        bench="official",
        title="LITv2 here beside the official code",
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
    """Precisions, after the networks and batches that a part of the bench was run for: two parts have two names."""
    part = [] if {*NETWORKS} <= {*plan.networks} else [*plan.networks]
    part += [] if {*BATCH_SIZES} <= {*plan.batch_sizes} else [f"b{size}" for size in plan.batch_sizes]
    return [*part, *plan.precisions]


def _settings(plan: OfficialPlan) -> dict[str, Any]:
    return {name: value for name, value in plan_settings(plan).items() if name != "checkout"}  # a path means nothing


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
