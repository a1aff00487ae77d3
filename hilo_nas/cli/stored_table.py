"""Status and front of a table that is stored without its records: what `table.csv` says."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hilo_nas.arch.config import describe_arch
from hilo_nas.cli.console import build_console
from hilo_nas.cli.formats import echo_content
from hilo_nas.cli.options import Format
from hilo_nas.cli.tables import Column, print_fitting
from hilo_nas.cli.text import describe_proxy, duration
from hilo_nas.proxy.kinds import metric_named
from hilo_nas.study.pareto import is_non_dominated
from hilo_nas.study.stored import StoredStudy
from hilo_nas.text.commands import command
from hilo_nas.text.figures import figure, with_spread
from hilo_nas.text.plurals import count_of

if TYPE_CHECKING:
    from hilo_nas.bench.table import Table, TableRow

__all__ = ["find_stored_table", "print_table_front", "print_table_status", "stored_table_path"]

_TABLE = "table.csv"


def stored_table_path(folder: StoredStudy) -> Path | None:
    """Returns the file of the table of a study that has one and no records; None for any other study."""
    path = folder.path / _TABLE
    return None if folder.trials_path.is_dir() or not path.is_file() else path


def find_stored_table(folder: StoredStudy) -> Table | None:
    """Returns the table of a study that has one and no records; None for any other study.

    Raises:
        RecordError: The table cannot be understood.
        StorageError: It cannot be read.
    """
    if stored_table_path(folder) is None:
        return None
    from hilo_nas.bench.table import load_table  # optuna takes its time

    return load_table(folder.path)


def print_table_front(folder: StoredStudy, table: Table, output: Format, console: Console) -> None:
    """Prints the networks of a table that no other beats in both speed and score, the fastest first.

    Numbers are the rows of `table.csv`, the first being 0.
    """
    budget = table.budgets[-1]
    scored = [(number, row) for number, row in enumerate(table.rows) if budget in row.scores]
    on_front = is_non_dominated([(row.images_per_s, row.scores[budget].top1) for _, row in scored])
    front = [item for item, keep in zip(scored, on_front, strict=True) if keep]
    front.sort(key=lambda item: -item[1].images_per_s)
    if output is Format.table:
        _print_text(folder, table, front, len(scored), console)
        return
    rows = [_to_dict(number, row, table) for number, row in front]
    if output is Format.json:
        echo_content({"study": folder.name, "networks": len(scored), "front": rows}, output)
    else:
        echo_content(rows, output, names=() if rows else ["row"])


def print_table_status(folder: StoredStudy, table: Table, output: Format) -> None:
    """Prints how much of a table is there and what it cost."""
    manifest, budgets = table.manifest, table.budgets
    verdicts = Counter(row.verdict for row in table.rows if row.verdict)
    scores = [row.scores[max(row.scores)] for row in table.rows if row.scores]
    content: dict[str, Any] = {
        "study": folder.name,
        "networks": len(table.rows),
        "scored": {images: sum(images in row.scores for row in table.rows) for images in budgets},
        "verdicts": dict(verdicts),
        "timing_s": sum(row.timing_seconds for row in table.rows),
        "training_s": sum(score.seconds for score in scores),
    }
    if output is not Format.table:
        echo_content(content, output)
        return
    console = build_console(soft_wrap=True)
    condition = manifest.objective
    console.print(f"{folder.name}: a table of {len(table.rows)} networks, stored without their records", markup=False)
    rows = {
        "space": f"{manifest.space.name} ({manifest.space.n_configs:,} settings)",
        "target": f"{condition.label()} on {manifest.device.model} (torch {manifest.device.torch})",
        "scored": ", ".join(f"{count} after {images:,} images" for images, count in content["scored"].items()),
        "spent": f"{duration(content['timing_s'])} timing, {duration(content['training_s'])} training",
        "machine": ", ".join(f"{count_of(count, 'timing')} {verdict}" for verdict, count in verdicts.most_common()),
    }
    for name, value in rows.items():
        console.print(f"  {name + ':':9} {value}", markup=False)
    console.print(f"Replay searches on it: {command('bench', 'samplers', folder.path)}", markup=False)


def _print_text(
    folder: StoredStudy, table: Table, front: Sequence[tuple[int, TableRow]], scored: int, console: Console
) -> None:
    from hilo_nas.bench.table import build_score

    manifest, budget = table.manifest, table.budgets[-1]
    are = "is" if len(front) == 1 else "are"
    metric = metric_named(manifest.plan.score_metric)
    console.print(f"{folder.name}: {len(front)} of {scored} networks of this table {are} on the front", markup=False)
    scores = [build_score(row, budget, table) for _, row in front]
    columns = [
        Column("row", [str(number) for number, _ in front]),
        Column("images/s", [with_spread(row.images_per_s, _half_width(row)) for _, row in front]),
        Column(
            metric.heading,
            [with_spread(s.value, s.half_width, scale=metric.scale, decimals=metric.decimals) for s in scores],
        ),
        Column("params M", [figure(row.parameters / 1e6, 3) for _, row in front], rank=1),
        Column("GMACs", [figure(row.macs / 1e9, 3) for _, row in front], rank=2),
        Column(
            "architecture", [describe_arch(table.space.decode(row.params)) for _, row in front], rank=3, justify="left"
        ),
    ]
    print_fitting(columns, console)
    condition, device = manifest.objective, manifest.device
    console.print(
        f"row: place in {_TABLE}, from 0; the records of this table are not stored, so none can be exported\n"
        f"images/s: {condition.label()} on {device.model}, torch {device.torch}\n"
        f"{metric.title}: {describe_proxy(manifest)}\n"
        "±: half of a 95 % interval\n"
        f"Replay searches on it: {command('bench', 'samplers', folder.path)}",
        style="dim",
        markup=False,
        soft_wrap=True,
    )


def _half_width(row: TableRow) -> float:
    if row.images_per_s_low is None or row.images_per_s_high is None:
        return row.images_per_s_spread
    return (row.images_per_s_high - row.images_per_s_low) / 2


def _to_dict(number: int, row: TableRow, table: Table) -> dict[str, Any]:
    fields = dataclasses.asdict(row)
    params, scores = fields.pop("params"), fields.pop("scores")
    found = {"row": number, **fields, **params}
    for images, score in scores.items():
        found |= {f"top1@{images}": score["top1"], f"se@{images}": score["top1_se"]}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in found.items()}
