"""Options and arguments that several commands share; one that means something else in a command stays in its file."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from hilo_nas.cli.completion import complete_space, complete_study
from hilo_nas.cli.settings import help_of

__all__ = [
    "Device",
    "Format",
    "ImgSize",
    "OptionalSpace",
    "OptionalStudy",
    "Output",
    "Precision",
    "ProxyImgSize",
    "SpaceArgument",
    "StudyArgument",
    "Threads",
]


class Format(enum.StrEnum):
    """How a result is written."""

    table = "table"
    csv = "csv"
    json = "json"


SpaceArgument = Annotated[
    str, typer.Argument(metavar="SPACE", help="A shipped space's name, or a YAML file.", autocompletion=complete_space)
]
OptionalSpace = Annotated[
    str | None,
    typer.Argument(metavar="SPACE", help="A shipped space's name, or a YAML file.", autocompletion=complete_space),
]
StudyArgument = Annotated[
    str, typer.Argument(metavar="STUDY", help="A study's name, or its folder.", autocompletion=complete_study)
]
OptionalStudy = Annotated[
    str | None,
    typer.Argument(
        metavar="STUDY",
        help="A study's name, or its folder; all studies if left out.",
        autocompletion=complete_study,
        show_default=False,
    ),
]
Output = Annotated[Format, typer.Option("--format", help="How to write it.")]

Device = Annotated[str | None, typer.Option(help=help_of("timing.device"))]
Precision = Annotated[str, typer.Option(help=help_of("timing.precision"))]
Threads = Annotated[int | None, typer.Option(help=help_of("timing.threads"))]
ImgSize = Annotated[int | None, typer.Option(help=help_of("timing.img_size"))]
ProxyImgSize = Annotated[int | None, typer.Option(help=help_of("proxy.img_size"))]
