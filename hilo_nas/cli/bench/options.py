"""Options that several benchmark commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hilo_nas.cli.options import Format
from hilo_nas.cli.settings import help_of

__all__ = ["Device", "Folder", "Precision", "Shown", "Threads"]

Device = Annotated[str | None, typer.Option(help=help_of("timing.device"))]
Precision = Annotated[str, typer.Option(help=help_of("timing.precision"))]
Threads = Annotated[int | None, typer.Option(help=help_of("timing.threads"))]
Shown = Annotated[Format, typer.Option("--format", help="Output format.")]
Folder = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Folder for CSV files and the report. Default: write no files.",
        show_default=False,
    ),
]
