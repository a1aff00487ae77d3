"""The `hilo-nas` command: its subcommands (one module each) and the handling of errors.

Exit codes: 0 done, 1 failed, 2 invalid usage, 130 interrupted.
"""

from __future__ import annotations

import functools
import importlib
import signal
import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

import typer

from hilo_nas.cli.apps import App, Group
from hilo_nas.cli.console import IS_QUIET, build_console, echo, prepare_streams
from hilo_nas.cli.text import verbatim
from hilo_nas.errors import HiloNasError

__all__ = ["app", "main", "run_app"]

_EPILOG = """A small search that needs no data: hilo-nas search

Studies are stored in ./studies, or in $HILO_NAS_STUDIES_DIR."""

_SUMMARIES = {
    "search": "Search for fast and accurate networks, or resume a study.",
    "plan": "Propose a search that fits into a given time.",
    "config": "Show the settings of a search as YAML.",
    "measure": "Time networks side by side.",
    "remeasure": "Time the front of a study again, here or on another device.",
    "status": "Show the progress of a study, or list all studies.",
    "front": "Show the front of a study.",
    "show": "Show one network in full.",
    "compare": "Compare trials of a study, or two studies.",
    "repair": "Repair the damaged files of a study.",
    "report": "Write a report of studies as one HTML file.",
    "export": "Write files for a trainer, a runtime or a tool.",
    "space": "List, show, check and write search spaces.",
    "doctor": "Check this machine for what makes timings unreliable.",
    "bench": "Run benchmarks on this machine.",
    "proxy": "Check how well a proxy ranks networks.",
    "data": "Show, check and write images as a search reads them.",
    "cache": "List and clear the cache of decoded images.",
}
"""Summaries by command, in the order of the help. A command's module is imported only if the command is used."""


class _Commands(Mapping[str, Any]):
    """Commands by name, imported on access."""

    def __iter__(self) -> Iterator[str]:
        return iter(_SUMMARIES)

    def __len__(self) -> int:
        return len(_SUMMARIES)

    def __getitem__(self, name: str) -> Any:
        if name not in _SUMMARIES:
            raise KeyError(name)
        return _load_command(name)


@functools.cache
def _load_command(name: str) -> Any:
    module = importlib.import_module(f"hilo_nas.cli.{name}")
    if hasattr(module, "app"):
        group = typer.main.get_group(module.app)
        group.name = name
        return group
    single = App()
    examples = getattr(module, "EXAMPLES", None)
    single.command(name, help=module.HELP, epilog=examples and verbatim(examples))(module.run)
    return typer.main.get_command(single)


class _Root(Group):
    """Group of all commands. Imports only the command that is used."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**{**attrs, "commands": _Commands()})

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the commands with their summaries."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUMMARIES.items()))


app = App(
    cls=_Root,
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(epilog=_EPILOG, help="Architecture search for LITv2 vision backbones, driven by measured throughput.")
def _options(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Show results and warnings, but no progress."),
) -> None:
    IS_QUIET.set(quiet)
    if version:
        import hilo_nas

        echo(f"hilo-nas {hilo_nas.__version__}")
        raise typer.Exit


# Typer depends on click or includes a copy of it. In both cases, this class is the base of its usage errors.
_ClickException: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def _stop(signum: int, frame: FrameType | None) -> None:
    """Handles SIGTERM like Ctrl-C."""
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--version" in arguments[:1]:
        arguments = ["--version", "space", "list"]  # a group requires a subcommand before it reads its options
    return run_app(app, "hilo-nas", arguments, debug="--debug" in arguments)


def run_app(app: typer.Typer, name: str, arguments: list[str], *, debug: bool = False) -> int:
    """Runs a command of an app, prints its errors, and returns the exit code.

    Args:
        app: App with the commands.
        name: Name of the program in usage messages.
        arguments: Arguments of the command line after the program's name.
        debug: True to raise errors instead of printing them.
    """
    prepare_streams()
    previous = signal.signal(signal.SIGTERM, _stop)
    try:
        code = typer.main.get_command(app).main(args=arguments, prog_name=name, standalone_mode=False)
        code = code if isinstance(code, int) else 0
    except _ClickException as error:
        error.show()
        return int(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:
        return 1  # the process that reads the output has ended
    except Exception as error:
        if debug:
            raise
        text = str(error)
        if not isinstance(error, HiloNasError | OSError):
            text = f"{type(error).__name__}: {text}. This is a bug in hilo-nas. Use --debug to see the traceback."
        _print_error(text)
        return error.exit_code if isinstance(error, HiloNasError) else 1
    finally:
        signal.signal(signal.SIGTERM, previous)
    if code == 130:  # typer converts Ctrl-C to this code or raises it
        command = next((word for word in arguments if not word.startswith("-")), None)
        kept = None if "--dry-run" in arguments else _KEPT.get(command or "")
        build_console(stderr=True).print("stopped" if kept is None else f"stopped; {kept}")
    return code


_KEPT = {"search": "finished trials are kept"} | dict.fromkeys(("proxy", "remeasure"), "everything finished is kept")
"""What an interrupted command keeps, by its name. Others keep nothing."""


def _print_error(text: str) -> None:
    from rich.markup import escape

    build_console(stderr=True).print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True, markup=True)
