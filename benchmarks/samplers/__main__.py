"""`python -m benchmarks.samplers`: searches replayed on a benchmark table."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.command import command_of, run_benchmark
from hilo_nas.cli.bench.options import Folder, Shown
from hilo_nas.cli.bench.running import run_bench
from hilo_nas.cli.options import Format
from hilo_nas.events import Emit

if TYPE_CHECKING:
    from benchmarks.samplers.replay import Replay
    from hilo_nas.report import BenchReport  # importing pandas is slow

__all__ = ["main"]

HELP = """Replay searches on a table of `benchmarks.tables` to compare samplers, with and without rungs.

Each search runs as with `hilo-nas search`, but all timings and scores come from the table."""
EXAMPLES = "Example:\npython -m benchmarks.samplers my-table --sampler random --sampler gp --seeds 10"


def run(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="Study, folder or CSV file of a table.")],
    seeds: Annotated[int, typer.Option(help="Number of replays of each search.")] = 10,
    first_seed: Annotated[int, typer.Option(help="Seed of the first replay.")] = 0,
    sampler: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="hilo, gp, tpe, nsga2 or random. Repeatable. Default: all."),
    ] = None,
    trials_share: Annotated[
        float,
        typer.Option(help="Share of the table that a search without rungs trains. Results are also given at 1/2, 1/4."),
    ] = 0.12,
    reduction_factor: Annotated[
        float, typer.Option(help="Reduction factor of the rungs: 1 of N networks continues.")
    ] = 2.0,
    speeds: Annotated[bool, typer.Option("--speeds", help="All speeds are known before the search.")] = False,
    jobs: Annotated[int | None, typer.Option(help="Number of parallel replays. Default: number of cores.")] = None,
    shown: Shown = Format.table,
    folder: Folder = None,
) -> None:
    """Replays the searches and prints the report."""
    from benchmarks.samplers.replay import SamplersPlan, run_samplers
    from benchmarks.samplers.samplers_report import report_samplers
    from benchmarks.tables.table import find_table, load_table
    from hilo_nas.report import write_report

    plan = SamplersPlan(
        samplers=tuple(sampler or SamplersPlan.samplers),
        seeds=seeds,
        first_seed=first_seed,
        trials_share=trials_share,
        reduction_factor=reduction_factor,
        speeds=speeds,
        jobs=(os.cpu_count() or 1) if jobs is None else jobs,
    )
    loaded = load_table(find_table(table))
    words = [
        table,
        "--seeds",
        str(seeds),
        "--first-seed",
        str(first_seed),
        *(word for name in plan.samplers for word in ("--sampler", name)),
    ]
    words += ["--trials-share", f"{trials_share:g}", "--reduction-factor", f"{reduction_factor:g}"]
    words += ["--speeds"] * speeds

    def report(replays: Sequence[Replay]) -> BenchReport:
        return report_samplers(loaded, plan, replays, command_of("samplers", *words))

    def keep(replays: Sequence[Replay]) -> None:
        """Writes the report of the replays so far, in case a later one fails."""
        if folder is not None:
            write_report(report(replays), folder)

    def bench(emit: Emit, logs: Path) -> list[BenchReport]:
        return [report(run_samplers(loaded, plan, emit, keep=keep))]

    run_bench(bench, shown, folder)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return run_benchmark("samplers", run, HELP, EXAMPLES, arguments)


if __name__ == "__main__":
    sys.exit(main())
