"""`python -m benchmarks.releases`: a few speeds of this release, compared with earlier ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.command import RESULTS, run_benchmark
from hilo_nas.cli.bench.running import Device, Shown, Threads, run_bench, spell_command
from hilo_nas.cli.options import Format
from hilo_nas.events import Emit

if TYPE_CHECKING:
    from benchmarks.releases.release_speeds import ReleasesFindings, ReleasesPlan  # pandas takes its time
    from hilo_nas.evaluation import Evaluator
    from hilo_nas.report import BenchReport

__all__ = ["main", "update_releases"]

HELP = "Speeds of this release beside ResNet-18's and earlier releases'; kept in one file, releases.csv."
EXAMPLES = "Example:\npython -m benchmarks.releases --device cpu --check"


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
    ] = RESULTS,
) -> None:
    """Times the networks and updates the file; the options are those of the command line."""
    from benchmarks.releases.release_speeds import ReleasesPlan

    plan = ReleasesPlan(device=device, seconds=seconds, threads=threads)
    update_releases(plan, check=check, shown=shown, folder=folder)


def update_releases(
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
    from benchmarks.releases.history import FILE_NAME, read_history, write_history
    from benchmarks.releases.release_speeds import report_releases, run_releases

    path = folder / FILE_NAME
    history = read_history(path)
    found: list[ReleasesFindings] = []

    def bench(emit: Emit, logs: Path) -> list[BenchReport]:
        findings = run_releases(plan, emit, history=history, logs=logs, evaluator=evaluator)
        found.append(findings)
        options = {"precision": None, "batch-size": None, "seconds": plan.seconds, "threads": plan.threads}
        options |= {"check": check}
        command = spell_command("python -m benchmarks.releases", findings.measurements[0].condition, options)
        return [report_releases(plan, findings, command)]

    def write(report: BenchReport, folder: Path) -> list[Path]:
        write_history(path, found[0].speeds)
        return [path]

    run_bench(bench, shown, folder, write=write)
    if check and (found[0].list_fallen() or found[0].failures):
        raise typer.Exit(1)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return run_benchmark("releases", run, HELP, EXAMPLES, arguments)


if __name__ == "__main__":
    sys.exit(main())
