"""`hilo-nas measure`: time networks side by side."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hilo_nas.cli.console import build_console, echo
from hilo_nas.cli.options import (
    ChannelsLast,
    Compile,
    CudaGraph,
    Device,
    Env,
    Format,
    Fused,
    IdleTimeout,
    Output,
    PrecisionIfGiven,
    Runtime,
    Seconds,
    StudiesDir,
    Threads,
    parse_duration,
)
from hilo_nas.errors import UsageError
from hilo_nas.figures import figure, with_spread

if TYPE_CHECKING:
    from hilo_nas.evaluation import Timing
    from hilo_nas.measurement import Condition

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Time networks side by side on this machine, in the same rounds, with ratios to the first.

A NETWORK is STUDY:TRIAL, timm:NAME, onnx:FILE, an architecture's .yaml file or litv2_small, litv2_medium, litv2_base.
All but onnx:FILE may end with @SIZE, the image size of that network: timm:efficientvit_b2@256."""
EXAMPLES = """Examples: hilo-nas measure litv2_small timm:resnet50 --batch-size 8
hilo-nas measure my-gpu:17 my-gpu:4 timm:efficientvit_b2@256 --format csv"""

_DEFAULTS = {"batch_size": 32, "img_size": 224}


def run(
    networks: Annotated[list[str], typer.Argument(metavar="NETWORK", help="What to time.")],
    device: Device = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per timed call; 32 if left out.")] = None,
    img_size: Annotated[int | None, typer.Option(help="Side of the images in pixels; 224 if left out.")] = None,
    precision: PrecisionIfGiven = None,
    channels_last: ChannelsLast = None,
    compile_: Compile = None,
    threads: Threads = None,
    runtime: Runtime = None,
    env: Env = None,
    cuda_graph: CudaGraph = None,
    fused: Fused = None,
    num_classes: Annotated[int, typer.Option(help="Outputs of the classifier.")] = 1000,
    seconds: Seconds = None,
    output: Output = Format.table,
    idle_timeout: IdleTimeout = "10m",
    studies_dir: StudiesDir = None,
) -> None:
    """Times networks."""
    from hilo_nas.aims import build_objective, foresee_objective
    from hilo_nas.cli.display import build_display
    from hilo_nas.evaluation import Inspect, evaluator_or_local, run_task, time_networks
    from hilo_nas.measurement import TORCH_ONLY
    from hilo_nas.named_networks import find_network

    options = {
        "batch_size": batch_size,
        "img_size": img_size,
        "precision": precision,
        "channels_last": channels_last,
        "compile": compile_,
        "threads": threads,
        "runtime": runtime,
        "env": env,
        "cuda_graph": cuda_graph,
        "fused": fused,
    }
    given = {name: value for name, value in options.items() if value is not None}
    faults = [f"seconds must be more than 0, but got {seconds:g}"] if seconds is not None and not seconds > 0 else []
    faults += [f"num_classes must be at least 1, but got {num_classes}"] if num_classes < 1 else []
    if faults:
        raise UsageError("\n".join(faults))
    idle_timeout_s = parse_duration(idle_timeout)
    assert idle_timeout_s is not None
    named = [find_network(name, studies_dir) for name in dict.fromkeys(networks)]
    studied = next((network.defaults for network in named if network.defaults), {})
    defaults = {name: value for name, value in studied.items() if name not in ("device", "num_classes", "threads")}
    fields = {**_DEFAULTS, **defaults, **given}
    if any("onnx" in network.subject for network in named) and "runtime" not in given:
        fields["runtime"] = "onnxruntime"
    if fields.get("runtime", "torch") != "torch":
        fields = {name: value for name, value in fields.items() if name in given or name not in TORCH_ONLY}
    device = device or studied.get("device")
    foresee_objective(fields, device)
    console = build_console() if output is Format.table else build_console(stderr=True)
    with (
        tempfile.TemporaryDirectory() as logs,
        build_display(console) as display,
        evaluator_or_local(None, Path(logs), purpose="hilo-nas measure", idle_timeout_s=idle_timeout_s) as evaluator,
    ):
        report = run_task(evaluator, Inspect(target=device), display)
        condition = build_objective(fields, report.target, report.threads)
        timing = time_networks(
            named, condition, evaluator, display, num_classes=num_classes, target=report.target, seconds=seconds
        )
    _print(timing, condition, output, console)
    if timing.failures:
        raise typer.Exit(max(error.exit_code for error in timing.failures.values()))


def _print(timing: Timing, condition: Condition, output: Format, console: Console) -> None:
    from hilo_nas.report import build_cohort_frame

    frame = build_cohort_frame(timing.measurements)
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
        _print_cohort_table(frame, console)
        first = next(iter(timing.measurements.values()))
        console.print(
            f"{condition.label()} on {first.device.model}, torch {first.device.torch}; ± half of the 95 % interval; "
            "ratio to the first, from paired rounds\n"
            "px: side of the images; p50 ms, p95 ms: time of one call as a caller waits for it; MiB: its peak memory",
            style="dim",
            soft_wrap=True,
        )
        _print_verdict(timing, console)
    if output is not Format.json:
        errors = build_console(stderr=True)
        for name, error in timing.failures.items():
            errors.print(f"{name} could not be timed: {error}", soft_wrap=True)


def _print_cohort_table(frame: Any, console: Console) -> None:
    """Prints a row per network: speed with its interval, ratio to the first, latency, memory."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("network")
    for name in ("px", "images/s", "ratio", "p50 ms", "p95 ms", "MiB", "verdict"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in frame.itertuples():
        memory = None if row.memory_mib != row.memory_mib else row.memory_mib
        table.add_row(
            row.name,
            str(row.img_size),
            with_spread(row.images_per_s, (row.images_per_s_high - row.images_per_s_low) / 2),
            with_spread(row.ratio, (row.ratio_high - row.ratio_low) / 2, decimals=2),
            figure(row.latency_ms_p50, 3),
            figure(row.latency_ms_p95, 3),
            figure(memory, 3),
            row.verdict,
        )
    console.print(table)


def _print_verdict(timing: Timing, console: Console) -> None:
    from hilo_nas.rounds import judge_cohort

    judgement = judge_cohort(timing.measurements.values())
    if judgement.verdict != "steady":
        text = f"[yellow]{escape(judgement.verdict)}:[/] {escape(judgement.text)}"
        console.print(text, soft_wrap=True, markup=True)
