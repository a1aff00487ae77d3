"""Options and arguments that several commands share; one that means something else in a command stays in its file."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from hilo_nas.cli.completion import complete_space, complete_study

__all__ = [
    "Format",
    "OptionalSpace",
    "OptionalStudy",
    "Output",
    "SpaceArgument",
    "StudyArgument",
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
