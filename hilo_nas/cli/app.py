"""The `hilo-nas` command: its subcommands, one file each, and what happens to errors.

Exit codes: 0 done, 1 the world refused, 2 something else must be typed, 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any

import typer
from rich.markup import escape

from hilo_nas.cli import (
    bench,
    cache,
    config,
    data,
    export,
    front,
    measure,
    proxy,
    remeasure,
    search,
    space,
    status,
)
from hilo_nas.cli.apps import App
from hilo_nas.cli.console import build_console, echo, prepare_streams
from hilo_nas.cli.text import verbatim
from hilo_nas.errors import HiloNasError

__all__ = ["app", "main"]

_EPILOG = """Start with: hilo-nas search      (a small search on this machine, no data needed)

Studies lie in ./studies, or in $HILO_NAS_STUDIES_DIR."""

app = App(
    pretty_exceptions_enable=False,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("search", help=search.HELP, epilog=verbatim(search.EXAMPLES))(search.run)
app.command("config", help=config.HELP, epilog=verbatim(config.EXAMPLES))(config.run)
app.command("measure", help=measure.HELP, epilog=verbatim(measure.EXAMPLES))(measure.run)
app.command("remeasure", help=remeasure.HELP, epilog=verbatim(remeasure.EXAMPLES))(remeasure.run)
app.command("status", help=status.HELP)(status.run)
app.command("front", help=front.HELP)(front.run)
app.command("export", help=export.HELP, epilog=verbatim(export.EXAMPLES))(export.run)
app.add_typer(space.app, name="space")
app.add_typer(bench.app, name="bench")
app.add_typer(proxy.app, name="proxy")
app.add_typer(data.app, name="data")
app.add_typer(cache.app, name="cache")


@app.callback(epilog=_EPILOG, help="Architecture search for LITv2 vision backbones, driven by measured throughput.")
def _options(
    version: bool = typer.Option(False, "--version", help="Print the version and end."),
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks."),
) -> None:
    if version:
        import hilo_nas

        echo(f"hilo-nas {hilo_nas.__version__}")
        raise typer.Exit


# Typer carries click, or a copy of it; this is the base of its usage errors in either.
_UsageProblem: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def _stop(signum: int, frame: FrameType | None) -> None:
    """SIGTERM stops as cleanly as Ctrl-C."""
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--version" in arguments[:1]:
        arguments = ["--version", "space", "list"]  # a group wants a subcommand before it looks at its options
    prepare_streams()
    errors = build_console(stderr=True)
    previous = signal.signal(signal.SIGTERM, _stop)
    try:
        code = typer.main.get_command(app).main(args=arguments, prog_name="hilo-nas", standalone_mode=False)
        code = code if isinstance(code, int) else 0
    except _UsageProblem as error:
        error.show()
        return int(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except HiloNasError as error:
        if "--debug" in arguments:
            raise
        errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, markup=True)
        return error.exit_code
    except BrokenPipeError:
        return 1  # whoever read our output has left
    except OSError as error:
        if "--debug" in arguments:
            raise
        errors.print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True, markup=True)
        return 1
    except Exception as error:
        if "--debug" in arguments:
            raise
        text = escape(f"{type(error).__name__}: {error}. This is a fault of hilo-nas: --debug shows where.")
        errors.print(f"[bold red]error:[/] {text}", soft_wrap=True, markup=True)
        return 1
    finally:
        signal.signal(signal.SIGTERM, previous)
    if code == 130:  # typer turns Ctrl-C into this code, or passes it on
        errors.print("stopped" if arguments[:1] == ["bench"] else "stopped; everything finished is kept")
    return code
