"""`hilo-nas compare`: differences between trials or conditions of a study, or between two studies."""

from __future__ import annotations

from typing import Annotated

import typer

from hilo_nas.cli.completion import complete_study
from hilo_nas.cli.options import Format, Output
from hilo_nas.errors import UsageError

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Compare trials of one study, its conditions, or two studies that share networks.

Trials are compared with the first one: speed, score, probabilities and knobs. For two
studies, such as one on a GPU and one on a CPU, it shows the networks that change rank,
and what it costs to choose networks in the first study and to use them in the second.
For one study with further conditions, such as a second target, it shows the same for its
objective and each of them."""

EXAMPLES = """Examples:
hilo-nas compare my-gpu:4 my-gpu:7
hilo-nas compare my-gpu my-cpu
hilo-nas compare my-gpu"""


def run(
    names: Annotated[
        list[str],
        typer.Argument(metavar="A B...", help="STUDY:TRIAL, or one or two studies.", autocompletion=complete_study),
    ],
    output: Output = Format.table,
) -> None:
    """Prints the comparison."""
    if output is Format.csv:
        raise UsageError("compare has the formats table and json")

    from hilo_nas.cli.compare_output import print_comparison

    print_comparison(names, output)
