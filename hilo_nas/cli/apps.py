"""Command groups whose help shows options in sections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["App", "Group"]


class _Command(TyperCommand):
    """Command whose help shows its options in sections, at 80 columns."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes arguments, then sections in the order of their first option, then options without a section."""
        sections: dict[str, list[tuple[str, str]]] = {}
        others: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            if (row := param.get_help_record(ctx)) is not None:
                is_argument = param.param_type_name == "argument"
                title = "Arguments" if is_argument else getattr(param, "rich_help_panel", None)
                (others if title is None else sections.setdefault(title, [])).append(row)
        for title, rows in {**sections, "Options": others}.items():
            with formatter.section(title):
                formatter.write_dl(rows)


class Group(TyperGroup):
    """Group of commands that reads its own flags without pydantic."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Returns the options of the group. Flags that Typer adds have the default False instead of None.

        Typer converts None with pydantic, whose import takes 0.1 s.
        """
        params = super().get_params(ctx)
        for param in params:
            if param.default is None and getattr(param, "is_flag", False):
                param.default = False
        return params


class App(typer.Typer):
    """Group of commands. `command` accepts the options of `typer.Typer.command`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            **{"cls": Group, "no_args_is_help": True, "rich_markup_mode": None, "add_completion": False, **options}
        )

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """Returns a decorator that adds a command."""
        return super().command(name, **{"cls": _Command, **options})
