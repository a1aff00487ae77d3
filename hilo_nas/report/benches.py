"""Results of a benchmark as files: tables as CSV, and a report in Markdown with the conditions and the command."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hilo_nas.errors import StorageError
from hilo_nas.measurement import Measurement
from hilo_nas.measurement.verdicts import verdict_name
from hilo_nas.study.records import write_atomically
from hilo_nas.study.stored_study import slug
from hilo_nas.text.figures import figure
from hilo_nas.versions import versions

__all__ = [
    "BenchReport",
    "BenchTable",
    "between",
    "check_folder",
    "name_results",
    "number",
    "percent",
    "render_csv",
    "render_json",
    "render_markdown",
    "word",
    "write_report",
]

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]
"""Heading of a column, and the function from a row to the text of its cell."""

_ABSENT = "-"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchTable:
    """Table of a report: rows of plain values by field, and the columns in which they are printed."""

    name: str = ""
    """Name at the end of the CSV file's name. Empty for the main table."""
    title: str
    rows: Sequence[Row]
    columns: Sequence[Column]
    """Columns in reports and in the terminal. The CSV file contains all values of a row."""
    notes: Sequence[str] = ()
    is_shown: bool = True
    """True if the report contains the table. False if only the CSV file does."""

    @property
    def headings(self) -> list[str]:
        """Headings of the columns."""
        return [heading for heading, _ in self.columns]

    def cells(self) -> list[list[str]]:
        """Returns the rows of the table as lists with the text of each cell."""
        return [[text(row) for _, text in self.columns] for row in self.rows]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchReport:
    """Results of one benchmark. They can include several precisions and batch sizes (see `condition`)."""

    bench: str
    """`ruler`, `attention`, `backbones`, `backbones-best`, `stages`, `official`, `samplers`, `releases` or
    `proxy-check`."""
    title: str
    command: str
    """Command that reproduces the results."""
    settings: Mapping[str, Any]
    """Settings of the benchmark, including defaults."""
    measurements: Sequence[Measurement]
    """All timings on which the tables are based."""
    tables: Sequence[BenchTable]
    """Tables of the report. The first is the main table."""
    failures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Reason why each missing network was left out or could not be timed, by name."""
    advice: Sequence[str] = ()
    """Problems of the machine during the timing, with advice."""
    headlines: Sequence[str] = ()
    """Main findings, one sentence each. They include the published value if there is one."""
    is_part: bool = False
    """True if only a part of the benchmark was run."""
    condition: str = ""
    """Text that replaces precision and batch size in file names. Set if the report has several of them."""
    picture: str = ""
    """Plot of the main table as SVG. Empty if there is none."""

    @property
    def stem(self) -> str:
        """Start of all file names: benchmark, device, settings, torch version and month.

        An example is `attention-cpu-fp32-b64-pt2.15-2026-11`.
        """
        return name_results(self.bench, self.measurements[0], is_part=self.is_part, condition=self.condition)


# Columns.


def word(heading: str, key: str) -> Column:
    """Returns a column that shows the field `key` of each row as text, or a dash if it is empty."""
    return heading, lambda row: str(_ABSENT if row.get(key) in (None, "") else row[key])


def number(heading: str, key: str, digits: int = 4) -> Column:
    """Returns a column that shows the number in field `key` with `digits` significant digits and no exponent."""
    return heading, lambda row: _figure(row.get(key), digits)


def percent(heading: str, key: str, decimals: int = 1) -> Column:
    """Returns a column that shows the share in field `key` in percent, without a sign: 0.125 gives `12.5`."""
    return heading, lambda row: _ABSENT if row.get(key) is None else f"{100 * row[key]:.{decimals}f}"


def between(heading: str, key: str, digits: int = 4) -> Column:
    """Returns a column that shows the value in field `key` with its interval, such as `1.52 [1.48, 1.57]`.

    The ends of the interval are in the fields `KEY_low` and `KEY_high`.
    """

    def text(row: Row) -> str:
        value, low, high = (_figure(row.get(name), digits) for name in (key, f"{key}_low", f"{key}_high"))
        return value if _ABSENT in (value, low, high) else f"{value} [{low}, {high}]"

    return heading, text


def _figure(value: float | None, digits: int) -> str:
    return figure(None if value is None or pd.isna(value) else value, digits)


# Files.


def name_results(bench: str, measurement: Measurement, *, is_part: bool = False, condition: str = "") -> str:
    """Returns the start of a file name: benchmark, device, settings, torch version and month.

    An example is `attention-cpu-fp32-b64-pt2.15-2026-11`. For a GPU, it contains the model.

    Args:
        bench: Name of the benchmark.
        measurement: One of the timings of the benchmark.
        is_part: True if only a part of the benchmark was run.
        condition: Text that replaces the precision and the batch size of the measurement.
    """
    own, device = measurement.condition, measurement.device
    model = "" if device.kind == "cpu" else "".join(sign if sign.isalnum() else "-" for sign in device.model.lower())
    parts = [bench, *["part"] * is_part, device.kind, *[model] * bool(model)]
    parts += [condition or f"{own.precision}-b{own.batch_size}", *[f"t{own.threads}"] * (own.threads is not None)]
    torch = ".".join(device.torch.split("+")[0].split(".")[:2])
    # The bench, the device and the date can come from a stored file, so make them safe for a file name.
    return slug("-".join([*parts, f"pt{torch}", measurement.measured_at[:7]]))


def check_folder(folder: Path) -> None:
    """Creates the folder for results. Call it before the timing, so that an error appears early.

    Raises:
        StorageError: The folder cannot be created or is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(folder, os.W_OK | os.X_OK) else "it is read-only"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise StorageError(
            f"the folder for results must be writable, but {folder} is not: {reason}. Use another --output."
        )


def write_report(report: BenchReport, folder: Path) -> list[Path]:
    """Writes a CSV file per table, the plot and the report, and returns their paths. Replaces existing files.

    Raises:
        StorageError: The folder is not writable.
    """
    check_folder(folder)
    files = {f"{report.stem}{table.name and '-'}{table.name}.csv": render_csv(table) for table in report.tables}
    if report.picture:
        files[f"{report.stem}.svg"] = report.picture
    files[f"{report.stem}.md"] = render_markdown(report)
    for name, text in files.items():
        write_atomically(folder / name, text)
    return [folder / name for name in files]


def render_csv(table: BenchTable) -> str:
    """Returns all values of a table's rows as CSV."""
    return pd.DataFrame(list(table.rows)).to_csv(index=False)


def render_json(reports: Sequence[BenchReport]) -> str:
    """Returns the reports as JSON: all values of all tables, the command, failures, findings and advice."""
    content = [
        {
            "bench": report.bench,
            "command": report.command,
            **{
                # pandas writes missing values as null.
                table.name or "results": json.loads(pd.DataFrame(list(table.rows)).to_json(orient="records"))
                for table in report.tables
            },
            "failures": dict(report.failures),
            "headlines": list(report.headlines),
            "advice": list(report.advice),
        }
        for report in reports
    ]
    return json.dumps(content, indent=1)


def render_markdown(report: BenchReport) -> str:
    """Returns the report in Markdown: state of the machine, tables, conditions, and the command that reproduces it."""
    verdicts = Counter(verdict_name(measurement) for measurement in report.measurements)
    lines = [f"# {report.title}", ""]
    lines += ["State of the machine: " + ", ".join(f"{n} {verdict}" for verdict, n in verdicts.most_common()), ""]
    lines += [f"* {text}" for text in report.advice] + [""] * bool(report.advice)
    lines += [f"* {text}" for text in report.headlines] + [""] * bool(report.headlines)
    lines += [f"![{report.tables[0].title}]({report.stem}.svg)", ""] * bool(report.picture)
    for table in report.tables:
        if table.is_shown:
            lines += [f"## {table.title}", "", *_grid(table), "", *(f"* {note}" for note in table.notes)]
            lines += [""] * bool(table.notes)
    if report.failures:
        lines += ["## Left out", "", *(f"* {name}: {why}" for name, why in report.failures.items()), ""]
    lines += ["## Conditions", "", *(f"* {name}: {text}" for name, text in _conditions(report).items()), ""]
    lines += ["## Reproduce", "", "```console", report.command, "```"]
    return "\n".join(lines) + "\n"


def _grid(table: BenchTable) -> list[str]:
    rows = [table.headings, ["---"] * len(table.headings), *table.cells()]
    return ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]


def _conditions(report: BenchReport) -> dict[str, str]:
    """Returns hardware, versions, dates and configuration as text, by name."""
    first = report.measurements[0]
    times = sorted(measurement.measured_at for measurement in report.measurements)
    known = {**versions(), **first.versions}
    return {
        "device": f"{first.device.model} ({first.device.kind}), driver or kernel {first.device.driver}",
        "threads": str(first.threads),
        "system": f"{platform.platform()}{_memory()}",
        "versions": ", ".join(f"{name} {version}" for name, version in known.items()),
        "timed": f"{times[0]} to {times[-1]}",
        "protocol": str(first.protocol),
        "settings": _plain(report.settings),
        "condition": _plain(first.condition.to_dict()),
        "environment": _plain(first.environment),
        "device state": _plain(first.device_state),
    }


def _plain(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value, default=str)}" for name, value in values.items()) or _ABSENT


def _memory() -> str:
    names = ("SC_PAGE_SIZE", "SC_PHYS_PAGES")
    if not all(name in getattr(os, "sysconf_names", {}) for name in names):
        return ""
    return f", {os.sysconf(names[0]) * os.sysconf(names[1]) / 2**30:.0f} GiB of memory"
