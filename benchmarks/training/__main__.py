"""`python -m benchmarks.training`: time per part of a training step."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.command import run_benchmark
from hilo_nas.cli.bench.options import Shown
from hilo_nas.cli.console import build_console, echo
from hilo_nas.cli.options import Format
from hilo_nas.cli.settings import takes_settings
from hilo_nas.cli.tables import Column, print_columns
from hilo_nas.errors import UsageError
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.text.figures import figure

__all__ = ["main"]

HELP = """Train one network for some steps and report the time of each part: batch, gradient, update, scoring.

NETWORK is a network as for `hilo-nas measure`. Default: the first anchor of the space. The settings of the training are
those of a search: proxy.img_size, proxy.batch_size, proxy.precision."""
EXAMPLES = """Examples:
python -m benchmarks.training --data cifar10/train.tar
python -m benchmarks.training litv2_small --set proxy.precision=amp-bf16"""


@takes_settings("data.source", "timing.device", "proxy.img_size")
def run(
    config: SearchConfig,
    network: Annotated[str | None, typer.Argument(metavar="NETWORK", help="Network to train.")] = None,
    space: Annotated[
        str | None, typer.Option("--space", metavar="SPACE", help="Space that provides defaults. Default: litv2_cifar.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Number of steps to time as a whole, and again part by part.")] = 50,
    shown: Shown = Format.table,
) -> None:
    """Times the training steps and prints the results."""
    from benchmarks.training.training_steps import run_training
    from hilo_nas.cli.display import build_display
    from hilo_nas.evaluation.named_networks import find_network
    from hilo_nas.searching.configuration.resolve import plan_of
    from hilo_nas.searching.sweeps.listing import check_training
    from hilo_nas.space import load_space

    check_training(config)
    found = load_space(space or config.space or "litv2_cifar")
    if network is None and not found.anchors:
        raise UsageError(f"{found.name} has no anchor to train. Name a NETWORK.")
    subject: dict[str, Any] = (
        {"arch": found.anchors[0].arch.to_dict()} if network is None else find_network(network).subject
    )
    if config.proxy.img_size is None and "img_size" in subject:
        config = config.replace({"proxy.img_size": subject["img_size"]})
    plan = plan_of(config, found)
    progress = build_console(stderr=True)
    with tempfile.TemporaryDirectory() as logs, build_display(progress) as display:
        timed = run_training(subject, plan, config, display, steps=steps, log=Path(logs) / "training.log")
    _print(timed, network or found.anchors[0].name, plan.batch_size, shown)


def _print(found: dict[str, Any], network: str, batch_size: int, shown: Format) -> None:
    total = sum(found["parts_ms"].values())
    rows = [{"part": part, "ms": ms, "share": ms / total} for part, ms in found["parts_ms"].items()]
    if shown is Format.json:
        echo(json.dumps({"network": network, "batch_size": batch_size, **found, "parts": rows}, indent=1))
        return
    if shown is Format.csv:
        echo("\n".join(["part,ms,share", *(f"{row['part']},{row['ms']:.6g},{row['share']:.6g}" for row in rows)]))
        return
    console = build_console()
    columns = [
        Column("part", [row["part"] for row in rows], justify="left"),
        Column("ms a step", [figure(row["ms"], 3) for row in rows]),
        Column("share %", [f"{100 * row['share']:.1f}" for row in rows]),
    ]
    print_columns(columns, console)
    console.print(
        f"{network} at batch {batch_size} on {found['device']} ({found['model']}): trained at "
        f"{figure(found['images_per_s'])} images/s, {figure(found['step_ms'], 3)} ms a step; scored at "
        f"{figure(found['scored_images_per_s'])} images/s. {100 * (1 - rows[0]['share']):.1f} % of a step is compute.\n"
        "batch: selection, shift, flip and normalization of images. update: gradient clipping, AdamW, weight "
        "averaging. The parts are timed with synchronization, so on a GPU their sum may exceed the time of a step.",
        markup=False,
        soft_wrap=True,
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return run_benchmark("training", run, HELP, EXAMPLES, arguments)


if __name__ == "__main__":
    sys.exit(main())
