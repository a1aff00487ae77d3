"""`python -m benchmarks.tables`: time and train all networks of a small space."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated

import typer

from benchmarks.command import run_benchmark
from hilo_nas.cli.console import build_console
from hilo_nas.cli.settings import takes_settings
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.study.states import TrialState

__all__ = ["main"]

HELP = """Time every network of a small space and train it to each rung. `benchmarks.samplers` replays searches on it.

With --networks, a random sample of a space of any size is timed and trained, which shows how well its networks train.
The table is stored as a study, and the same command resumes it. The setting study.reuse names a study or a table's file
whose matching trainings are copied. Networks are always timed here. With --seeds 2, a second training of each network
judges the networks that a replayed search finds from the first ones."""
EXAMPLES = """Examples:
python -m benchmarks.tables litv2_tabular --data cifar10.tar --study my-table
python -m benchmarks.tables litv2_tabular --study here --set study.reuse=my-table"""


@takes_settings("study.name", "data.source", "timing.device", "proxy.images", "proxy.img_size")
def run(
    config: SearchConfig,
    space: Annotated[
        str | None, typer.Argument(metavar="SPACE", help="Name of a shipped space, or a YAML file.")
    ] = None,
    networks: Annotated[
        int | None, typer.Option(help="Number of random networks of the space. Default: all.", show_default=False)
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of training seeds.")] = 1,
) -> None:
    """Makes the table and prints a summary."""
    from benchmarks.tables.table import TABLE_NAME, collect_table
    from benchmarks.tables.table_making import make_table
    from hilo_nas.cli.display import build_display
    from hilo_nas.searching.sweeps.listing import read_sweep
    from hilo_nas.study.stored_study import StoredStudy

    console = build_console()
    with build_display(console) as display:
        config = config if space is None else dataclasses.replace(config, space=space)
        read, found, folder = read_sweep(config, display)
        records = make_table(read, found, folder, display, count=networks, seeds=seeds)
    table, keys = collect_table(StoredStudy(folder.path)), {record.key for record in records}
    for images in table.budgets:
        values = [row.scores[images].top1 for row in table.rows if row.key in keys and images in row.scores]
        if values:
            reached = (
                f"{len(values)} networks, {table.manifest.plan.metric} from {min(values):.3g} to {max(values):.3g}"
            )
            console.print(f"after {images:,} images: {reached}")
    complete = sum(record.state == TrialState.COMPLETE for record in records)
    console.print(f"{complete} of {len(records)} networks timed and trained: {folder.path / TABLE_NAME}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return run_benchmark("tables", run, HELP, EXAMPLES, arguments)


if __name__ == "__main__":
    sys.exit(main())
