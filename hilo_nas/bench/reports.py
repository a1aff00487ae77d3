"""What each bench found as tables and a report: which figures stand in them, and what must be known to read them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hilo_nas.arch.config import describe_arch
from hilo_nas.arch.cost import count_macs, count_params
from hilo_nas.bench.attention import AttentionFindings, AttentionPlan
from hilo_nas.bench.backbones import BackbonesPlan
from hilo_nas.bench.forms import BackbonesFindings
from hilo_nas.bench.passes import RulerFindings
from hilo_nas.bench.ruler import RulerPlan
from hilo_nas.report import BenchReport, BenchTable
from hilo_nas.report.benches import between, number, percent, word

__all__ = ["INTERVALS", "plan_settings", "report_attention", "report_backbones", "report_ruler"]

INTERVALS = "Intervals are of 95 %, from a bootstrap over rounds."
"""A sentence for the notes of every table that has some."""


def report_ruler(plan: RulerPlan, findings: RulerFindings, command: str) -> BenchReport:
    """Returns the report of the ruler; its evidence, a row per network and pass, goes to a CSV file alone.

    Args:
        plan: What was asked for.
        findings: What came of it.
        command: What makes it again.
    """
    machine = BenchTable(
        title="What this machine resolves",
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
            number("s in all", "pass_s", 3),
            percent("steady %", "steady", 0),
            percent("bursty %", "bursty", 0),
            percent("throttled %", "throttled", 0),
            percent("contended %", "contended", 0),
            number("others' cores", "others_cores", 2),
        ],
        notes=[
            "CV: coefficient of variation between passes of a network's speed over the mean of the pass, which is what "
            "ranking uses; median and greatest over the networks. CV images/s: the same of the images/s that the "
            "reference anchors, by one calibration for all passes.",
            "tau: Kendall's tau between every two passes; mean and smallest.",
            "smallest ratio: how many times as fast as another a network must be to be told apart in one pass, at "
            "95 %: exp(1.96 √2 CV).",
            "s: seconds per network and pass: of the rounds, and in all, with building, warming up and single calls.",
            "steady, bursty, throttled, contended: share of the timings with that verdict. Others' cores: kept busy by "
            "other processes, the load among them, median over the timings.",
            "cohort: all networks in the same rounds. alone: one after the other, each beside the reference.",
        ],
    )
    statistics = BenchTable(
        name="statistics",
        title="What each statistic makes of the cohorts' samples",
        rows=findings.compare_statistics(),
        columns=[
            word("machine", "state"),
            word("statistic", "statistic"),
            percent("CV to the round %", "cv_relative_median", 2),
            percent("max %", "cv_relative_max", 2),
            percent("CV to the reference %", "cv_anchored_median", 2),
            percent("max %", "cv_anchored_max", 2),
            number("tau", "tau_mean", 3),
            number("tau min", "tau_min", 3),
        ],
        notes=["Fast rounds (between the 3rd and the 15th percentile) are what `hilo_nas.measurement.rounds` takes."],
    )
    timings = BenchTable(name="passes", title="", rows=findings.list_timings(), columns=[], is_shown=False)
    return BenchReport(
        bench="ruler",
        title="What this machine can resolve",
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
    return BenchTable(name="networks", title="The networks", rows=rows, columns=columns)


def report_attention(plan: AttentionPlan, findings: AttentionFindings, command: str) -> BenchReport:
    """Returns the report of the attention layers at one batch size."""
    table = BenchTable(
        title=f"Attention layers at batch {findings.batch_size}",
        rows=findings.list_rows(),
        columns=[
            word("shape", "shape"),
            word("layer", "layer"),
            between("images/s", "images_per_s"),
            between("ratio to HiLo", "ratio", 3),
            number("published", "published_ratio", 3),
            number("MMACs", "mmacs"),
            number("params M", "params_m", 3),
            number("MiB", "memory_mib", 3),
            word("form", "form"),
            word("verdict", "verdict"),
        ],
        notes=[
            "A shape is SIDE/DIM/HEADS, an image is one map. The ratio is to HiLo with alpha 0.9 and windows of 2 "
            f"(LITv2's own), round by round at each shape; that layer is also the anchor. {INTERVALS}",
            "published: the same ratio from the images/s that LITv2's authors published (i9-10900X, torch 1.8.1, batch "
            "64), where this table has the same layer, shape and batch. Theirs are 30 calls without warm-up, and "
            "attention written out; here every layer uses torch's scaled_dot_product_attention.",
            "MMACs: millions of multiply-adds of products and convolutions, by formula; padding and masked scores "
            "count, softmax and norms do not. MiB: peak of the allocator over one call, weights included.",
            "Windows of 1 make HiLo plain attention: that is MSA. SRA's ratio 2 is the published benchmark's, the "
            "others are those of PVT's and HAT-Net's stages; Linformer's rank is a quarter of the tokens, at most 256.",
        ],
    )
    headlines = [headline.sentence() for headline in findings.list_headlines()]
    return BenchReport(
        bench="attention",
        title="HiLo beside other attention layers",
        command=command,
        settings=plan_settings(plan),
        measurements=findings.measurements,
        tables=[table],
        failures={name: str(error) for name, error in findings.failures.items()},
        advice=findings.advise(),
        headlines=headlines,
        is_part=plan.is_part,
    )


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


def plan_settings(plan: Any) -> dict[str, Any]:
    """Returns a plan's fields, as its options say them."""
    values = {field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)}
    return {name: [str(v) for v in value] if isinstance(value, tuple) else value for name, value in values.items()}
