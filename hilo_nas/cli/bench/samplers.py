"""`hilo-nas bench samplers`: searches replayed on a table, to see which sampler finds most, and whether rungs pay."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hilo_nas.cli.bench.running import SAVE, NoSave, Output, Save, run_bench
from hilo_nas.cli.options import Format, StudiesDir
from hilo_nas.events import Emit

if TYPE_CHECKING:
    from hilo_nas.bench.samplers import Replay
    from hilo_nas.report import BenchReport  # pandas takes its time

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Replay searches on a table (see `bench table`): which sampler finds most, and whether rungs pay.

Nothing is timed or trained: each search runs as `hilo-nas search` would, and every figure comes from the table."""
EXAMPLES = "Example: hilo-nas bench samplers studies/cifar10-tabular --samplers random,gp --seeds 10"
_SAMPLERS = "random,nsga2,tpe,gp"


def run(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A table's study or folder, or its CSV file.")],
    seeds: Annotated[int, typer.Option(help="Replays of each search.")] = 10,
    samplers: Annotated[str, typer.Option(help="Samplers, with commas between.")] = _SAMPLERS,
    trials_share: Annotated[
        float,
        typer.Option(help="Share of the table that a search without rungs trains; also told at a half and a quarter."),
    ] = 0.12,
    eta: Annotated[float, typer.Option(help="One of how many networks goes on at each rung.")] = 2.0,
    jobs: Annotated[int | None, typer.Option(help="Replays at once; as many as there are cores if left out.")] = None,
    studies_dir: StudiesDir = None,
    output: Output = Format.table,
    save: Save = SAVE,
    no_save: NoSave = False,
) -> None:
    """Replays the searches; the options are those of the command line."""
    from hilo_nas.bench.samplers import SamplersPlan, bench_samplers
    from hilo_nas.bench.samplers_report import report_samplers
    from hilo_nas.bench.table import find_table, load_table
    from hilo_nas.report import write_report

    plan = SamplersPlan(
        samplers=tuple(name.strip() for name in samplers.split(",") if name.strip()),
        seeds=seeds,
        trials_share=trials_share,
        eta=eta,
        jobs=(os.cpu_count() or 1) if jobs is None else jobs,
    )
    loaded = load_table(find_table(table, studies_dir))
    words = ["hilo-nas", "bench", "samplers", table, "--seeds", str(seeds), "--samplers", ",".join(plan.samplers)]
    words += ["--trials-share", f"{trials_share:g}", "--eta", f"{eta:g}"]

    def report(replays: Sequence[Replay]) -> BenchReport:
        return report_samplers(loaded, plan, replays, shlex.join(words))

    def keep(replays: Sequence[Replay]) -> None:
        """What is there is on disk, whatever comes of the rest."""
        if not no_save:
            write_report(report(replays), save)

    def bench(emit: Emit, log: Path, idle_timeout_s: float) -> list[BenchReport]:
        return [report(bench_samplers(loaded, plan, emit, keep=keep))]

    run_bench(bench, output, None if no_save else save, "10m")
