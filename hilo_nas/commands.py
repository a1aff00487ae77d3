"""Commands of `hilo-nas` as text to be typed: every hint and way out is built here, quoted for a shell."""

from __future__ import annotations

import shlex
from pathlib import Path

__all__ = ["command", "study_options"]


def command(*words: str | Path | int) -> str:
    """Returns `hilo-nas` with words, each quoted where a shell would read it otherwise."""
    return shlex.join(["hilo-nas", *map(str, words)])


def study_options(studies_dir: Path | None) -> tuple[str, ...]:
    """Returns the option for a folder of studies, where one was given."""
    return () if studies_dir is None else ("--studies-dir", str(studies_dir))
