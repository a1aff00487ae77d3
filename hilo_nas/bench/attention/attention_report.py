"""Report of `hilo-nas bench attention`."""

from __future__ import annotations

from hilo_nas.bench.attention.attention_bench import AttentionFindings, AttentionPlan
from hilo_nas.bench.report_notes import INTERVALS, plan_settings
from hilo_nas.report import BenchReport, BenchTable
from hilo_nas.report.benches import between, number, word

__all__ = ["report_attention"]


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
            "A shape is SIDE/DIM/HEADS. An image is one feature map. The ratio to HiLo with LITv2's settings (alpha "
            f"0.9, windows of 2) is measured round by round at each shape. That layer is the reference. {INTERVALS}",
            "published: the same ratio from the images/s that LITv2's authors published (i9-10900X, torch 1.8.1, batch "
            "64), if this table has the same layer, shape and batch size. The authors timed 30 calls without warm-up "
            "and with explicit attention. Here, every layer uses torch's scaled_dot_product_attention.",
            "MMACs: millions of multiply-adds of linear layers, convolutions and attention products, by formula. "
            "Padding and masked scores count, softmax and norms do not. MiB: peak of the allocator during one call, "
            "weights included.",
            "With windows of 1, HiLo equals standard attention, which is the row MSA. SRA's ratio 2 comes from the "
            "published benchmark, the other ratios from the stages of PVT and HAT-Net. Linformer's rank is a quarter "
            "of the tokens, at most 256.",
        ],
    )
    headlines = [headline.sentence() for headline in findings.list_headlines()]
    return BenchReport(
        bench="attention",
        title="HiLo compared with other attention layers",
        command=command,
        settings=plan_settings(plan),
        measurements=findings.measurements,
        tables=[table],
        failures={name: str(error) for name, error in findings.failures.items()},
        advice=findings.advise(),
        headlines=headlines,
        is_part=plan.is_part,
    )
