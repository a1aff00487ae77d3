"""Command line flags for settings of a search, with names, types and help from `SearchConfig`."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from hilo_nas.cli.completion import complete_setting, complete_study
from hilo_nas.searching.configuration.search_config import SHORT_NAMES, SearchConfig
from hilo_nas.text.commands import FLAGS

__all__ = ["help_of", "takes_settings"]

_SECTIONS = get_type_hints(SearchConfig)
"""Classes of the sections by name."""
_TITLES = {
    "study": "Study",
    "search": "Trials",
    "timing": "Timing",
    "limits": "Limits",
    "data": "Images",
    "proxy": "Proxy",
}
"""Section titles of a command's help by section of the configuration."""
_COMPLETIONS = {"study.name": complete_study}
"""Completion functions by setting."""
_SETTINGS = "Settings"
_SHORT = {name: short.replace("_", "-") for short, name in SHORT_NAMES.items()}


def takes_settings(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns a decorator that adds flags for settings, `--config` and `--set` to a command.

    The decorated function receives its own parameters, and as `config` the `SearchConfig` built from these flags.

    Args:
        names: Settings that get a flag, in the order of the help. The flag's name comes from `FLAGS`, else it is the
            setting's short name.
    """
    variables = {name: name.replace(".", "_") for name in names}

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        own = inspect.signature(function, eval_str=True).parameters
        flags = [_flag(name, variable) for name, variable in variables.items()]
        everything = [*(p for p in own.values() if p.name != "config"), *flags, *_SOURCES]

        @functools.wraps(function)
        def run(**given: Any) -> Any:
            from hilo_nas.searching.configuration.config_files import load_config  # help needs no YAML

            values = {name: given.pop(variable) for name, variable in variables.items()}
            path, settings = given.pop("config_path"), given.pop("settings")
            return function(**given, config=load_config(path, settings or (), values))

        run.__signature__ = inspect.Signature(everything)  # type: ignore[attr-defined]
        run.__annotations__ = {}
        return run

    return decorate


def help_of(name: str) -> str:
    """Returns the help of a setting as a sentence."""
    comment = _field_of(name).metadata["comment"]
    return f"{comment[0].upper()}{comment[1:]}."


def _field_of(name: str) -> dataclasses.Field[Any]:
    section, _, field_name = name.partition(".")
    return next(field for field in dataclasses.fields(_SECTIONS[section]) if field.name == field_name)


def _flag(name: str, variable: str) -> inspect.Parameter:
    section, _, field_name = name.partition(".")
    field = _field_of(name)
    annotation = get_type_hints(_SECTIONS[section])[field_name]
    option = typer.Option(
        FLAGS.get(name) or f"--{_SHORT[name]}",
        help=help_of(name),
        metavar=field.metadata["metavar"],
        rich_help_panel=_TITLES[section],
        show_default=False,
        autocompletion=_COMPLETIONS.get(name),
    )
    return _parameter(variable, Annotated[annotation, option])


def _parameter(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


_SOURCES = (
    _parameter(
        "config_path",
        Annotated[
            Path | None,
            typer.Option(
                "--config",
                metavar="FILE",
                help="YAML file with settings, as from `hilo-nas config`, or a study's manifest.yaml.",
                rich_help_panel=_SETTINGS,
            ),
        ],
    ),
    _parameter(
        "settings",
        Annotated[
            list[str] | None,
            typer.Option(
                "--set",
                metavar="NAME=VALUE",
                autocompletion=complete_setting,
                help="One setting, such as timing.compile=true. Repeatable. Flags override --set, and --set overrides "
                "--config.",
                rich_help_panel=_SETTINGS,
            ),
        ],
    ),
)
