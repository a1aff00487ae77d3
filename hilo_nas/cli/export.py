"""`hilo-nas export`: a trial of a study or an architecture as files of a trainer or a runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hilo_nas.cli.console import echo
from hilo_nas.cli.options import StudiesDir
from hilo_nas.cli.writing import hint_of_writing
from hilo_nas.commands import command
from hilo_nas.errors import UsageError
from hilo_nas.export import (
    EXPORTERS,
    ExportOptions,
    ExportSource,
    Promise,
    choose_trial,
    export,
    load_source,
    promises_of,
    source_of_trial,
)
from hilo_nas.figures import figure, with_spread
from hilo_nas.proxy.kinds import metric_named
from hilo_nas.records import TrialRecord
from hilo_nas.rounds import verdict_name
from hilo_nas.study import open_study

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Write the files that a trainer or a runtime needs for a trial of a study, or for an architecture.

timm: a training config with the architecture, its provenance, and a launcher for timm's other scripts. onnx: one ONNX
file for deployment, verified against torch."""
EXAMPLES = """Examples: hilo-nas export my-gpu --trial 17 --format timm -o out/
hilo-nas export my-gpu --min-images-per-s 900 --format timm -o out/
hilo-nas export out/arch.yaml --format onnx --weights checkpoint.pth.tar -o deploy/"""


def run(
    source: Annotated[
        str, typer.Argument(metavar="STUDY|ARCH.yaml", help="A study's name or folder, or an architecture's file.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to.")],
    trial: Annotated[int | None, typer.Option(help="The trial's number.")] = None,
    min_images_per_s: Annotated[
        float | None, typer.Option(help="The most accurate trial that keeps at least this measured speed with 95 %.")
    ] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(help="The most accurate trial that keeps at most this 95th percentile with 95 %.")
    ] = None,
    knee: Annotated[bool, typer.Option("--knee", help="The trial at the knee of the front.")] = False,
    format_: Annotated[str, typer.Option("--format", help=f"One of: {', '.join(EXPORTERS)}.")] = "timm",
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="onnx: a checkpoint of timm's train.py, a state dict or .safetensors."),
    ] = None,
    num_classes: Annotated[int | None, typer.Option(help="Outputs of the classifier; for ARCH.yaml.")] = None,
    img_size: Annotated[int | None, typer.Option(help="Side of the images in pixels; for ARCH.yaml.")] = None,
    batch_size: Annotated[
        int, typer.Option(help="Images per training step, which learning rates are scaled to.")
    ] = 1024,
    epochs: Annotated[int, typer.Option(help="Epochs of the full training.")] = 300,
    force: Annotated[bool, typer.Option("--force", help="Replace files of an earlier export.")] = False,
    studies_dir: StudiesDir = None,
) -> None:
    """Exports a trial or an architecture."""
    if format_ not in EXPORTERS:
        raise UsageError(f"format must be one of {', '.join(EXPORTERS)}, but got {format_!r}")
    exporter = EXPORTERS[format_]
    if weights is not None and format_ != "onnx":
        raise UsageError(f"--weights goes with --format onnx, but got {format_}")
    asked = {"images_per_s": min_images_per_s, "latency_ms": max_latency_ms}
    limits = {name: bound for name, bound in asked.items() if bound is not None}
    promises: list[Promise]
    hints: list[str]
    if source.endswith((".yaml", ".yml")):
        if trial is not None or limits or knee:
            raise UsageError(f"--trial, --knee and limits choose from a study, but got the file {source}")
        promises, hints = [], []
        chosen = load_source(Path(source), num_classes=num_classes, img_size=img_size, weights=weights)
    else:
        if num_classes is not None or img_size is not None:
            raise UsageError("--num-classes and --img-size go with ARCH.yaml; a study has its own")
        study = open_study(source, studies_dir)
        record, manifest = choose_trial(study, number=trial, limits=limits, at_knee=knee), study.manifest
        promises, hints = promises_of(manifest, record, limits), hint_of_writing(study, manifest)
        chosen = source_of_trial(manifest, record, weights=weights)
    echo(_describe(chosen))
    for promise in promises:
        echo(promise.text if promise.is_sure else f"warning: {promise.text} only")
    files, notes = export(exporter, chosen, output, ExportOptions(batch_size=batch_size, epochs=epochs), force=force)
    for path in files:
        echo(f"wrote {path}")
    for note in notes:
        echo(note)
    echo(exporter.next_step(output))
    if format_ == "timm":
        for line in hints:
            echo(line)
        deploy = command("export", output / "arch.yaml", "--format", "onnx", "--weights", "CHECKPOINT", "-o", "DIR")
        echo(f"Deploy it: {deploy}")
        if chosen.record is not None and chosen.record.measurement and chosen.record.measurement.condition.fused:
            echo("Its speed is of its inference form: deploy what hilo_nas.models.prepare_for_inference returns.")


def _describe(source: ExportSource) -> str:
    """Returns what is exported and its figures, or what was assumed of it."""
    record = source.record
    if record is None:
        lines = [source.name, source.assumed]
        return "\n".join(line for line in lines if line)
    return f"{source.name}: {_figures(record)}"


def _figures(record: TrialRecord) -> str:
    measured, score = record.measurement, record.score
    assert measured is not None
    assert score is not None
    verdict = verdict_name(measured)
    metric = metric_named(score.metric)
    way = ", ".join((measured.condition.label(), *([verdict] if verdict else [])))  # protocol 1 gave none
    parts = [
        f"{with_spread(measured.images_per_s, measured.images_per_s_half_width)} images/s on {measured.device.model} "
        f"({way})",
        f"{metric.title} {metric.text(score.value)}",
        f"{figure((record.parameters or 0) / 1e6)} M parameters",
    ]
    return ", ".join(parts)
