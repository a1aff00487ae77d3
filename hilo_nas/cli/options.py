"""Options and arguments that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from hilo_nas.study import STUDIES_VARIABLE

__all__ = ["StudiesDir", "StudyArgument", "parse_duration"]

StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="A study's name, or its folder.")]
StudiesDir = Annotated[
    Path | None,
    typer.Option("--studies-dir", metavar="DIR", help=f"Where studies lie; ${STUDIES_VARIABLE}, else ./studies."),
]

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str | None) -> float | None:
    """Returns seconds of `90`, `90s`, `30m`, `2h` or `1d`; None stays None.

    Raises:
        typer.BadParameter: The text is no duration.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if not found or float(found[1]) == 0:
        raise typer.BadParameter(f"must be a duration above 0 such as 90s, 30m or 2h, but got {text!r}")
    return float(found[1]) * _UNITS[found[2]]
