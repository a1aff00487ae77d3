"""Results of a bench as files: tables as CSV, and a report that says how they came about and how to make them again."""

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

import hilo_nas
from hilo_nas.errors import StorageError
from hilo_nas.measurement import Measurement
from hilo_nas.measurement.rounds import verdict_name
from hilo_nas.study.records import write_atomically
from hilo_nas.study.stored_study import slug

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
"""A heading, and what stands under it for a row."""

_ABSENT = "-"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchTable:
    """Rows of plain values, and how people read them."""

    name: str = ""
    """Ends the name of its CSV file; empty for the main table."""
    title: str
    rows: Sequence[Row]
    columns: Sequence[Column]
    """What a report and a screen show; the CSV holds all of a row."""
    notes: Sequence[str] = ()
    is_shown: bool = True
    """Whether it stands in the report; else in a CSV file alone."""

    @property
    def headings(self) -> list[str]:
        """The columns' headings."""
        return [heading for heading, _ in self.columns]

    def cells(self) -> list[list[str]]:
        """Returns the rows as they are read."""
        return [[text(row) for _, text in self.columns] for row in self.rows]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchReport:
    """One bench under one condition."""

    bench: str
    """`ruler`, `attention`, `backbones`, `stages`, `official`, `samplers`, `releases` or `proxy-check`."""
    title: str
    command: str
    """What makes it again."""
    settings: Mapping[str, Any]
    """What was asked for, defaults included."""
    measurements: Sequence[Measurement]
    """All that were taken."""
    tables: Sequence[BenchTable]
    """The main one first."""
    failures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """By name, why a network could not be timed, or was left out for another reason."""
    advice: Sequence[str] = ()
    """What the machine did that it should not have, and what to do about it."""
    headlines: Sequence[str] = ()
    """What was found, in a sentence each; beside the claim where one was published."""
    is_part: bool = False
    """Whether less was timed than the bench's whole."""
    condition: str = ""
    """What its files' names say in the place of a precision and a batch, where more than one was timed."""
    picture: str = ""
    """The main table drawn, as SVG; empty for none."""

    @property
    def stem(self) -> str:
        """What its files' names begin with: the condition, in short."""
        return name_results(self.bench, self.measurements[0], is_part=self.is_part, condition=self.condition)


# Columns.


def word(heading: str, key: str) -> Column:
    """A column of words."""
    return heading, lambda row: str(_ABSENT if row.get(key) in (None, "") else row[key])


def number(heading: str, key: str, digits: int = 4) -> Column:
    """A column of numbers with so many significant digits and no exponent."""
    return heading, lambda row: _figure(row.get(key), digits)


def percent(heading: str, key: str, decimals: int = 1) -> Column:
    """A column of shares, in per cent."""
    return heading, lambda row: _ABSENT if row.get(key) is None else f"{100 * row[key]:.{decimals}f}"


def between(heading: str, key: str, digits: int = 4) -> Column:
    """A column of values with the ends of their intervals, which lie under `KEY_low` and `KEY_high`."""

    def text(row: Row) -> str:
        value, low, high = (_figure(row.get(name), digits) for name in (key, f"{key}_low", f"{key}_high"))
        return value if _ABSENT in (value, low, high) else f"{value} [{low}, {high}]"

    return heading, text


def _figure(value: float | None, digits: int) -> str:
    if value is None or pd.isna(value):
        return _ABSENT
    text = f"{value:.{digits}g}"
    return f"{float(text):,.0f}" if "e" in text or abs(value) >= 10**digits else text


# Files.


def name_results(bench: str, measurement: Measurement, *, is_part: bool = False, condition: str = "") -> str:
    """Returns a file name's stem that says under which condition a bench was run.

    For instance `attention-cpu-fp32-b64-pt2.15-2026-11`; a GPU is named by its model.

    Args:
        bench: The bench.
        measurement: One that it took.
        is_part: Whether less was timed than the bench's whole.
        condition: Stands in the place of the measurement's precision and batch.
    """
    own, device = measurement.condition, measurement.device
    model = "" if device.kind == "cpu" else "".join(sign if sign.isalnum() else "-" for sign in device.model.lower())
    parts = [bench, *["part"] * is_part, device.kind, *[model] * bool(model)]
    parts += [condition or f"{own.precision}-b{own.batch_size}", *[f"t{own.threads}"] * (own.threads is not None)]
    torch = ".".join(device.torch.split("+")[0].split(".")[:2])
    # A stored table names itself, its device and its date, whoever wrote it.
    return slug("-".join([*parts, f"pt{torch}", measurement.measured_at[:7]]))


def check_folder(folder: Path) -> None:
    """Makes the folder for results, before anything is timed for them.

    Raises:
        StorageError: It cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = None if os.access(folder, os.W_OK | os.X_OK) else "it is read-only"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise StorageError(
            f"results must go to a folder that can be written, but {folder}: {reason}. Use another --output."
        )


def write_report(report: BenchReport, folder: Path) -> list[Path]:
    """Writes a CSV file for each table, the picture, and the report; files of the same names are replaced.

    Raises:
        StorageError: The folder cannot be written.
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
    """Returns all values of a table's rows."""
    return pd.DataFrame(list(table.rows)).to_csv(index=False)


def render_json(reports: Sequence[BenchReport]) -> str:
    """Returns every value of every table, by the table's name, and what else a reader must know."""
    content = [
        {
            "bench": report.bench,
            "command": report.command,
            **{
                # pandas writes what is missing as null.
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
    """Returns the report: how the machine behaved, the tables, the conditions, and the way to make it again."""
    verdicts = Counter(verdict_name(measurement) for measurement in report.measurements)
    lines = [f"# {report.title}", ""]
    lines += ["The machine while it timed: " + ", ".join(f"{n} {verdict}" for verdict, n in verdicts.most_common()), ""]
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
    lines += ["## Make it again", "", "```console", report.command, "```"]
    return "\n".join(lines) + "\n"


def _grid(table: BenchTable) -> list[str]:
    rows = [table.headings, ["---"] * len(table.headings), *table.cells()]
    return ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]


def _conditions(report: BenchReport) -> dict[str, str]:
    """Hardware, versions, date and configuration, in words."""
    first = report.measurements[0]
    times = sorted(measurement.measured_at for measurement in report.measurements)
    versions = {"hilo_nas": hilo_nas.__version__, **first.versions, "python": platform.python_version()}
    return {
        "device": f"{first.device.model} ({first.device.kind}), driver or kernel {first.device.driver}",
        "threads": str(first.threads),
        "system": f"{platform.platform()}{_memory()}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "timed": f"{times[0]} to {times[-1]}",
        "protocol": str(first.protocol),
        "settings": _plain(report.settings),
        "condition": _plain(first.condition.to_dict()),
        "environment": _plain(first.environment),
        "device while it timed": _plain(first.device_state),
    }


def _plain(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value, default=str)}" for name, value in values.items()) or _ABSENT


def _memory() -> str:
    names = ("SC_PAGE_SIZE", "SC_PHYS_PAGES")
    if not all(name in getattr(os, "sysconf_names", {}) for name in names):
        return ""
    return f", {os.sysconf(names[0]) * os.sysconf(names[1]) / 2**30:.0f} GiB of memory"
