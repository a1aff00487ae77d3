"""`hilo-nas bench backbones`: LITv2 compared with networks from timm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hilo_nas.cli.bench.options import Device, Folder, Precision, Shown, Threads
from hilo_nas.cli.options import Format
from hilo_nas.events import Emit

if TYPE_CHECKING:
    from hilo_nas.report import BenchReport  # importing pandas is slow

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = "Compare LITv2 with networks from timm, as built and in the form that is fastest on the device."
EXAMPLES = """Examples:
hilo-nas bench backbones --device cuda --precision fp16
hilo-nas bench backbones --device cpu --best"""


def run(
    device: Device = None,
    precision: Precision = "fp32",
    batch_size: Annotated[int | None, typer.Option(help="Images per call. Default: 8 on a CPU, else 64.")] = None,
    img_size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 224,
    network: Annotated[
        list[str] | None,
        typer.Option(help="Network to compare with LITv2-S. Repeatable. Default: all."),
    ] = None,
    compile_: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Try compiled forms too. Default: only on CUDA devices."),
    ] = None,
    best: Annotated[
        bool,
        typer.Option("--best", help="Try ONNX Runtime and OpenVINO too. Default: torch only."),
    ] = False,
    seconds: Annotated[float, typer.Option(help="Maximum seconds per form in the final timing.")] = 10.0,
    threads: Threads = None,
    shown: Shown = Format.table,
    folder: Folder = None,
) -> None:
    """Runs the backbone benchmark and prints its report."""
    from hilo_nas.bench.backbones.backbones_bench import BackbonesPlan, run_backbones
    from hilo_nas.bench.backbones.backbones_report import report_backbones
    from hilo_nas.cli.bench.running import run_bench, spell_command

    plan = BackbonesPlan(
        device=device,
        precision=precision,
        batch_size=batch_size,
        img_size=img_size,
        networks=tuple(network or ()),
        compile=compile_,
        best=best,
        seconds=seconds,
        threads=threads,
    )

    def bench(emit: Emit, logs: Path) -> list[BenchReport]:
        findings = run_backbones(plan, emit, logs=logs)
        options: dict[str, Any] = {"img-size": img_size, "network": network, "compile": compile_, "seconds": seconds}
        options |= {"best": best, "threads": threads, "precision": precision}
        command = spell_command("hilo-nas bench backbones", findings.measurements[0].condition, options)
        return [report_backbones(plan, findings, command)]

    run_bench(bench, shown, folder)
