"""`hilo-nas export`: files for a trainer, a runtime or a tool, from a trial, an architecture or a study."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from hilo_nas.cli.completion import complete_export_format, complete_study
from hilo_nas.cli.console import echo
from hilo_nas.export import ExportOptions

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Write files for a trainer, a runtime or a tool, from a trial, an architecture or a study.

timm: a training config with the architecture, its provenance, and a launcher for timm's other scripts. onnx: one ONNX
file, openvino: an OpenVINO file with its weights, torch-package: a file for torch.export.load; all three for
deployment, verified against torch. onnx-int8 and openvino-int8: the same quantized to INT8, calibrated with the images
of the study or of --data. optuna: a whole study as one SQLite file for optuna-dashboard."""
EXAMPLES = """Examples:
hilo-nas export my-gpu --trial 17 --format timm -o out/
hilo-nas export my-gpu --min-images-per-s 900 --format timm -o out/
hilo-nas export my-gpu@cpu --max-latency-ms 20 --format timm -o out/
hilo-nas export out/arch.yaml --format onnx --weights best.pth.tar -o deploy/
hilo-nas export my-gpu --trial 17 --format openvino-int8 -o deploy/
hilo-nas export my-gpu --format optuna -o my-gpu.db"""

_SIZED = re.compile(r"(?P<file>.+\.ya?ml)@(?P<img_size>[1-9][0-9]{0,5})")


def run(
    source: Annotated[
        str,
        typer.Argument(
            metavar="STUDY|ARCH.yaml[@SIZE]",
            help="Name or folder of a study (STUDY@CONDITION for the speeds of a further condition), or file of an "
            "architecture with the side of its images in pixels.",
            autocompletion=complete_study,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="PATH", help="Folder to write to. Formats with one file also accept a file."
        ),
    ],
    trial: Annotated[int | None, typer.Option(help="Number of the trial.")] = None,
    min_images_per_s: Annotated[
        float | None,
        typer.Option(
            help="Most accurate trial with at least this speed, with 95 % confidence; else the most likely one, with a "
            "warning."
        ),
    ] = None,
    max_latency_ms: Annotated[
        float | None,
        typer.Option(
            help="Most accurate trial with at most this 95th percentile, with 95 % confidence; else the most likely "
            "one, with a warning."
        ),
    ] = None,
    knee: Annotated[bool, typer.Option("--knee", help="Trial at the knee of the front.")] = False,
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            help="One of: timm, onnx, onnx-int8, openvino, openvino-int8, torch-package, optuna.",
            autocompletion=complete_export_format,
        ),
    ] = "timm",
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Formats of runtimes: checkpoint of timm's train.py, state dict or .safetensors file.",
        ),
    ] = None,
    num_classes: Annotated[int | None, typer.Option(help="Number of classes.")] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="timm: images per training step. Learning rates are scaled to it. "
            f"Default: {ExportOptions.batch_size}."
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help=f"timm: epochs of the full training. Default: {ExportOptions.epochs}.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="onnx-int8, openvino-int8: images for the calibration, as for a search. Default: those of the study.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files of an earlier export.")] = False,
) -> None:
    """Writes the files and prints their paths."""
    from hilo_nas import api
    from hilo_nas.cli.export_output import describe_source

    sized = _SIZED.fullmatch(source)
    exported = api.export_files(
        sized["file"] if sized else source,
        output,
        format=format_,
        trial=trial,
        knee=knee,
        min_images_per_s=min_images_per_s,
        max_latency_ms=max_latency_ms,
        weights=weights,
        num_classes=num_classes,
        img_size=int(sized["img_size"]) if sized else None,
        batch_size=batch_size,
        epochs=epochs,
        data=data,
        force=force,
    )
    echo(describe_source(exported.source))
    for promise in exported.promises:
        echo(promise.text if promise.is_sure else f"warning: {promise.text} only")
    for path in exported.files:
        echo(f"wrote {path}")
    for note in exported.notes:
        echo(note)
    echo(exported.next_step)
