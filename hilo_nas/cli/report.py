"""`hilo-nas report`: studies as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hilo_nas.cli.completion import complete_study
from hilo_nas.cli.console import echo

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Write a report of studies as one HTML file that needs no network access.

It has the front, all networks with their architectures and export commands, the
hypervolume, the importance of the knobs, and the time and conditions. Several studies
share their axes."""

EXAMPLES = """Examples:
hilo-nas report my-gpu --open
hilo-nas report my-gpu my-cpu -o compared.html
hilo-nas report my-gpu --png pictures/"""


def run(
    studies: Annotated[
        list[str],
        typer.Argument(metavar="STUDY...", help="Names or folders of studies.", autocompletion=complete_study),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="HTML file to write. Default: STUDY-report.html.", show_default=False
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
    png: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write the plots as PNG files to this folder.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files even if they are not an earlier report.")
    ] = False,
) -> None:
    """Writes the report and prints the paths of the files."""
    from hilo_nas.study.stored_study import open_view, slug

    opened = [open_view(study) for study in studies]
    path = output or Path(f"{'-'.join(slug(study.title) for study in opened[:3])}-report.html")

    from hilo_nas import api  # its imports are slow

    for written in api.write_report(opened, path, png_folder=png, force=force):
        echo(f"wrote {written}")
    if open_:
        import webbrowser

        webbrowser.open(path.absolute().as_uri())
