"""What holds for the options of all commands."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from typing import Any

import typer
from typer.models import OptionInfo

from hilo_nas.cli.app import app


def list_commands(group: typer.Typer) -> Iterator[Callable[..., Any]]:
    for command in group.registered_commands:
        assert command.callback
        yield command.callback
    for inner in group.registered_groups:
        assert inner.typer_instance
        yield from list_commands(inner.typer_instance)


def list_options(command: Callable[..., Any]) -> Iterator[tuple[str, OptionInfo]]:
    for name, hint in typing.get_type_hints(command, include_extras=True).items():
        for found in getattr(hint, "__metadata__", ()):
            if isinstance(found, OptionInfo):
                yield name, found


def names_itself(option: OptionInfo) -> bool:
    # Until a command is built from it, the first name stands where a default would.
    return bool(option.param_decls) or isinstance(option.default, str)


def test_no_option_is_named_after_its_placeholder():
    # Typer 0.27 takes `metavar="DATA"` of a parameter `data` for the option's name: `--DATA`.
    commands = list(list_commands(app))
    options = [(command, *option) for command in commands for option in list_options(command)]
    assert len(options) > 5 * len(commands)
    unnamed = [
        f"{command.__module__}: {name}"
        for command, name, option in options
        if not names_itself(option) and (option.metavar or "").lower() == name.replace("_", "-")
    ]
    assert unnamed == []
