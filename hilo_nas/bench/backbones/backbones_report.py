"""Report of `hilo-nas bench backbones`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hilo_nas.bench.backbones.backbones_bench import BackbonesPlan
from hilo_nas.bench.backbones.forms import BackbonesFindings
from hilo_nas.bench.report_notes import INTERVALS, plan_settings
from hilo_nas.evaluation import Runtimes
from hilo_nas.report import BenchReport, BenchTable
from hilo_nas.report.benches import between, number, word

__all__ = ["report_backbones"]


def report_backbones(plan: BackbonesPlan, findings: BackbonesFindings, command: str) -> BenchReport:
    """Returns the report of the backbone benchmark: a table of networks and a table of the forms tried."""
    group_note = findings.check_groups()
    runtimes = _describe_runtimes(findings.runtimes) if plan.best else []
    table = BenchTable(
        title="LITv2 and other backbones",
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
            "plain: eager, NCHW, as built. best: the fastest form in the second table, or the simplest form that is "
            f"not measurably slower. Ratios compare best with best and plain with plain. {INTERVALS}",
            *runtimes,
            "Networks of one cohort shared their rounds, and LITv2-S ran in every cohort. Each ratio to LITv2-S, and "
            "each ratio between two forms of a network, is therefore measured round by round. Compare networks of "
            "different cohorts by their ratios to LITv2-S." + (f" {group_note}." if group_note else ""),
            "GMACs: multiply-adds of linear layers, convolutions and attention products for one image. LITv2's are "
            "computed by formula, the others are counted by torch's FlopCounterMode. MiB: peak of the allocator during "
            "one call, weights included.",
            "top-1: published ImageNet-1K accuracy of the weights that the CSV file names (LITv2: the paper; others: "
            "timm's results table). The image size is given if it is not 224 px. Nothing was trained here.",
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
            "Each network was timed briefly. Forms of one network shared their rounds, different networks did not. If "
            "the implementation ends in `fused`, there was nothing to fold and the network equals the unfused one.",
        ],
    )
    return BenchReport(
        bench="backbones-best" if plan.best else "backbones",
        title="LITv2 compared with other backbones",
        command=command,
        settings=plan_settings(plan),
        measurements=findings.measurements,
        tables=[table, forms],
        failures=findings.list_failures(),
        advice=findings.advise(),
        headlines=findings.list_headlines(),
        is_part=bool(plan.networks),
        condition=f"int8-b{findings.measurements[0].condition.batch_size}" if plan.precision == "int8" else "",
    )


def _describe_runtimes(runtimes: Runtimes) -> list[str]:
    """Returns notes about the runtimes that were tried and skipped."""
    tried = f"torch, {' and '.join(map(_label, runtimes.found))}" if runtimes.found else "torch alone"
    notes = [
        f"Runtimes tried: {tried}. The best columns compare each network in its own fastest form, so two networks of "
        "one ratio can run in different runtimes. Only torch reports its memory (MiB)."
    ]
    return notes + [f"Runtime skipped: {_label(name)}, because {why}" for name, why in runtimes.skipped.items()]


def _label(runtime: str) -> str:
    return {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}.get(runtime, runtime)


def _top1(row: Mapping[str, Any]) -> str:
    size = row["published_top1_img_size"]
    return f"{100 * row['published_top1']:.1f}" + (f" ({size} px)" if size != 224 else "")
