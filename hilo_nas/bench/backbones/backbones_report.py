"""Report of `hilo-nas bench backbones`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hilo_nas.bench.backbones.backbones_bench import BackbonesPlan
from hilo_nas.bench.backbones.forms import BackbonesFindings
from hilo_nas.bench.report_notes import INTERVALS, plan_settings
from hilo_nas.report import BenchReport, BenchTable
from hilo_nas.report.benches import between, number, word

__all__ = ["report_backbones"]


def report_backbones(plan: BackbonesPlan, findings: BackbonesFindings, command: str) -> BenchReport:
    """Returns the report of the backbones."""
    group_note = findings.check_groups()
    table = BenchTable(
        title="LITv2 and its peers",
        rows=[{**row, "top1": _top1(row)} for row in findings.list_rows()],
        columns=[
            word("network", "network"),
            between("images/s (best)", "images_per_s"),
            word("best form", "form"),
            between("ratio to LITv2-S", "ratio", 3),
            between("images/s (plain)", "plain_images_per_s"),
            between("ratio", "plain_ratio", 3),
            number("best/plain", "gain", 3),
            number("GMACs", "gmacs", 3),
            number("params M", "params_m", 3),
            number("MiB", "memory_mib", 3),
            word("top-1 % (published)", "top1"),
            word("cohort", "group"),
            word("verdict", "verdict"),
        ],
        notes=[
            "plain: eager, NCHW, as built. best: the fastest of the forms tried, in the second table; the simpler one "
            f"where a timing cannot tell. Ratios are best to best and plain to plain. {INTERVALS}",
            "Networks of one cohort shared their rounds, and LITv2-S ran in every cohort: each ratio to it, and of a "
            "network's own forms, is measured round by round; two networks of different cohorts compare through it."
            + (f" {group_note}." if group_note else ""),
            "GMACs: multiply-adds of products and convolutions, attention's own included, for one image; LITv2's by "
            "formula, the others' counted by torch's FlopCounterMode. MiB: peak of the allocator over one call, with "
            "the weights.",
            "top-1: published on ImageNet-1K for the weights that the CSV names (LITv2: the paper; others: timm's "
            "table of results), with the size in pixels where it is not 224. Nothing here was trained.",
        ],
    )
    forms = BenchTable(
        name="forms",
        title="Forms tried",
        rows=findings.list_forms(),
        columns=[
            word("network", "network"),
            word("form", "form"),
            between("images/s", "images_per_s"),
            number("MiB", "memory_mib", 3),
            word("implementation", "implementation"),
            word("verdict", "verdict"),
            word("failed", "failure"),
        ],
        notes=[
            "A short heat for each network; forms of one network shared their rounds, two networks did not. An "
            "implementation that ends in `fused` found nothing to fold: it is the same network as without.",
        ],
    )
    return BenchReport(
        bench="backbones",
        title="LITv2 beside its peers",
        command=command,
        settings=plan_settings(plan),
        measurements=findings.measurements,
        tables=[table, forms],
        failures=findings.list_failures(),
        advice=findings.advise(),
        headlines=findings.list_headlines(),
        is_part=bool(plan.networks),
    )


def _top1(row: Mapping[str, Any]) -> str:
    size = row["published_top1_img_size"]
    return f"{100 * row['published_top1']:.1f}" + (f" ({size} px)" if size != 224 else "")
