"""`python -m benchmarks.soak`: a search that is disturbed at random, and the proof that it lost nothing."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.command import run_benchmark
from hilo_nas.cli.console import echo
from hilo_nas.errors import UsageError

__all__ = ["main"]

HELP = """Disturb a search at random times, and check that it loses nothing and that its records explain its decisions.

The disturbances: kill -9 of the search or of a worker, Ctrl-C, a hung worker, a second search, files that cannot grow
beyond 4 KiB, damaged files followed by `hilo-nas repair`, a damaged image cache. At the end, the same search runs
without disturbances and must give the same networks and scores. The exit code is 1 if an invariant is broken. Linux
only.

With --cluster, the search uses a Ray cluster of two nodes on this machine. The disturbances: kill -9 of the search, of
a worker, of a place or of a node, Ctrl-C, a second search."""
EXAMPLES = """Examples:
python -m benchmarks.soak FOLDER --disturbances 60
python -m benchmarks.soak FOLDER --only 'second search' --disturbances 20
python -m benchmarks.soak FOLDER --hours 8 --seed 3
python -m benchmarks.soak FOLDER --cluster --disturbances 10"""


def run(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="New folder for all files, and for soak.json.")],
    disturbances: Annotated[int, typer.Option(min=1, help="Number of disturbances.")] = 60,
    hours: Annotated[
        float | None, typer.Option(help="Hours after which no disturbance follows.", show_default=False)
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Kind of disturbance, as in the report. Repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the times and kinds of the disturbances.")] = 0,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Search on a Ray cluster, and kill its places and nodes.")
    ] = False,
) -> None:
    """Runs the test and prints its report."""
    from benchmarks.soak.ray_nodes import RayNodes
    from benchmarks.soak.soak_run import IDLE_TIMEOUT_S, SEARCH, Soak, all_disturbances, cluster_disturbances

    nodes = RayNodes(folder.absolute()) if cluster else None
    kinds = all_disturbances() if nodes is None else cluster_disturbances(nodes)
    names = [kind.name for kind in kinds]
    if unknown := [name for name in only or () if name not in names]:
        raise UsageError(f"only must be one of {', '.join(names)}, but got {unknown[0]!r}")
    if folder.exists():
        raise UsageError(f"{folder} exists already. Name a new folder.")
    chosen = [kind for kind in kinds if not only or kind.name in only]
    arguments: tuple[str, ...] = (*SEARCH, "--set", f"study.idle_timeout_s={IDLE_TIMEOUT_S:g}")
    with contextlib.nullcontext() if nodes is None else nodes:
        if nodes is not None:
            arguments += nodes.arguments
        with Soak(folder.absolute(), seed, arguments=arguments, report=echo, nodes=nodes) as soak:
            end = None if hours is None else time.monotonic() + hours * 3600
            done = 0
            try:
                while (end is None and done < disturbances) or (end is not None and time.monotonic() < end):
                    done += 1
                    echo(f"{done}: {soak.disturb(chosen)}")
                soak.finish()
            except BaseException as error:
                soak.fault(f"the test ended early: {type(error).__name__} {error}")
                raise
            finally:
                report = soak.report()
                text = json.dumps(report, indent=1)
                (folder / "soak.json").write_text(text + "\n")
                echo(text)
    if report["faults"]:
        raise typer.Exit(1)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return run_benchmark("soak", run, HELP, EXAMPLES, arguments)


if __name__ == "__main__":
    sys.exit(main())
