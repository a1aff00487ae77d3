"""`hilo-nas bench releases`: a few speeds of this release, compared with earlier ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hilo_nas.cli.bench.running import Device, Shown, Threads, run_bench, spell_command
from hilo_nas.cli.options import Format
from hilo_nas.events import Emit

if TYPE_CHECKING:
    from hilo_nas.bench.releases import ReleasesFindings, ReleasesPlan  # pandas takes its time
    from hilo_nas.evaluation import Evaluator
    from hilo_nas.report import BenchReport

__all__ = ["EXAMPLES", "HELP", "run", "run_releases"]

HELP = "Speeds of this release beside ResNet-18's and earlier releases'; kept in one file, releases.csv."
EXAMPLES = "Example:\nhilo-nas bench releases --device cpu --check"


def run(
    device: Device = None,
    seconds: Annotated[float, typer.Option(help="Seconds that a form is timed for at most; at least 12 rounds.")] = 5.0,
    threads: Threads = None,
    check: Annotated[
        bool, typer.Option("--check", help="End with exit code 1 where a speed fell, or could not be timed.")
    ] = False,
    shown: Shown = Format.table,
    folder: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of releases.csv, which is read and updated.")
    ] = Path("benchmarks"),
) -> None:
    """Times the networks and updates the file; the options are those of the command line."""
    from hilo_nas.bench.releases import ReleasesPlan

    plan = ReleasesPlan(device=device, seconds=seconds, threads=threads)
    run_releases(plan, check=check, shown=shown, folder=folder)


def run_releases(
    plan: ReleasesPlan,
    *,
    check: bool,
    shown: Format,
    folder: Path,
    evaluator: Evaluator | None = None,
) -> None:
    """Times the networks of a plan and updates the file; an evaluator that is passed in does the timing.

    Raises:
        typer.Exit: With `check`, where a speed fell or could not be timed.
    """
    from hilo_nas.bench.history import FILE_NAME, read_history, write_history
    from hilo_nas.bench.releases import bench_releases, report_releases

    path = folder / FILE_NAME
    history = read_history(path)
    found: list[ReleasesFindings] = []

    def bench(emit: Emit, logs: Path) -> list[BenchReport]:
        findings = bench_releases(plan, emit, history=history, logs=logs, evaluator=evaluator)
        found.append(findings)
        options = {"precision": None, "batch-size": None, "seconds": plan.seconds, "threads": plan.threads}
        options |= {"check": check}
        command = spell_command("releases", findings.measurements[0].condition, options)
        return [report_releases(plan, findings, command)]

    def write(report: BenchReport, folder: Path) -> list[Path]:
        write_history(path, found[0].speeds)
        return [path]

    run_bench(bench, shown, folder, write=write)
    if check and (found[0].list_fallen() or found[0].failures):
        raise typer.Exit(1)
