"""Tables for the terminal, such as the table of a front."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hilo_nas.arch.config import describe_arch
from hilo_nas.cli.console import plain
from hilo_nas.measurement import Measurement
from hilo_nas.proxy.kinds import DEFAULT_PROXY, Metric, metric_named
from hilo_nas.study.front import Front
from hilo_nas.study.records import TrialRecord
from hilo_nas.text.figures import figure, probability_text, with_spread
from hilo_nas.text.one_line import one_line

__all__ = ["MOST_TIES", "Column", "metric_of", "print_fitting", "print_front_table", "rows_of"]

_GAP = 3
"""Terminal columns between two columns of a table. Both edges together take one less."""
MOST_TIES = 30
"""Maximum number of ties in a front's table, the most likely ones. With one seed each, hundreds may be tied."""
_MOST_RIVALS = 5
"""Maximum number of trials in a cell of the column `tied with`."""


def metric_of(records: Sequence[TrialRecord]) -> Metric:
    """Returns the metric of the first score; the default metric if there is no score."""
    names = (record.score.metric for record in records if record.score)
    return next((metric_named(name) for name in names), DEFAULT_PROXY.metrics[0])


def rows_of(front: Front) -> tuple[TrialRecord, ...]:
    """Returns the trials of a front's table: its members, the most likely ties, and the baselines."""
    probabilities = front.probabilities()
    likely = {*sorted(front.ties, key=lambda number: -probabilities[number])[:MOST_TIES]}
    return (*front.members, *(front.by_number[number] for number in front.ties if number in likely), *front.baselines)


def print_front_table(
    front: Front,
    anchors: Collection[str],
    console: Console,
    *,
    limits: Collection[str] = (),
) -> None:
    """Prints a row for each trial of `rows_of(front)`.

    Marks are * for anchors, + for baselines and ~ for ties. On a narrow console, whole columns are hidden, and numbers
    are never cut. A hidden column of architectures is printed below the table.

    Args:
        front: Front to print.
        anchors: Keys of the anchors.
        console: Console to print on.
        limits: Names of the limits of the study. With a limit on latency, the column p95 is never hidden.
    """
    ties, half_widths, probabilities = front.ties, front.half_widths, front.probabilities()
    rows = rows_of(front)

    def describe(record: TrialRecord) -> str:
        return record.key if record.subject.arch is None else describe_arch(record.subject.arch)

    metric = metric_of(rows)
    further = list(dict.fromkeys(label for record in rows for label in list(record.measurements_by_condition())[1:]))
    shown = [record for record in rows if record.measurement and record.score]
    columns = [
        Column("trial", [f"{record.number}{_mark(record, anchors, ties)}" for record in shown]),
        Column("images/s", [_images_per_s(record.measurement) for record in shown]),
        Column(
            metric.heading,
            [
                with_spread(
                    record.score.value if record.score else None,
                    half_widths[record.number],
                    scale=metric.scale,
                    decimals=metric.decimals,
                )
                for record in shown
            ],
        ),
        Column("n", [str(record.score.seeds) for record in shown if record.score], rank=6),
        Column(
            "P(front)",
            [
                probability_text(probabilities[r.number], is_short=True) if r.number in probabilities else ""
                for r in shown
            ],
            rank=1,
        ),
        Column("p50 ms", [_figure_of(record.measurement, "latency_ms_p50") for record in shown], rank=2),
        *(
            [Column("p95 ms", [_figure_of(record.measurement, "latency_ms_p95") for record in shown])]
            if "latency_ms" in limits
            else []
        ),
        Column("MiB", [_figure_of(record.measurement, "memory_mib") for record in shown], rank=5),
        Column("params M", [figure((record.parameters or 0) / 1e6, 3) for record in shown], rank=3),
        Column("GMACs", [figure((record.macs or 0) / 1e9, 3) for record in shown], rank=4),
        *(
            Column(
                f"images/s, p95 ms\n{label}",
                [_further(record.measurements_by_condition().get(label)) for record in shown],
                rank=1,
            )
            for label in further
        ),
        Column("tied with", [_tied(ties.get(record.number, ())) for record in shown], rank=7),
        Column("architecture", [describe(record) for record in shown], rank=8, justify="left"),
    ]
    hidden = print_columns([column for column in columns if column.rank < 7 or any(column.cells)], console)
    if "architecture" in hidden:
        hidden.remove("architecture")
        for record in shown:
            console.print(f"{record.number:>5}  {describe(record)}", markup=False, soft_wrap=True)
    _print_hidden(hidden, console)


@dataclasses.dataclass(frozen=True)
class Column:
    """Column of a table. Its cells are never cut."""

    name: str
    cells: Sequence[str]
    rank: int = 0
    """Order in which columns are hidden on a narrow terminal: the highest rank first. Rank 0 is never hidden."""
    justify: Literal["left", "right"] = "right"


def print_fitting(columns: Sequence[Column], console: Console, *, other_format: str = "csv") -> None:
    """Prints the columns that fit on the console, then the names of the hidden ones.

    Args:
        columns: The columns.
        console: Console to print on.
        other_format: Output format of the command that has all values.
    """
    _print_hidden(print_columns(columns, console), console, other_format)


def _print_hidden(hidden: Sequence[str], console: Console, other_format: str = "csv") -> None:
    if hidden:
        names = ", ".join(name.replace("\n", " ") for name in hidden)
        text = f"Not shown at {console.width} columns: {names}. A wider terminal or --format {other_format} has them."
        console.print(text, markup=False, soft_wrap=True, style="dim")


def print_columns(columns: Sequence[Column], console: Console) -> list[str]:
    """Prints the columns that fit on the console and returns the names of the hidden ones in order."""
    kept = list(columns)
    while (width := _width(kept)) > console.width:
        last = max(kept, key=lambda column: column.rank)
        if last.rank == 0:
            break
        kept.remove(last)
    console.print(_build_table(kept, width), crop=False, no_wrap=True)
    return [column.name for column in columns if column not in kept]


def _build_table(columns: Sequence[Column], width: int) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False, width=width)  # without width, rich cuts cells on a narrow console
    for column in columns:
        table.add_column(Text(plain(column.name), justify=column.justify), no_wrap=True)
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(_cell(cell), justify=column.justify) for cell, column in zip(cells, columns, strict=True)))
    return table


def _width(columns: Sequence[Column]) -> int:
    """Returns the number of terminal columns that a table needs without cut cells."""
    lines = [[*plain(column.name).split("\n"), *map(_cell, column.cells)] for column in columns]
    return sum(max(map(cell_len, own)) for own in lines) + _GAP * len(columns) - 1


def _cell(text: str) -> str:
    return plain(one_line(text))


def _mark(record: TrialRecord, anchors: Collection[str], ties: Mapping[int, Sequence[int]]) -> str:
    mark = "+" if record.is_baseline else "*" if record.key in anchors else ""
    return mark + "~" * bool(ties.get(record.number))


def _tied(rivals: Sequence[int]) -> str:
    """Returns the first trials that a network is tied with, and the count of the rest."""
    named = ",".join(map(str, rivals[:_MOST_RIVALS]))
    return named + (f" and {len(rivals) - _MOST_RIVALS} more" if len(rivals) > _MOST_RIVALS else "")


def _images_per_s(measurement: Measurement | None) -> str:
    return "-" if measurement is None else with_spread(measurement.images_per_s, measurement.images_per_s_half_width)


def _figure_of(measurement: Measurement | None, name: str) -> str:
    return figure(getattr(measurement, name, None), 3)


def _further(measurement: Measurement | None) -> str:
    """Returns images/s and p95 under a condition other than the objective."""
    if measurement is None:
        return "-"
    return f"{figure(measurement.images_per_s)}, {figure(measurement.latency_ms_p95, 3)}"
