"""`hilo-nas repair`: repair the damaged files of a study."""

from __future__ import annotations

from typing import Annotated

import typer

from hilo_nas.cli.completion import complete_study
from hilo_nas.cli.console import build_console
from hilo_nas.text.plurals import agree, count_of

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Repair the damaged files of a study, and name each of them.

Damaged files are moved to damaged/TIME in the study. Nothing is deleted. Whole records
stay as they are. Of a damaged record, the whole timings and scores are kept, and the
next search runs its trial again. The exit code is 1 if a file cannot be repaired."""

EXAMPLES = """Examples:
hilo-nas repair my-gpu --dry-run
hilo-nas repair my-gpu"""


def run(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="Name or folder of a study.", autocompletion=complete_study)
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only name the damaged files.")] = False,
) -> None:
    """Repairs the study and prints what was damaged."""
    from hilo_nas import api

    repaired = api.repair_study(study, dry_run=dry_run)
    console = build_console(soft_wrap=True)
    for damage in repaired.damages:
        console.print(f"{damage.file}: {damage.fault}\n  {damage.remedy}")
    if not repaired.damages:
        console.print(f"{repaired.study}: no file is damaged")
        return
    left = sum(not damage.is_repairable for damage in repaired.damages)
    parts = [f"{count_of(len(repaired.damages) - left, 'file')} {'to repair' if dry_run else 'repaired'}"]
    if left:
        parts.append(f"{left} left as {agree(left, 'it is', 'they are')}")
    console.print(f"{repaired.study}: {', '.join(parts)}")
    if repaired.folder is not None:
        console.print(f"Originals: {repaired.folder}")
    if not repaired.is_complete:
        raise typer.Exit(1)
