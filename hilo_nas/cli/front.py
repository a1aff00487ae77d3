"""`hilo-nas front`: the measured Pareto front of a study."""

from __future__ import annotations

from typing import Annotated

import typer

from hilo_nas.cli.console import build_console
from hilo_nas.cli.options import Format, OptionalStudy, Output
from hilo_nas.errors import UsageError

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Show the front of a study: speeds and scores with their intervals. Without STUDY, list all studies.

STUDY@CONDITION is the front under a further condition of the study, such as another
target: my-gpu@cpu.

With limits, recommend the most accurate network that meets them, and state how sure
that is. With --min-score, recommend the fastest. With --predicted, networks follow that
were not trained, with predicted speeds and scores."""

EXAMPLES = """Examples:
hilo-nas front my-gpu --format csv > front.csv
hilo-nas front my-gpu --min-images-per-s 900
hilo-nas front my-gpu --near 4
hilo-nas front my-gpu@cpu --max-latency-ms 20
hilo-nas front my-gpu --predicted --min-images-per-s 900"""


def run(
    study: OptionalStudy = None,
    min_images_per_s: Annotated[float | None, typer.Option(help="Recommend a network of at least this speed.")] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="Recommend a network with at most this 95th percentile in milliseconds.")
    ] = None,
    max_memory_mib: Annotated[
        float | None, typer.Option(help="Recommend a network with at most this peak memory in MiB.")
    ] = None,
    min_score: Annotated[
        float | None, typer.Option(help="Recommend the fastest network with at least this score, as in the table.")
    ] = None,
    knee: Annotated[bool, typer.Option("--knee", help="Recommend the network at the knee of the front.")] = False,
    near: Annotated[
        int | None, typer.Option(metavar="TRIAL", help="Show the networks that are nearest in speed and score.")
    ] = None,
    predicted: Annotated[bool, typer.Option("--predicted", help="Add networks that were not trained.")] = False,
    output: Output = Format.table,
) -> None:
    """Prints the front of a study, or a row for each study."""
    from hilo_nas.cli.front_output import Wish, print_study
    from hilo_nas.cli.studies import print_studies

    limits = {"images_per_s": min_images_per_s, "latency_ms": max_latency_ms, "memory_mib": max_memory_mib}
    asked = {name: bound for name, bound in limits.items() if bound is not None}
    wish = Wish(limits=asked, min_score=min_score, at_knee=knee, near=near)
    if (predicted or wish.is_given) and (study is None or output is Format.csv):
        raise UsageError("a choice and --predicted need a study, and the format table or json")
    if knee and (asked or min_score is not None):
        raise UsageError("give either --knee or limits")
    if study is None:
        print_studies(output, build_console())
    else:
        print_study(study, wish, output, predicted=predicted)
