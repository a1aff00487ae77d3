"""All commands of the command line.

Import it as `from command_tree import walk_commands` (pyproject puts `tests/` on the path).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from hilo_nas.cli.app import app


def walk_commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """The commands by their words, groups included; the root is the empty text."""
    command = command or typer.main.get_command(app)
    yield " ".join(path), command
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk_commands(inner, (*path, name))
