"""`python -m benchmarks.official`: LITv2 compared with the official code, from the user's checkout."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.command import run_benchmark
from hilo_nas.cli.bench.options import Device, Folder, Shown, Threads
from hilo_nas.cli.bench.running import run_bench, spell_command
from hilo_nas.cli.options import Format
from hilo_nas.events import Emit

if TYPE_CHECKING:
    from hilo_nas.report import BenchReport  # importing pandas is slow

__all__ = ["main"]

HELP = "Compare LITv2 with the official code, with the same weights: outputs, images/s, training steps."
EXAMPLES = "Example:\npython -m benchmarks.official --checkout LITv2 --batch-size 1 --batch-size 8"


def run(
    checkout: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of a checkout of https://github.com/ziplab/LITv2.")
    ],
    device: Device = None,
    network: Annotated[
        list[str] | None,
        typer.Option(help="litv2_small, litv2_medium or litv2_base. Repeatable. Default: all."),
    ] = None,
    batch_size: Annotated[
        list[int] | None, typer.Option(help="Images per call. Repeatable. Default: 1, 8, 32 and 64.")
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            help="Precision of our weights: fp32, bf16, fp16, amp-bf16 or amp-fp16. Repeatable. Default: fp32."
        ),
    ] = None,
    training: Annotated[bool, typer.Option("--training/--no-training", help="Also time training steps.")] = True,
    compile_: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Also time compiled forms. Default: only on CUDA devices."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Maximum seconds per form. At least 12 rounds are timed.")] = 5.0,
    threads: Threads = None,
    shown: Shown = Format.table,
    folder: Folder = None,
) -> None:
    """Runs the comparison and prints its report."""
    from benchmarks.official.comparison import BATCH_SIZES, NETWORKS, OfficialPlan, run_official
    from benchmarks.official.official_report import report_official

    plan = OfficialPlan(
        checkout=checkout,
        device=device,
        networks=tuple(network or NETWORKS),
        batch_sizes=tuple(batch_size or BATCH_SIZES),
        precisions=tuple(precision or ("fp32",)),
        training=training,
        compile=compile_,
        seconds=seconds,
        threads=threads,
    )

    def bench(emit: Emit, logs: Path) -> list[BenchReport]:
        findings = run_official(plan, emit, logs=logs)
        condition = findings.measurements[0].condition
        options = {"precision": list(plan.precisions), "batch-size": list(plan.batch_sizes), "network": network}
        options |= {"checkout": checkout, "training": training, "compile": compile_}
        options |= {"seconds": seconds, "threads": threads}
        return [report_official(plan, findings, spell_command("python -m benchmarks.official", condition, options))]

    run_bench(bench, shown, folder)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return run_benchmark("official", run, HELP, EXAMPLES, arguments)


if __name__ == "__main__":
    sys.exit(main())
