"""Options and arguments that several commands share.

Options with the same name but another meaning in one command are defined in that command's module.
"""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from hilo_nas.cli.completion import complete_space, complete_study

__all__ = [
    "HOURS_HELP",
    "Format",
    "OptionalSpace",
    "OptionalStudy",
    "Output",
    "SpaceArgument",
    "StudyArgument",
]


class Format(enum.StrEnum):
    """Output format of a result."""

    table = "table"
    csv = "csv"
    json = "json"


SpaceArgument = Annotated[
    str, typer.Argument(metavar="SPACE", help="Name of a shipped space, or a YAML file.", autocompletion=complete_space)
]
OptionalSpace = Annotated[
    str | None,
    typer.Argument(metavar="SPACE", help="Name of a shipped space, or a YAML file.", autocompletion=complete_space),
]
StudyArgument = Annotated[
    str, typer.Argument(metavar="STUDY", help="Name or folder of a study.", autocompletion=complete_study)
]
OptionalStudy = Annotated[
    str | None,
    typer.Argument(
        metavar="STUDY",
        help="Name or folder of a study. Default: all studies.",
        autocompletion=complete_study,
        show_default=False,
    ),
]
HOURS_HELP = "Time for the search in hours, such as 0.5."
Output = Annotated[Format, typer.Option("--format", help="Output format.")]
