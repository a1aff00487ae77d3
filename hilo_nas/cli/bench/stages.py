"""`hilo-nas bench stages`: where a network's time goes, compared with the best rates of the device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hilo_nas.cli.bench.running import Device, Folder, Precision, Shown, Threads, run_bench, spell_command
from hilo_nas.cli.options import Format
from hilo_nas.events import Emit

if TYPE_CHECKING:
    from hilo_nas.report import BenchReport  # pandas takes its time

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = "Where the time of a LITv2 goes, part by part, and how far each part is from what the device does at best."
EXAMPLES = "Example:\nhilo-nas bench stages --device cuda --precision fp16 --batch-size 64"


def run(
    network: Annotated[str, typer.Option(help="litv2_small, litv2_medium or litv2_base.")] = "litv2_small",
    device: Device = None,
    precision: Precision = "fp32",
    batch_size: Annotated[int, typer.Option(help="Images per call.")] = 8,
    img_size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 224,
    seconds: Annotated[float, typer.Option(help="Seconds that a part is timed for at most.")] = 3.0,
    threads: Threads = None,
    shown: Shown = Format.table,
    folder: Folder = None,
) -> None:
    """Times the parts; the options are those of the command line."""
    from hilo_nas.bench.stages.stages_bench import StagesPlan, run_stages
    from hilo_nas.bench.stages.stages_report import report_stages

    plan = StagesPlan(
        network=network,
        device=device,
        batch_size=batch_size,
        img_size=img_size,
        precision=precision,
        seconds=seconds,
        threads=threads,
    )

    def bench(emit: Emit, logs: Path) -> list[BenchReport]:
        findings = run_stages(plan, emit, logs=logs)
        condition = next(iter(findings.measurements.values())).condition
        options = {"network": network, "img-size": img_size, "seconds": seconds, "threads": threads}
        return [report_stages(findings, spell_command("hilo-nas bench stages", condition, options))]

    run_bench(bench, shown, folder)
