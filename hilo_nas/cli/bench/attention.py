"""`hilo-nas bench attention`: HiLo compared with other attention layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hilo_nas.cli.bench.options import Device, Folder, Precision, Shown, Threads
from hilo_nas.cli.options import Format
from hilo_nas.events import Emit

if TYPE_CHECKING:
    from hilo_nas.report import BenchReport  # importing pandas is slow

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = "Compare HiLo with standard, reduced, windowed and linear attention layers, as in the LITv2 paper."
EXAMPLES = "Example:\nhilo-nas bench attention --device cpu --batch-size 64 --quick"


def run(
    device: Device = None,
    precision: Precision = "fp32",
    batch_size: Annotated[
        list[int] | None, typer.Option(help="Feature maps per call. Repeatable. Default: 1 and 64.")
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SIDE/DIM/HEADS", help="Shape of a stage, such as 14/768/12. Repeatable. Default: four shapes."
        ),
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="Layer to compare with HiLo. Repeatable. Default: all.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only the first shape, and only HiLo with alpha 0.9 and windows of 2.")
    ] = False,
    seconds: Annotated[
        float, typer.Option(help="Maximum seconds per layer and shape. At least 12 rounds are timed.")
    ] = 2.0,
    threads: Threads = None,
    shown: Shown = Format.table,
    folder: Folder = None,
) -> None:
    """Runs the attention benchmark and prints its report."""
    from hilo_nas.bench.attention.attention_bench import AttentionPlan, run_attention
    from hilo_nas.bench.attention.attention_report import report_attention
    from hilo_nas.bench.attention.layers import KINDS, SHAPES, parse_shape
    from hilo_nas.cli.bench.running import run_bench, spell_command

    shapes = tuple(parse_shape(text) for text in shape) if shape else SHAPES[:1] if quick else SHAPES
    plan = AttentionPlan(
        device=device,
        precision=precision,
        batch_sizes=tuple(batch_size or (1, 64)),
        shapes=shapes,
        kinds=tuple(layer or KINDS),
        is_quick=quick,
        seconds=seconds,
        threads=threads,
    )

    def bench(emit: Emit, logs: Path) -> list[BenchReport]:
        reports = []
        for findings in run_attention(plan, emit, logs=logs):
            options = {"shape": shape, "layer": layer, "quick": quick, "seconds": seconds, "threads": threads}
            command = spell_command("hilo-nas bench attention", findings.measurements[0].condition, options)
            reports.append(report_attention(plan, findings, command))
        return reports

    run_bench(bench, shown, folder)
