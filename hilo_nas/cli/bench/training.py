"""`hilo-nas bench training`: what share of a proxy training's step is spent on its batch, and what on computing."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from hilo_nas.cli.bench.running import Output
from hilo_nas.cli.console import build_console, echo
from hilo_nas.cli.options import (
    Background,
    CacheDir,
    ClassFrom,
    Device,
    Format,
    IdleTimeout,
    SkipBroken,
    StudiesDir,
    ValueRange,
    parse_duration,
    reading_fields,
)
from hilo_nas.errors import UsageError
from hilo_nas.figures import figure

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Train one network for some steps and say where their time goes: batch, gradient, update, scoring.

A NETWORK is what `hilo-nas measure` takes; the first anchor of the space if left out."""
EXAMPLES = "Example: hilo-nas bench training --device cuda --data cifar10/train.tar --precision amp-bf16"


def run(
    network: Annotated[str | None, typer.Argument(metavar="NETWORK", help="What to train.")] = None,
    space: Annotated[
        str, typer.Option("--space", metavar="SPACE", help="Gives network, size and batch.")
    ] = "litv2_cifar",
    data: Annotated[
        str, typer.Option("--data", metavar="DATA", help="Images, as `hilo-nas search` takes them.")
    ] = "digits",
    device: Device = None,
    img_size: Annotated[int | None, typer.Option(help="Side of the training images in pixels.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per training step.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, amp-bf16 or amp-fp16.")] = "fp32",
    steps: Annotated[int, typer.Option(help="Steps timed as they run, and as many with their parts apart.")] = 50,
    output: Output = Format.table,
    class_from: ClassFrom = None,
    background: Background = None,
    value_range: ValueRange = None,
    skip_broken: SkipBroken = None,
    cache_dir: CacheDir = None,
    studies_dir: StudiesDir = None,
    idle_timeout: IdleTimeout = "10m",
) -> None:
    """Trains and times."""
    from hilo_nas.bench.training import bench_training
    from hilo_nas.cli.display import build_display
    from hilo_nas.data.reading import ReadOptions
    from hilo_nas.measurement import ProxyPlan
    from hilo_nas.named_networks import find_network
    from hilo_nas.space import load_space

    the_space = load_space(space)
    defaults = the_space.defaults
    if network is None and not the_space.anchors:
        raise UsageError(f"{space} has no anchor to train. Name a NETWORK.")
    subject: dict[str, Any] = (
        {"arch": the_space.anchors[0].arch.to_dict()} if network is None else find_network(network, studies_dir).subject
    )
    plan = ProxyPlan(
        img_size=img_size or subject.get("img_size") or defaults.get("proxy_img_size", defaults.get("img_size", 224)),
        batch_size=batch_size or defaults.get("proxy_batch_size", 128),
        images=1,
        precision=precision,
    )
    idle_timeout_s = parse_duration(idle_timeout)
    assert idle_timeout_s is not None
    reading = reading_fields(class_from, background, value_range, skip_broken)
    options = ReadOptions(**{name: value for name, value in reading.items() if value is not None})
    progress = build_console(stderr=True)
    with tempfile.TemporaryDirectory() as logs, build_display(progress) as display:
        found = bench_training(
            subject,
            plan,
            data,
            device,
            display,
            steps=steps,
            cache_dir=cache_dir,
            options=options,
            log=Path(logs) / "training.log",
            idle_timeout_s=idle_timeout_s,
        )
    _print(found, network or the_space.anchors[0].name, plan.batch_size, output)


def _print(found: dict[str, Any], network: str, batch_size: int, output: Format) -> None:
    total = sum(found["parts_ms"].values())
    rows = [{"part": part, "ms": ms, "share": ms / total} for part, ms in found["parts_ms"].items()]
    if output is Format.json:
        echo(json.dumps({"network": network, "batch_size": batch_size, **found, "parts": rows}, indent=1))
        return
    if output is Format.csv:
        echo("\n".join(["part,ms,share", *(f"{row['part']},{row['ms']:.6g},{row['share']:.6g}" for row in rows)]))
        return
    console = build_console()
    table = Table(box=box.SIMPLE, pad_edge=False)
    for heading in ("part", "ms a step", "share %"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for row in rows:
        table.add_row(row["part"], figure(row["ms"], 3), f"{100 * row['share']:.1f}")
    console.print(table)
    console.print(
        f"{network} at batch {batch_size} on {found['device']} ({found['model']}): trained at "
        f"{figure(found['images_per_s'])} images/s, {figure(found['step_ms'], 3)} ms a step; scored at "
        f"{figure(found['scored_images_per_s'])} images/s. {100 * (1 - rows[0]['share']):.1f} % of a step is compute.\n"
        "batch: images taken, shifted, mirrored, normalised. update: clipping, AdamW, averaging. The device is waited "
        "for around each part, so on a GPU the parts may sum to more than a step takes.",
        markup=False,
        soft_wrap=True,
    )
