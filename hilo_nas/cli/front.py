"""`hilo-nas front`: the measured Pareto front of a study."""

from __future__ import annotations

import json

import typer
from rich.console import Console

from hilo_nas.cli.options import Format, Output, StudiesDir, StudyArgument
from hilo_nas.cli.tables import build_console, print_front_table
from hilo_nas.cli.text import describe_proxy, score_label
from hilo_nas.front import front_of, ties_of
from hilo_nas.study import StudyFolder, find_study

__all__ = ["HELP", "print_front", "run"]

HELP = """Show the front of a study: measured speed and proxy score, each with its spread.

Example: hilo-nas front my-gpu --format csv > front.csv"""


def run(
    study: StudyArgument,
    output: Output = Format.table,
    studies_dir: StudiesDir = None,
) -> None:
    """Prints the front."""
    from hilo_nas.report import build_front_frame, compare_anchors  # pandas takes its time

    folder = find_study(study, studies_dir)
    records = folder.load_records()
    if output is Format.csv:
        typer.echo(build_front_frame(records, ties=True).to_csv(index=False), nl=False)
    elif output is Format.json:
        standings = [
            {"anchor": standing.name, "trial": standing.number, "verdict": standing.verdict, "by": standing.by}
            for standing in compare_anchors(records)
        ]
        content = {
            "study": folder.name,
            "front": [record.to_dict() for record in front_of(records)],
            "tied": [{"trial": number, "tied_with": list(rivals)} for number, rivals in ties_of(records).items()],
            "anchors": standings,
        }
        typer.echo(json.dumps(content, indent=1))
    else:
        print_front(folder, build_console())


def print_front(folder: StudyFolder, console: Console) -> None:
    """Prints the front as a table, with the conditions of its figures and how it stands to each anchor."""
    from hilo_nas.report import compare_anchors

    manifest, records = folder.load_manifest(), folder.load_records()
    front = front_of(records)
    if not front:
        console.print(f"study {folder.name} has no complete trial yet", highlight=False)
        return
    scored = sum(record.state == "complete" for record in records)
    ties = ties_of(records)
    text = f"{folder.name}: {len(front)} of {scored} scored networks are on the front"
    if ties:
        text += f", {len(ties)} cannot be told from it (~)"
    console.print(text, markup=False)
    anchors = {anchor.arch.key() for anchor in manifest.space.anchors}
    by_number = {record.number: record for record in records}
    print_front_table([*front, *(by_number[number] for number in ties)], anchors, console, ties=ties)
    condition, device = manifest.objective, manifest.device
    fastest = front[0].measurement
    has_interval = fastest is not None and fastest.images_per_s_low is not None  # protocol 1 had none
    spread = "half of the 95 % interval" if has_interval else "robust spread of a timing round"
    console.print(
        f"images/s: {condition.label()} on {device.model}, torch {device.torch}; ± {spread}\n"
        "p50 ms, MiB: time of one call, peak memory of one call\n"
        f"{score_label(manifest.plan.score_metric)}: {describe_proxy(manifest)}; ± standard error\n"
        "* anchor   ~ beaten by the trials named, but with a probability below 95 %",
        style="dim",
        soft_wrap=True,
    )
    if manifest.speeds:
        console.print(f"speeds from the table {manifest.speeds}", style="dim", soft_wrap=True)
    if len({(m.form, m.protocol) for record in front if (m := record.measurement)}) > 1:
        console.print(
            f"These speeds were not all taken in the same way: hilo-nas remeasure {folder.name}", soft_wrap=True
        )
    for standing in compare_anchors(records):
        console.print(standing.sentence(), highlight=False, soft_wrap=True)
