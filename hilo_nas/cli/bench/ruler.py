"""`hilo-nas bench ruler`: timing resolution of this machine."""

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

HELP = "Measure this machine's timing resolution: time networks repeatedly, quiet and under an artificial load."
EXAMPLES = "Example:\nhilo-nas bench ruler --device cpu --alone"


def run(
    space: Annotated[str, typer.Option(help="Search space that networks are drawn from.")] = "litv2_cifar",
    device: Device = None,
    networks: Annotated[int, typer.Option(help="Number of networks to draw.")] = 15,
    passes: Annotated[int, typer.Option(help="Number of passes, both quiet and under the load.")] = 6,
    seconds: Annotated[float, typer.Option(help="Maximum seconds per network and pass.")] = 3.0,
    alone: Annotated[
        bool, typer.Option("--alone", help="Also time networks one after the other, as a search does.")
    ] = False,
    batch_size: Annotated[int | None, typer.Option(help="Images per call. Default: from the space.")] = None,
    img_size: Annotated[int | None, typer.Option(help="Side of the images in pixels. Default: from the space.")] = None,
    precision: Precision = "fp32",
    threads: Threads = None,
    shown: Shown = Format.table,
    folder: Folder = None,
) -> None:
    """Runs the ruler benchmark and prints its report."""
    from hilo_nas.bench.ruler.ruler_bench import RulerPlan, run_ruler
    from hilo_nas.bench.ruler.ruler_report import report_ruler
    from hilo_nas.cli.bench.running import run_bench, spell_command
    from hilo_nas.space import load_space

    found = load_space(space)
    plan = RulerPlan(
        space=found,
        device=device,
        networks=networks,
        passes=passes,
        seconds=seconds,
        batch_size=found.defaults.get("batch_size", 64) if batch_size is None else batch_size,
        img_size=found.defaults.get("img_size", 224) if img_size is None else img_size,
        precision=precision,
        threads=threads,
        alone=alone,
    )

    def bench(emit: Emit, logs: Path) -> list[BenchReport]:
        findings = run_ruler(plan, emit, logs=logs)
        options = {"space": space, "networks": networks, "passes": passes, "seconds": seconds}
        options |= {"alone": alone, "img-size": plan.img_size, "threads": threads}
        first = findings.passes[0].measurements
        command = spell_command("hilo-nas bench ruler", next(iter(first.values())).condition, options)
        return [report_ruler(plan, findings, command)]

    run_bench(bench, shown, folder)
