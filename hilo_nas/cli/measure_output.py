"""Output of `hilo-nas measure`: networks that were timed side by side."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from hilo_nas.cli.console import build_console, echo
from hilo_nas.cli.options import Format
from hilo_nas.cli.tables import Column, print_fitting
from hilo_nas.measurement.verdicts import judge_cohort
from hilo_nas.text.figures import figure, with_spread

if TYPE_CHECKING:
    from hilo_nas.api import Measured

__all__ = ["print_measured"]


def print_measured(timing: Measured, output: Format, console: Console) -> None:
    """Prints the timings and the failures.

    Args:
        timing: Networks that were timed in the same rounds.
        output: Output format.
        console: Console for the table.
    """
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
        if timing.tried:
            content["tried"] = {
                name: {runtime: dataclasses.asdict(own) for runtime, own in found.items()}
                for name, found in timing.tried.items()
            }
        echo(json.dumps(content, indent=1))
    elif timing.measurements:
        _print_cohort_table(timing, frame.to_dict("records"), console)
        first = next(iter(timing.measurements.values()))
        console.print(
            f"{_label(timing)} on {first.device.model}, torch {first.device.torch}; ±: half of a 95 % interval; "
            "ratio: to the first network, from paired rounds\n"
            "px: side of the images; p50 ms, p95 ms: time of one call; MiB: peak memory of one call in torch"
            + "\nruntime: the fastest of those that this machine has for the network"
            * bool(timing.tried),
            style="dim",
            soft_wrap=True,
        )
        _print_verdict(timing, console)
    if output is not Format.json:
        errors = build_console(stderr=True)
        for name, error in timing.failures.items():
            errors.print(f"{name} could not be timed: {error}", soft_wrap=True)


def _label(timing: Measured) -> str:
    """Returns the label of the condition, with the precision of the networks if they differ from the reference."""
    own, precisions = timing.condition, {item.condition.precision for item in timing.measurements.values()}
    networks = precisions.pop() if len(precisions) == 1 else own.precision
    return own.label() if networks == own.precision else f"{own.label()}, networks in {networks}"


def _print_cohort_table(timing: Measured, rows: Sequence[Mapping[Any, Any]], console: Console) -> None:
    """Prints a row for each network: speed with interval, ratio to the first network, latency and memory.

    The runtime of each network is a column if networks can differ in it.
    """
    runtimes = [row["runtime"] for row in rows]
    columns = [
        Column("network", [row["name"] for row in rows], justify="left"),
        *([Column("runtime", runtimes, justify="left")] if timing.tried or len(set(runtimes)) > 1 else []),
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
    judgement = judge_cohort(timing.measurements.values())
    if judgement.verdict != "steady":
        text = f"[yellow]{escape(judgement.verdict)}:[/] {escape(judgement.text)}"
        console.print(text, soft_wrap=True, markup=True)
