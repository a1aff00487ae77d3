"""`python -m benchmarks.releases`: speeds of this release, compared with earlier releases."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.command import RESULTS, run_benchmark
from hilo_nas.cli.bench.options import Device, Shown, Threads
from hilo_nas.cli.bench.running import run_bench, spell_command
from hilo_nas.cli.options import Format
from hilo_nas.events import Emit

if TYPE_CHECKING:
    from benchmarks.releases.release_speeds import ReleasesFindings, ReleasesPlan  # importing pandas is slow
    from hilo_nas.evaluation import Evaluator
    from hilo_nas.report import BenchReport

__all__ = ["main", "update_releases"]

HELP = "Compare speeds of this release, relative to ResNet-18, with earlier releases. All are stored in releases.csv."
EXAMPLES = "Example:\npython -m benchmarks.releases --device cpu --check"


def run(
    device: Device = None,
    seconds: Annotated[float, typer.Option(help="Maximum seconds per form. At least 12 rounds are timed.")] = 5.0,
    threads: Threads = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with code 1 if a network became slower or could not be timed.")
    ] = False,
    shown: Shown = Format.table,
    folder: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of releases.csv, which is updated.")
    ] = RESULTS,
) -> None:
    """Times the networks, updates the file and prints the report."""
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
    """Times the networks of a plan, updates the file and prints the report.

    Args:
        plan: Settings of the benchmark.
        check: True to exit with code 1 if a network became slower or could not be timed.
        shown: Output format.
        folder: Folder of `releases.csv`.
        evaluator: Evaluator that times. Defaults to local workers.

    Raises:
        typer.Exit: `check` is True and a network became slower or could not be timed.
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
    if check and (found[0].list_regressions() or found[0].failures):
        raise typer.Exit(1)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return run_benchmark("releases", run, HELP, EXAMPLES, arguments)


if __name__ == "__main__":
    sys.exit(main())
