"""Options and arguments that several commands share; one that means something else in a command stays in its file."""

from __future__ import annotations

import enum
import math
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from hilo_nas.cli.completion import complete_space, complete_study
from hilo_nas.data.reading import parse_range

__all__ = [
    "Background",
    "BatchSize",
    "CacheDir",
    "ChannelsLast",
    "CheckpointMib",
    "ClassFrom",
    "Compile",
    "CudaGraph",
    "Data",
    "Device",
    "Env",
    "Format",
    "Fused",
    "IdleTimeout",
    "ImgSize",
    "Jobs",
    "MaxGmacs",
    "MaxParamsM",
    "OptionalSpace",
    "OptionalStudy",
    "Output",
    "Precision",
    "PrecisionIfGiven",
    "ProxyBatchSize",
    "ProxyImgSize",
    "Runtime",
    "Seconds",
    "SkipBroken",
    "SpaceArgument",
    "StudiesDir",
    "StudyArgument",
    "Threads",
    "ValueRange",
    "parse_duration",
    "reading_fields",
]


class Format(enum.StrEnum):
    """How a result is written."""

    table = "table"
    csv = "csv"
    json = "json"


SpaceArgument = Annotated[
    str, typer.Argument(metavar="SPACE", help="A shipped space's name, or a YAML file.", autocompletion=complete_space)
]
OptionalSpace = Annotated[
    str | None,
    typer.Argument(metavar="SPACE", help="A shipped space's name, or a YAML file.", autocompletion=complete_space),
]
StudyArgument = Annotated[
    str, typer.Argument(metavar="STUDY", help="A study's name, or its folder.", autocompletion=complete_study)
]
OptionalStudy = Annotated[
    str | None,
    typer.Argument(
        metavar="STUDY",
        help="A study's name, or its folder; all studies if left out.",
        autocompletion=complete_study,
        show_default=False,
    ),
]
StudiesDir = Annotated[
    Path | None,
    typer.Option("--studies-dir", metavar="DIR", help="Where studies lie; $HILO_NAS_STUDIES_DIR, else ./studies."),
]
Output = Annotated[Format, typer.Option("--format", help="How to write it.")]

_PRECISION = typer.Option(help="fp32, bf16, fp16, amp-bf16 or amp-fp16.")

Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:N or mps; the fastest kind at hand if left out.")]
Precision = Annotated[str, _PRECISION]
PrecisionIfGiven = Annotated[str | None, _PRECISION]
"""Where a space, a study or a network's own study says it otherwise."""
Threads = Annotated[int | None, typer.Option(help="CPU threads of the timed networks.")]
ChannelsLast = Annotated[
    bool | None, typer.Option("--channels-last/--no-channels-last", help="Memory layout of the timed networks.")
]
Compile = Annotated[bool | None, typer.Option("--compile/--no-compile", help="Time networks after torch.compile.")]
Runtime = Annotated[str | None, typer.Option(help="torch, onnxruntime or openvino: what runs the networks.")]
Env = Annotated[str | None, typer.Option("--env", help="tuned or default: thread and allocator settings while timing.")]
CudaGraph = Annotated[bool | None, typer.Option("--cuda-graph/--no-cuda-graph", help="Time replays of a CUDA graph.")]
Fused = Annotated[
    bool | None,
    typer.Option("--fused/--no-fused", help="Time networks in their inference form (the default), or as trained."),
]
BatchSize = Annotated[int | None, typer.Option(help="Images per timed call.")]
ImgSize = Annotated[int | None, typer.Option(help="Side of the timed images in pixels.")]
Seconds = Annotated[float | None, typer.Option(help="Time each network for at most so many seconds; 2.5.")]
IdleTimeout = Annotated[str, typer.Option(metavar="TIME", help="A timing process silent for so long is ended.")]

Data = Annotated[str, typer.Option("--data", metavar="DATA", help="Training images, as `hilo-nas search` takes them.")]
ClassFrom = Annotated[
    str | None,
    typer.Option(
        metavar="first|last|path",
        help="Folders that name a class: first level (the default), innermost, or all levels.",
    ),
]
Background = Annotated[
    str | None, typer.Option(metavar="COLOR", help="Color behind transparent images: white by default, or #RRGGBB.")
]
ValueRange = Annotated[
    str | None,
    typer.Option(
        metavar="LOW,HIGH", help="Values of images above 8 bits that become black and white; the data's own by default."
    ),
]
SkipBroken = Annotated[
    bool | None,
    typer.Option("--skip-broken", help="Leave out broken images, and classes of fewer than two distinct images."),
]
ProxyImgSize = Annotated[int | None, typer.Option(help="Side of the training images in pixels.")]
ProxyBatchSize = Annotated[int | None, typer.Option(help="Images per training step.")]
CacheDir = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Cache of decoded images; $HILO_NAS_CACHE_DIR if left out.")
]
Jobs = Annotated[
    int | None, typer.Option(help="Trainings at once; as many as there are cores on a CPU, one elsewhere.")
]
CheckpointMib = Annotated[
    float, typer.Option(help="Disk for trainings that may be gone on with, in MiB; 0 keeps none.")
]
MaxGmacs = Annotated[float | None, typer.Option(help="Only networks of at most so many billion multiply-adds.")]
MaxParamsM = Annotated[float | None, typer.Option(help="Only networks of at most so many million parameters.")]


def reading_fields(
    class_from: str | None, background: str | None, value_range: str | None, skip_broken: bool | None
) -> dict[str, Any]:
    """Returns the options that say how images are read, as fields of a request; None stays None.

    Raises:
        UsageError: The range is not two numbers.
    """
    return {
        "class_from": class_from,
        "background": background,
        "value_range": None if value_range is None else parse_range(value_range),
        "skip_broken": skip_broken,
    }


_UNITS = (86400, 3600, 60, 1)
"""Seconds of a day, an hour, a minute and a second."""


def parse_duration(text: str | None) -> float | None:
    """Returns seconds of `90`, `90s`, `30m`, `1h30m` or `1d`; None stays None.

    Raises:
        typer.BadParameter: The text is no duration.
    """
    if text is None:
        return None
    text = text.strip()
    number = r"(\d+(?:\.\d+)?)\s*"
    form = rf"(?:{number}d\s*)?(?:{number}h\s*)?(?:{number}m\s*)?(?:{number}s)?"
    parts = re.fullmatch(form, f"{text}s" if re.fullmatch(r"[\d.]+", text) else text)
    seconds = sum(float(part or 0) * unit for part, unit in zip(parts.groups(), _UNITS, strict=True)) if parts else 0
    if not seconds > 0 or math.isinf(seconds):
        raise typer.BadParameter(f"must be a duration above 0 such as 90s, 30m or 1h30m, but got {text!r}")
    return seconds
