"""`hilo-nas measure`: time networks in the same rounds."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from hilo_nas.cli.console import build_console, echo
from hilo_nas.cli.options import Format, Output
from hilo_nas.cli.settings import takes_settings
from hilo_nas.cli.tables import Column, print_fitting
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.text.figures import figure, with_spread

if TYPE_CHECKING:
    from hilo_nas.api import Measured

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Time networks side by side on this machine, in the same rounds, with ratios to the first.

A NETWORK is STUDY:TRIAL, timm:NAME, onnx:FILE, an architecture's .yaml file or litv2_small, litv2_medium, litv2_base.
All except onnx:FILE may end with @SIZE, the image size of that network: timm:efficientvit_b2@256. Options that are not
given come from the first STUDY:TRIAL; without one, they are 32 images of 224 pixels in fp32."""
EXAMPLES = """Examples:
hilo-nas measure litv2_small timm:resnet50 --batch-size 8
hilo-nas measure my-gpu:17 timm:efficientvit_b2@256 --format csv
hilo-nas measure litv2_small --batch-size 1 --set timing.threads=1"""


@takes_settings(
    *("timing.device", "timing.batch_size", "timing.img_size", "timing.precision", "timing.runtime", "timing.seconds")
)
def run(
    config: SearchConfig,
    networks: Annotated[list[str], typer.Argument(metavar="NETWORK", help="Networks to time.")],
    num_classes: Annotated[int, typer.Option(help="Number of classes.")] = 1000,
    output: Output = Format.table,
) -> None:
    """Times the networks and prints the results."""
    from hilo_nas import api
    from hilo_nas.cli.display import build_display

    console = build_console() if output is Format.table else build_console(stderr=True)
    with build_display(console) as display:
        measured = api.measure(networks, config=config, num_classes=num_classes, on_event=display)
    _print(measured, output, console)
    if measured.failures:
        raise typer.Exit(max(error.exit_code for error in measured.failures.values()))


def _print(timing: Measured, output: Format, console: Console) -> None:
    frame, condition = timing.to_frame(), timing.condition
    if output is Format.csv:
        echo(frame.to_csv(index=False), nl=False)
    elif output is Format.json:
        rows = json.loads(frame.to_json(orient="records"))
        measurements = {name: dataclasses.asdict(own) for name, own in timing.measurements.items()}
        content = {
            "condition": condition.to_dict(),
            "networks": [{**row, "measurement": measurements[row["name"]]} for row in rows],
            "failures": {name: str(error) for name, error in timing.failures.items()},
        }
        echo(json.dumps(content, indent=1))
    elif timing.measurements:
        _print_cohort_table(timing, frame.to_dict("records"), console)
        first = next(iter(timing.measurements.values()))
        console.print(
            f"{condition.label()} on {first.device.model}, torch {first.device.torch}; ±: half of a 95 % interval; "
            "ratio: to the first network, from paired rounds\n"
            "px: side of the images; p50 ms, p95 ms: time of one call; MiB: peak memory of one call",
            style="dim",
            soft_wrap=True,
        )
        _print_verdict(timing, console)
    if output is not Format.json:
        errors = build_console(stderr=True)
        for name, error in timing.failures.items():
            errors.print(f"{name} could not be timed: {error}", soft_wrap=True)


def _print_cohort_table(timing: Measured, rows: Sequence[Mapping[Any, Any]], console: Console) -> None:
    """Prints a row for each network: speed with interval, ratio to the first network, latency and memory."""
    columns = [
        Column("network", [row["name"] for row in rows], justify="left"),
        Column("px", [str(row["img_size"]) for row in rows], rank=3),
        Column(
            "images/s",
            [
                with_spread(own.images_per_s, own.images_per_s_half_width)
                for own in (timing.measurements[row["name"]] for row in rows)
            ],
        ),
        Column(
            "ratio", [with_spread(row["ratio"], (row["ratio_high"] - row["ratio_low"]) / 2, decimals=2) for row in rows]
        ),
        Column("p50 ms", [figure(row["latency_ms_p50"], 3) for row in rows], rank=2),
        Column("p95 ms", [figure(row["latency_ms_p95"], 3) for row in rows], rank=1),
        Column("MiB", [_memory(row["memory_mib"]) for row in rows], rank=4),
        Column("verdict", [row["verdict"] for row in rows], rank=1),
    ]
    print_fitting(columns, console)


def _memory(mib: float | None) -> str:
    return "-" if mib is None or math.isnan(mib) else figure(mib, 3)


def _print_verdict(timing: Measured, console: Console) -> None:
    from hilo_nas.measurement.verdicts import judge_cohort

    judgement = judge_cohort(timing.measurements.values())
    if judgement.verdict != "steady":
        text = f"[yellow]{escape(judgement.verdict)}:[/] {escape(judgement.text)}"
        console.print(text, soft_wrap=True, markup=True)
