"""`hilo-nas bench`: claims about speed that anyone can make again on the machine at hand."""

from __future__ import annotations

import dataclasses
import enum
import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hilo_nas.cli.options import parse_duration
from hilo_nas.errors import UsageError
from hilo_nas.events import Emit

if TYPE_CHECKING:
    from hilo_nas.report import BenchReport, BenchTable  # pandas takes its time

__all__ = [
    "Device",
    "Format",
    "IdleTimeout",
    "NoSave",
    "Output",
    "Save",
    "Threads",
    "app",
    "run_bench",
    "spell_command",
]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Benches of this machine: what it resolves, layers, backbones, other code, releases; kept in benchmarks/.",
)


class Format(enum.StrEnum):
    """How the result is written."""

    table = "table"
    csv = "csv"
    json = "json"


Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:N or mps; the fastest kind at hand if left out.")]
Precision = Annotated[str, typer.Option(help="fp32, bf16, fp16, amp-bf16 or amp-fp16.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads of the timed networks.")]
Output = Annotated[Format, typer.Option("--format", help="How to write the main table on the screen.")]
Save = Annotated[Path, typer.Option("--save", metavar="DIR", help="Folder for the CSV files and the report.")]
NoSave = Annotated[bool, typer.Option("--no-save", help="Write no files.")]
IdleTimeout = Annotated[str, typer.Option(metavar="TIME", help="A timing process silent for so long is ended.")]

_SAVE = Path("benchmarks")
_SWITCHES = ("compile", "training")
"""Options that can be said with `--no-`."""
_PIPE_WIDTH = 260
"""Columns of a line where nobody's screen ends it."""


@app.command(epilog="Example: hilo-nas bench ruler --device cpu --alone --statistics")
def ruler(
    space: Annotated[str, typer.Option(help="Space that the networks are drawn from.")] = "litv2_cifar",
    device: Device = None,
    networks: Annotated[int, typer.Option(help="Networks to draw.")] = 15,
    passes: Annotated[int, typer.Option(help="Passes over them, on the quiet machine and under the load each.")] = 6,
    seconds: Annotated[float, typer.Option(help="Seconds that a network is timed for in a pass at most.")] = 3.0,
    alone: Annotated[bool, typer.Option("--alone", help="Also time one after the other, as a search does.")] = False,
    statistics: Annotated[
        bool, typer.Option("--statistics", help="Also tell what other statistics make of the same samples.")
    ] = False,
    batch_size: Annotated[int | None, typer.Option(help="Images per call; the space's if left out.")] = None,
    img_size: Annotated[int | None, typer.Option(help="Side of the images in pixels; the space's if left out.")] = None,
    precision: Precision = "fp32",
    threads: Threads = None,
    seed: Annotated[int, typer.Option(help="Draws the networks, and the load's bursts.")] = 0,
    output: Output = Format.table,
    save: Save = _SAVE,
    no_save: NoSave = False,
    idle_timeout: IdleTimeout = "10m",
) -> None:
    """What this machine can resolve: networks timed again and again, quiet and under a load started here."""
    from hilo_nas.bench.reports import report_ruler
    from hilo_nas.bench.ruler import RulerPlan, bench_ruler
    from hilo_nas.space import load_space

    found = load_space(space)
    plan = RulerPlan(
        space=found,
        device=device,
        networks=networks,
        passes=passes,
        seconds=seconds,
        batch_size=found.defaults.get("batch_size", 64) if batch_size is None else batch_size,
        img_size=found.defaults.get("img_size", 224) if img_size is None else img_size,
        precision=precision,
        threads=threads,
        seed=seed,
        alone=alone,
    )

    def bench(emit: Emit, log: Path, idle_timeout_s: float) -> list[BenchReport]:
        findings = bench_ruler(plan, emit, log=log, idle_timeout_s=idle_timeout_s)
        options = {"space": space, "networks": networks, "passes": passes, "seconds": seconds, "seed": seed}
        options |= {"alone": alone, "statistics": statistics, "img-size": plan.img_size, "threads": threads}
        first = findings.passes[0].measurements
        command = spell_command("ruler", next(iter(first.values())).condition, options)
        return [report_ruler(plan, findings, command, with_statistics=statistics)]

    run_bench(bench, output, None if no_save else save, idle_timeout)


@app.command(epilog="Example: hilo-nas bench attention --device cpu --batch-size 64 --quick")
def attention(
    device: Device = None,
    precision: Precision = "fp32",
    batch_size: Annotated[
        list[int] | None, typer.Option(help="Maps per call; may be given again. 1 and 64 if left out.")
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="SIDE/DIM/HEADS", help="A stage: 14/768/12; may be given again. Four if left out."),
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option(help="A layer to put beside HiLo; may be given again. All if left out.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="The first stage alone, and HiLo with alpha 0.9 and windows of 2 alone.")
    ] = False,
    seconds: Annotated[
        float, typer.Option(help="Seconds that a layer is timed for at most; at least 12 rounds.")
    ] = 2.0,
    threads: Threads = None,
    output: Output = Format.table,
    save: Save = _SAVE,
    no_save: NoSave = False,
    idle_timeout: IdleTimeout = "10m",
) -> None:
    """HiLo beside plain, reduced, windowed and linear attention, layer by layer, as in the LITv2 paper."""
    from hilo_nas.bench.attention import AttentionPlan, bench_attention
    from hilo_nas.bench.layers import KINDS, SHAPES, parse_shape
    from hilo_nas.bench.reports import report_attention

    shapes = tuple(parse_shape(text) for text in shape) if shape else SHAPES[:1] if quick else SHAPES
    plan = AttentionPlan(
        device=device,
        precision=precision,
        batch_sizes=tuple(batch_size or (1, 64)),
        shapes=shapes,
        kinds=tuple(layer or KINDS),
        is_quick=quick,
        seconds=seconds,
        threads=threads,
    )

    def bench(emit: Emit, log: Path, idle_timeout_s: float) -> list[BenchReport]:
        reports = []
        for findings in bench_attention(plan, emit, log=log, idle_timeout_s=idle_timeout_s):
            options = {"shape": shape, "layer": layer, "quick": quick, "seconds": seconds, "threads": threads}
            command = spell_command("attention", findings.measurements[0].condition, options)
            reports.append(report_attention(plan, findings, command))
        return reports

    run_bench(bench, output, None if no_save else save, idle_timeout)


@app.command(epilog="Example: hilo-nas bench backbones --device cuda --precision fp16")
def backbones(
    device: Device = None,
    precision: Precision = "fp32",
    batch_size: Annotated[int | None, typer.Option(help="Images per call; 8 on a CPU and else 64 if left out.")] = None,
    img_size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 224,
    network: Annotated[
        list[str] | None, typer.Option(help="A network to put beside LITv2-S; may be given again. All if left out.")
    ] = None,
    compile_: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="Try compiled forms too; if left out, on a CUDA device alone."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Seconds that a form is timed for in the end.")] = 10.0,
    heat_seconds: Annotated[float, typer.Option(help="The same while forms are tried.")] = 2.0,
    threads: Threads = None,
    output: Output = Format.table,
    save: Save = _SAVE,
    no_save: NoSave = False,
    idle_timeout: IdleTimeout = "30m",
) -> None:
    """LITv2 beside its peers from timm, each as it comes and in the form that is fastest here."""
    from hilo_nas.bench.backbones import BackbonesPlan, bench_backbones
    from hilo_nas.bench.reports import report_backbones

    plan = BackbonesPlan(
        device=device,
        precision=precision,
        batch_size=batch_size,
        img_size=img_size,
        networks=tuple(network or ()),
        compile=compile_,
        seconds=seconds,
        heat_seconds=heat_seconds,
        threads=threads,
    )

    def bench(emit: Emit, log: Path, idle_timeout_s: float) -> list[BenchReport]:
        findings = bench_backbones(plan, emit, log=log, idle_timeout_s=idle_timeout_s)
        options = {"img-size": img_size, "network": network, "compile": compile_, "seconds": seconds}
        options |= {"heat-seconds": heat_seconds, "threads": threads}
        command = spell_command("backbones", findings.measurements[0].condition, options)
        return [report_backbones(plan, findings, command)]

    run_bench(bench, output, None if no_save else save, idle_timeout)


def spell_command(bench: str, condition: Any, options: Mapping[str, Any]) -> str:
    """Returns the command line that does the same again, with what was left out spelled."""
    words = ["hilo-nas", "bench", bench]
    values = {"device": condition.device, "precision": condition.precision, "batch-size": condition.batch_size}
    for name, value in (values | dict(options)).items():
        if isinstance(value, bool):
            words += [f"--{name}"] if value else [f"--no-{name}"] if name in _SWITCHES else []
        elif value is not None:
            for item in value if isinstance(value, list) else [value]:
                words += [f"--{name}", str(item)]
    return shlex.join(words)


def run_bench(
    bench: Callable[[Emit, Path, float], Sequence[BenchReport]],
    output: Format,
    save: Path | None,
    idle_timeout: str,
    *,
    write: Callable[[BenchReport, Path], list[Path]] | None = None,
) -> None:
    """Runs a bench, writes its files and prints its main tables; progress goes to standard error.

    Args:
        bench: Told whom to emit to, the log, and the seconds of silence after which a process counts as hung.
        output: How the main tables are printed.
        save: Folder for the files; None for none.
        idle_timeout: A duration, as the user types it.
        write: Writes the files of a report and returns their paths; a CSV file per table and the report if left out.
    """
    from hilo_nas.cli.display import build_display
    from hilo_nas.report import check_folder, write_report

    write = write or write_report

    idle_timeout_s = parse_duration(idle_timeout)
    assert idle_timeout_s is not None
    if save is not None:
        check_folder(save)
    progress = Console(stderr=True, highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="hilo-nas-bench-"))
    is_log_wanted = True
    try:
        with build_display(progress) as display:
            reports = bench(display, folder / "timing.log", idle_timeout_s)
        is_log_wanted = any(report.failures for report in reports)
    except (KeyboardInterrupt, UsageError):
        is_log_wanted = False
        raise
    finally:
        if is_log_wanted:
            progress.print(f"what the timing process printed is in {folder}", markup=False, soft_wrap=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    # Written before they are printed: whoever reads our output may leave.
    written = [path for report in reports if save is not None for path in write(report, save)]
    _print(reports, output)
    for path in written:
        progress.print(f"wrote {path}", markup=False, soft_wrap=True)


def _print(reports: Sequence[BenchReport], output: Format) -> None:
    from hilo_nas.report import render_csv, render_json

    if output is Format.json:
        typer.echo(render_json(reports))
    elif output is Format.csv:
        main = [report.tables[0] for report in reports]
        rows = [row for table in main for row in table.rows]
        typer.echo(render_csv(dataclasses.replace(main[0], rows=rows)), nl=False)
    else:
        for report in reports:
            _print_report(report)


def _print_report(report: BenchReport) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_WIDTH)
    for table in report.tables:
        if table.is_shown:
            _print_table(table, console)
    for line in report.headlines:
        console.print(line, markup=False, soft_wrap=True)
    for name, why in report.failures.items():
        console.print(f"[yellow]not timed:[/] {escape(f'{name}: {why}')}", soft_wrap=True)
    for line in report.advice:
        console.print(f"[yellow]warning:[/] {escape(line)}", soft_wrap=True)


def _print_table(table: BenchTable, console: Console) -> None:
    grid = Table(box=box.SIMPLE, pad_edge=False, title=table.title, title_justify="left")
    for heading in table.headings:
        grid.add_column(heading, overflow="fold")
    for cells in table.cells():
        grid.add_row(*(escape(cell) for cell in cells))
    console.print(grid)
    for note in table.notes:
        console.print(note, style="dim", markup=False, soft_wrap=True)
