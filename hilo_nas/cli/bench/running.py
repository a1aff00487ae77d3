"""Common parts of benchmark commands: files, tables, and the command that reproduces a report."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from hilo_nas.cli.console import build_console, echo
from hilo_nas.cli.options import Format
from hilo_nas.cli.tables import Column, print_columns
from hilo_nas.errors import UsageError
from hilo_nas.events import Emit

if TYPE_CHECKING:
    from hilo_nas.report import BenchReport, BenchTable  # importing pandas is slow

__all__ = ["deliver", "run_bench", "spell_command"]

_SWITCHES = ("compile", "training")
"""Options with a `--no-` form."""


def spell_command(program: str, condition: Any, options: Mapping[str, Any]) -> str:
    """Returns the command line that reproduces a benchmark, with the values of all options.

    Args:
        program: Command without options, such as `hilo-nas bench ruler`.
        condition: Condition that was timed. It provides device, precision and batch size.
        options: Values by option name. None leaves out an option.
    """
    words = program.split()
    values = {"device": condition.device, "precision": condition.precision, "batch-size": condition.batch_size}
    for name, value in (values | dict(options)).items():
        if isinstance(value, bool):
            words += [f"--{name}"] if value else [f"--no-{name}"] if name in _SWITCHES else []
        elif value is not None:
            for item in value if isinstance(value, list) else [value]:
                words += [f"--{name}", str(item)]
    return shlex.join(words)


def run_bench(
    bench: Callable[[Emit, Path], Sequence[BenchReport]],
    shown: Format,
    folder: Path | None,
    *,
    write: Callable[[BenchReport, Path], list[Path]] | None = None,
) -> None:
    """Runs a benchmark, writes its files and prints its tables. Progress goes to standard error.

    Args:
        bench: Function that runs the benchmark. It receives an event receiver and the folder for logs.
        shown: Output format.
        folder: Folder for files; None to write none.
        write: Function that writes the files of a report and returns their paths. By default, it writes a CSV file per
            table and the report.
    """
    from hilo_nas.cli.display import build_display
    from hilo_nas.report import check_folder

    if folder is not None:
        check_folder(folder)
    progress = build_console(stderr=True)
    logs = Path(tempfile.mkdtemp(prefix="hilo-nas-bench-"))
    is_log_wanted = True
    try:
        with build_display(progress) as display:
            reports = bench(display, logs)
        is_log_wanted = any(report.failures for report in reports)
    except (KeyboardInterrupt, UsageError):
        is_log_wanted = False
        raise
    finally:
        if is_log_wanted and any(logs.iterdir()):  # without timings there is no log
            progress.print(f"the output of the worker process is in {logs}", soft_wrap=True)
        else:
            shutil.rmtree(logs, ignore_errors=True)
    deliver(reports, shown, folder, progress, write=write)


def deliver(
    reports: Sequence[BenchReport],
    shown: Format,
    folder: Path | None,
    progress: Console,
    *,
    write: Callable[[BenchReport, Path], list[Path]] | None = None,
) -> None:
    """Writes the files of reports, prints their tables, and lists the files on the console `progress`.

    The other arguments are those of `run_bench`.
    """
    from hilo_nas.report import write_report

    write = write or write_report
    # Files are written first, because printing fails if the reader of a pipe ends.
    written = [path for report in reports if folder is not None for path in write(report, folder)]
    _print(reports, shown)
    for path in written:
        progress.print(f"wrote {path}", soft_wrap=True)


def _print(reports: Sequence[BenchReport], shown: Format) -> None:
    from hilo_nas.report import render_csv, render_json

    if shown is Format.json:
        echo(render_json(reports))
    elif shown is Format.csv:
        main = [report.tables[0] for report in reports]
        rows = [row for table in main for row in table.rows]
        echo(render_csv(dataclasses.replace(main[0], rows=rows)), nl=False)
    else:
        for report in reports:
            _print_report(report)


def _print_report(report: BenchReport) -> None:
    console = build_console()
    for table in report.tables:
        if table.is_shown:
            _print_table(table, console)
    for line in report.headlines:
        console.print(line, soft_wrap=True)
    for name, why in report.failures.items():
        console.print(f"[yellow]left out:[/] {escape(f'{name}: {why}')}", soft_wrap=True, markup=True)
    for line in report.advice:
        console.print(f"[yellow]warning:[/] {escape(line)}", soft_wrap=True, markup=True)


def _print_table(table: BenchTable, console: Console) -> None:
    """Prints a table. On a narrow console, columns are hidden from the right."""
    console.print(table.title, style="bold", soft_wrap=True)
    texts = zip(*table.cells(), strict=True) if table.rows else [()] * len(table.headings)
    columns = [
        Column(heading, list(cells), rank=rank, justify="left")
        for rank, (heading, cells) in enumerate(zip(table.headings, texts, strict=True))
    ]
    if hidden := print_columns(columns, console):
        text = f"Not shown at {console.width} columns: {', '.join(hidden)}. A wider terminal or --format json has them."
        console.print(text, soft_wrap=True, style="dim")
    for note in table.notes:
        console.print(note, style="dim", soft_wrap=True)
