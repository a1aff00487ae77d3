"""`hilo-nas doctor`: what this machine is, and what makes measurements unreliable on it."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from hilo_nas.cli.console import build_console
from hilo_nas.cli.formats import echo_content
from hilo_nas.cli.options import Format, Output
from hilo_nas.cli.settings import help_of
from hilo_nas.errors import HiloNasError, UsageError

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Check this machine: device, versions, cores, load, disks, and the noise of timings.

It takes about half a minute, most of it for timings of four small networks. Each problem
is followed by what helps."""

EXAMPLES = """Examples:
hilo-nas doctor
hilo-nas doctor --device cuda --format json"""


def run(
    device: Annotated[str | None, typer.Option(help=help_of("timing.device"))] = None,
    timing: Annotated[
        bool, typer.Option("--timing/--no-timing", help="Measure the noise of timings.", show_default=False)
    ] = True,
    output: Output = Format.table,
) -> None:
    """Prints the findings."""
    if output is Format.csv:
        raise UsageError("doctor has the formats table and json")

    from hilo_nas.bench.doctor import Finding, check_host, check_timing
    from hilo_nas.cli.display import build_display

    found = check_host()
    if timing:
        progress = build_console(stderr=True)
        try:
            with build_display(progress) as display, tempfile.TemporaryDirectory() as logs:
                found += check_timing(device, display, logs=Path(logs))
        except HiloNasError as error:
            found.append(Finding(name="device", text=device or "the fastest one", problem=str(error)))
    if output is Format.json:
        echo_content([dataclasses.asdict(own) for own in found], output)
        return
    console = build_console(soft_wrap=True)
    for own in found:
        console.print(f"{own.name + ':':9} {own.text}")
        if own.problem:
            console.print(f"          problem: {own.problem}", style="yellow")
        if own.advice:
            console.print(f"          {own.advice}")
