"""Output of `hilo-nas status` for a study."""

from __future__ import annotations

import dataclasses

from rich.console import Console
from rich.markup import escape

from hilo_nas.cli.console import build_console
from hilo_nas.cli.formats import echo_content
from hilo_nas.cli.hints import resume_hint
from hilo_nas.cli.options import Format
from hilo_nas.study.progress import Progress, describe_conditions, describe_progress, reasons_of, shortened
from hilo_nas.study.stored_study import StoredStudy, open_study

__all__ = ["print_status"]


def print_status(name: str, output: Format) -> None:
    """Prints the progress of a study, given by its name or folder."""
    study = open_study(name)
    if output is Format.table:
        _print_progress(study, Progress.of(study), build_console(soft_wrap=True))
    else:
        echo_content(dataclasses.asdict(Progress.of(study)), output)


def _print_progress(study: StoredStudy, progress: Progress, console: Console) -> None:
    manifest = study.manifest
    console.print(
        f"[bold]{escape(progress.study)}[/]: {progress.measured} of {progress.total} networks measured, "
        f"{len(progress.front)} on the front",
        markup=True,
    )
    for name, value in {**describe_conditions(manifest), **describe_progress(manifest, progress)}.items():
        console.print(f"  {name + ':':9} {value}")
    for reason, numbers in reasons_of(study.records, manifest.limits_in_force).items():
        console.print(f"  {reason}: trial {shortened(numbers)}")
    if progress.measured < progress.total:
        console.print(f"Resume with: {resume_hint(study.address).command}")
