"""What holds for the options of all commands."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer
from typer.models import OptionInfo

from hilo_nas.cli.app import app
from hilo_nas.cli.options import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("90", 90), ("1.5", 1.5), ("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400), ("1h30m", 5400)],
        *[(" 1h 30m 5s ", 5405), ("1d12h", 129600), ("0.5h", 1800), ("1m0s", 60), (None, None)],
    ],
)
def test_durations_are_read_with_their_units(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0h0m", "1h30", "30m1h", "1h1h", "-5m", "1e3", "nan", "inf", "soon", "5 w"])
def test_what_is_no_duration_is_refused_with_examples(text):
    with pytest.raises(typer.BadParameter, match="such as 90s, 30m or 1h30m, but got"):
        parse_duration(text)


def list_commands(group: typer.Typer) -> Iterator[Callable[..., Any]]:
    for command in group.registered_commands:
        assert command.callback
        yield command.callback
    for inner in group.registered_groups:
        assert inner.typer_instance
        yield from list_commands(inner.typer_instance)


def list_options(command: Callable[..., Any]) -> Iterator[tuple[str, OptionInfo]]:
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        for found in getattr(parameter.annotation, "__metadata__", ()):
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
