"""`hilo-nas bench stages`: time per part of a network, compared with the device's rates."""

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

HELP = "Time each part of a LITv2 network, and compare it with the lower bound that the device's rates give."
EXAMPLES = "Example:\nhilo-nas bench stages --device cuda --precision fp16 --batch-size 64"


def run(
    network: Annotated[
        str, typer.Option(help="litv2_small, litv2_medium, litv2_base, STUDY:TRIAL or a .yaml file.")
    ] = "litv2_small",
    device: Device = None,
    precision: Precision = "fp32",
    batch_size: Annotated[int, typer.Option(help="Images per call.")] = 8,
    img_size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 224,
    seconds: Annotated[float, typer.Option(help="Maximum seconds per part.")] = 3.0,
    threads: Threads = None,
    shown: Shown = Format.table,
    folder: Folder = None,
) -> None:
    """Runs the stages benchmark and prints its report."""
    from hilo_nas.bench.stages.stages_bench import StagesPlan, run_stages
    from hilo_nas.bench.stages.stages_report import report_stages
    from hilo_nas.cli.bench.running import run_bench, spell_command

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
