"""`hilo-nas bench samplers`: searches replayed on a table, to see which sampler finds most, and whether rungs pay."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hilo_nas.cli.bench.running import Folder, Shown, run_bench
from hilo_nas.cli.options import Format
from hilo_nas.events import Emit
from hilo_nas.text.commands import command

if TYPE_CHECKING:
    from hilo_nas.bench.samplers import Replay
    from hilo_nas.report import BenchReport  # pandas takes its time

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Replay searches on a table (see `bench table`): which sampler finds most, and whether rungs pay.

Nothing is timed or trained: each search runs as `hilo-nas search` would, and every figure comes from the table."""
EXAMPLES = "Example:\nhilo-nas bench samplers my-table --sampler random --sampler gp --seeds 10"


def run(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A table's study or folder, or its CSV file.")],
    seeds: Annotated[int, typer.Option(help="Replays of each search.")] = 10,
    sampler: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="gp, tpe, nsga2 or random; repeat it for several. All if left out."),
    ] = None,
    trials_share: Annotated[
        float,
        typer.Option(help="Share of the table that a search without rungs trains; also told at a half and a quarter."),
    ] = 0.12,
    reduction_factor: Annotated[
        float, typer.Option(help="Reduction factor of the rungs: one of so many networks continues.")
    ] = 2.0,
    jobs: Annotated[int | None, typer.Option(help="Replays at once; as many as there are cores if left out.")] = None,
    shown: Shown = Format.table,
    folder: Folder = None,
) -> None:
    """Replays the searches; the options are those of the command line."""
    from hilo_nas.bench.samplers import SamplersPlan, bench_samplers
    from hilo_nas.bench.samplers_report import report_samplers
    from hilo_nas.bench.table import find_table, load_table
    from hilo_nas.report import write_report

    plan = SamplersPlan(
        samplers=tuple(sampler or SamplersPlan.samplers),
        seeds=seeds,
        trials_share=trials_share,
        reduction_factor=reduction_factor,
        jobs=(os.cpu_count() or 1) if jobs is None else jobs,
    )
    loaded = load_table(find_table(table))
    words = [table, "--seeds", str(seeds), *(word for name in plan.samplers for word in ("--sampler", name))]
    words += ["--trials-share", f"{trials_share:g}", "--reduction-factor", f"{reduction_factor:g}"]

    def report(replays: Sequence[Replay]) -> BenchReport:
        return report_samplers(loaded, plan, replays, command("bench", "samplers", *words))

    def keep(replays: Sequence[Replay]) -> None:
        """Writes the replays so far, in case a later one fails."""
        if folder is not None:
            write_report(report(replays), folder)

    def bench(emit: Emit, logs: Path) -> list[BenchReport]:
        return [report(bench_samplers(loaded, plan, emit, keep=keep))]

    run_bench(bench, shown, folder)
