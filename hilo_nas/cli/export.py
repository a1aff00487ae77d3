"""`hilo-nas export`: a training config for a chosen trial."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hilo_nas.cli.console import echo
from hilo_nas.cli.options import StudiesDir, StudyArgument
from hilo_nas.cli.writing import hint_of_writing
from hilo_nas.errors import UsageError
from hilo_nas.export import FORMATS, choose_trial, export_trial
from hilo_nas.study import find_study

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = "Write a training config for a trial of a study, with its architecture and its provenance."
EXAMPLES = """Examples: hilo-nas export my-gpu --trial 17 --format timm -o out/
hilo-nas export my-gpu --min-images-per-s 900 --format timm -o out/"""


def run(
    study: StudyArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to.")],
    trial: Annotated[int | None, typer.Option(help="The trial's number.")] = None,
    min_images_per_s: Annotated[
        float | None, typer.Option(help="The most accurate trial of at least this measured speed.")
    ] = None,
    knee: Annotated[bool, typer.Option("--knee", help="The trial at the knee of the front.")] = False,
    format_: Annotated[str, typer.Option("--format", help=f"One of: {', '.join(FORMATS)}.")] = "timm",
    batch_size: Annotated[
        int, typer.Option(help="Images per training step, which learning rates are scaled to.")
    ] = 1024,
    epochs: Annotated[int, typer.Option(help="Epochs of the full training.")] = 300,
    studies_dir: StudiesDir = None,
) -> None:
    """Exports a trial."""
    if format_ not in FORMATS:
        raise UsageError(f"format must be one of {', '.join(FORMATS)}, but got {format_!r}")
    folder = find_study(study, studies_dir)
    record = choose_trial(folder, number=trial, min_images_per_s=min_images_per_s, at_knee=knee)
    for path in export_trial(folder.load_manifest(), record, output, batch_size=batch_size, epochs=epochs):
        echo(f"wrote {path}")
    echo(f"Train it with timm's train.py: python train.py -c {output / 'train.yaml'} --data-dir DATA")
    for line in hint_of_writing(folder, folder.load_manifest()):
        echo(line)
    if record.measurement is not None and record.measurement.condition.fused:
        echo("Its speed is of its inference form: deploy what hilo_nas.models.prepare_for_inference returns.")
