"""Table of all studies, which `status` and `front` show if no study is given."""

from __future__ import annotations

import dataclasses

from rich.console import Console

from hilo_nas.cli.formats import echo_content
from hilo_nas.cli.options import Format
from hilo_nas.cli.tables import Column, print_fitting
from hilo_nas.errors import HiloNasError
from hilo_nas.study.stored_study import STUDIES_VARIABLE, StoredStudy, list_studies, studies_folder
from hilo_nas.text.commands import command

__all__ = ["print_studies"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Row:
    """Row of a study. Fields are None if the study cannot be read or has no such value."""

    study: str
    space: str | None = None
    device: str | None = None
    condition: str | None = None
    measured: int | None = None
    total: int | None = None
    front: int | None = None
    """Number of networks on the front."""
    created: str | None = None
    fault: str | None = None
    """Reason why the study cannot be read."""


def print_studies(output: Format, console: Console) -> None:
    """Prints a row for each study in the studies folder, and the reason if a study cannot be read."""
    rows = [_read(study) for study in list_studies()]
    if output is not Format.table:
        names = [field.name for field in dataclasses.fields(_Row)]
        echo_content([dataclasses.asdict(row) for row in rows], output, names=names)
        return
    if not rows:
        folder = f"{studies_folder()} (set ${STUDIES_VARIABLE} to use another folder)"
        console.print(f"no studies in {folder}\nStart one with: {command('search')}", soft_wrap=True)
        return
    _print_table(rows, console)


def _print_table(rows: list[_Row], console: Console) -> None:
    columns = [
        Column("study", [row.study for row in rows], justify="left"),
        Column("measured", ["-" if row.measured is None else f"{row.measured}/{row.total}" for row in rows]),
        Column("front", ["-" if row.front is None else str(row.front) for row in rows]),
        Column("space", ["cannot be read" if row.fault else row.space or "-" for row in rows], justify="left"),
        Column("condition", [row.condition or "-" for row in rows], rank=2, justify="left"),
        Column("device", [row.device or "-" for row in rows], rank=3, justify="left"),
        Column("created", [(row.created or "-")[:10] for row in rows], rank=1, justify="left"),
    ]
    print_fitting(columns, console)
    for row in rows:
        if row.fault:
            console.print(f"{row.study} cannot be read: {row.fault}", soft_wrap=True)


def _read(study: StoredStudy) -> _Row:
    try:
        manifest = study.manifest
        measured = sum(map(manifest.counts, study.records))
        front = len(study.front().members) if manifest.plan.declaration.gives_scores else None
    except (HiloNasError, OSError, ValueError) as error:
        return _Row(study=study.path.name, fault=str(error))
    return _Row(
        study=study.path.name,
        space=manifest.space.name,
        device=manifest.device.model,
        condition=manifest.objective.label(),
        measured=measured,
        total=manifest.trials,
        front=front,
        created=manifest.created_at,
    )
