"""`hilo-nas show`: one network in full."""

from __future__ import annotations

from typing import Annotated

import typer

from hilo_nas.cli.completion import complete_study
from hilo_nas.cli.options import Format, Output
from hilo_nas.errors import UsageError

__all__ = ["EXAMPLES", "HELP", "run"]

_IMG_SIZE = 224

HELP = """Show one network in full: figures with conditions, stages, cost and provenance.

Parameters and multiply-adds follow from formulas. The share of time was measured
at the end of a search. `hilo-nas bench stages` times the parts of any LITv2 network here."""

EXAMPLES = """Examples:
hilo-nas show my-gpu:4
hilo-nas show litv2_small --img-size 224"""


def run(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="STUDY:TRIAL, an architecture's .yaml file, or litv2_small, litv2_medium, litv2_base.",
            autocompletion=complete_study,
        ),
    ],
    img_size: Annotated[
        int | None,
        typer.Option(
            help=f"Side in pixels of the images whose cost is shown. Default: from the study, else {_IMG_SIZE}.",
            show_default=False,
        ),
    ] = None,
    output: Output = Format.table,
) -> None:
    """Prints the network."""
    if output is Format.csv:
        raise UsageError("show has the formats table and json")

    from hilo_nas.cli.show_output import print_network

    print_network(network, img_size, _IMG_SIZE, output)
