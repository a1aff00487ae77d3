"""Command line of benchmarks, `python -m benchmarks.NAME`, with the help, errors and exit codes of `hilo-nas`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from hilo_nas.cli.app import run_app
from hilo_nas.cli.apps import App
from hilo_nas.cli.text import verbatim

__all__ = ["RESULTS", "build_app", "command_of", "run_benchmark"]

RESULTS = Path(__file__).parent / "results"
"""Folder of stored results."""


def command_of(name: str, *words: object) -> str:
    """Returns the command of a benchmark, quoted for a shell."""
    return shlex.join(["python", "-m", f"benchmarks.{name}", *map(str, words)])


def build_app(name: str, run: Callable[..., None], help: str, examples: str) -> App:
    """Returns an app with a single command, which runs a benchmark."""
    app = App(pretty_exceptions_enable=False)
    app.command(name, help=help, epilog=verbatim(examples))(run)
    return app


def run_benchmark(
    name: str, run: Callable[..., None], help: str, examples: str, arguments: list[str] | None = None
) -> int:
    """Runs a benchmark with command line arguments (by default `sys.argv`) and returns its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    others = [word for word in words if word != "--debug"]
    app = build_app(name, run, help, examples)
    return run_app(app, f"python -m benchmarks.{name}", others, debug=others != words)
