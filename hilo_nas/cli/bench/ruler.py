"""`hilo-nas bench ruler`: what this machine can resolve."""

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

HELP = "What this machine can resolve: networks timed again and again, quiet and under a load started here."
EXAMPLES = "Example:\nhilo-nas bench ruler --device cpu --alone"


def run(
    space: Annotated[str, typer.Option(help="Space that the networks are drawn from.")] = "litv2_cifar",
    device: Device = None,
    networks: Annotated[int, typer.Option(help="Networks to draw.")] = 15,
    passes: Annotated[int, typer.Option(help="Passes over them, on the quiet machine and under the load each.")] = 6,
    seconds: Annotated[float, typer.Option(help="Seconds that a network is timed for in a pass at most.")] = 3.0,
    alone: Annotated[bool, typer.Option("--alone", help="Also time one after the other, as a search does.")] = False,
    batch_size: Annotated[int | None, typer.Option(help="Images per call; the space's if left out.")] = None,
    img_size: Annotated[int | None, typer.Option(help="Side of the images in pixels; the space's if left out.")] = None,
    precision: Precision = "fp32",
    threads: Threads = None,
    shown: Shown = Format.table,
    folder: Folder = None,
) -> None:
    """Runs the bench; the options are those of the command line."""
    from hilo_nas.bench.ruler.ruler_bench import RulerPlan, run_ruler
    from hilo_nas.bench.ruler.ruler_report import report_ruler
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
