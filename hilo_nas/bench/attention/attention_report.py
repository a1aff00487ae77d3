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
