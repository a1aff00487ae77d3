"""`hilo-nas measure`: time networks side by side, or a sample of a space for a search elsewhere."""

from __future__ import annotations

import dataclasses
import json
import shlex
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
from hilo_nas.commands import command
from hilo_nas.errors import UsageError
from hilo_nas.figures import figure, with_spread

if TYPE_CHECKING:
    from hilo_nas.measure import Cohort, Ruler
    from hilo_nas.measurement import Condition, Measurement

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Time networks side by side on this machine, in the same rounds, with ratios to the first.

A NETWORK is STUDY:TRIAL, timm:NAME, onnx:FILE, an architecture's .yaml file or litv2_small, litv2_medium, litv2_base.
With --sample, it is a SPACE, of which so many networks are timed into a table for `hilo-nas search --speeds`."""
EXAMPLES = """Examples: hilo-nas measure litv2_small timm:resnet50 --batch-size 8
hilo-nas measure my-gpu:17 my-gpu:4 --format csv
hilo-nas measure litv2_cifar --sample 1000 --save speeds/"""

_DEFAULT_BATCH_SIZE, _DEFAULT_IMG_SIZE = 32, 224


def run(
    networks: Annotated[list[str], typer.Argument(metavar="NETWORK", help="What to time; or one SPACE.")],
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
    sample: Annotated[int | None, typer.Option(metavar="N", help="Time N networks of the SPACE named.")] = None,
    save: Annotated[Path | None, typer.Option(metavar="DIR", help="Table of speeds, to make or to add to.")] = None,
    also: Annotated[
        list[str] | None,
        typer.Option("--also", metavar="FIELD=VALUE,...", help="A further condition of the sample: batch_size=1."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    output: Output = Format.table,
    idle_timeout: IdleTimeout = "10m",
    studies_dir: StudiesDir = None,
) -> None:
    """Times networks."""
    given = {
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
    fields = {name: value for name, value in given.items() if value is not None}
    faults = [f"seconds must be more than 0, but got {seconds:g}"] if seconds is not None and not seconds > 0 else []
    faults += [f"num_classes must be at least 1, but got {num_classes}"] if num_classes < 1 else []
    if sample is None:
        faults += ["--also goes with --sample"] if also else []
        if save is not None and (conditions := [*fields, *(["device"] if device else [])]):
            faults.append(f"with --save, the conditions are those of the table: leave out {', '.join(conditions)}")
    else:
        faults += [f"--sample must be at least 1, but got {sample}"] if sample < 1 else []
        faults += ["--sample needs --save DIR, where the table of speeds goes"] if save is None else []
        faults += [f"--sample takes one SPACE, but got {len(networks)}"] if len(networks) != 1 else []
    if faults:
        raise UsageError("\n".join(faults))
    idle_timeout_s = parse_duration(idle_timeout)
    assert idle_timeout_s is not None
    timing = _Timing(
        device=device, fields=fields, num_classes=num_classes, seconds=seconds, idle_timeout_s=idle_timeout_s
    )
    if sample is None and save is not None:
        _measure_into(networks, timing, save, studies_dir)
    elif sample is None:
        _measure_named(networks, timing, output, studies_dir)
    else:
        assert save is not None
        _measure_sample(networks[0], timing, sample, save, tuple(also or ()), seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Timing:
    """What both ways of measuring share."""

    device: str | None
    fields: dict[str, Any]
    num_classes: int
    seconds: float | None
    idle_timeout_s: float

    @property
    def env(self) -> str:
        return str(self.fields.get("env", "tuned"))

    def ruler(self, logs: Path, env: str) -> Ruler:
        """What times; checks first what needs no device, before a worker starts."""
        from hilo_nas.aims import foresee_objective
        from hilo_nas.measure import Ruler

        foresee_objective(self.fields, self.device)
        return Ruler(logs / "timing.log", purpose="hilo-nas measure", idle_timeout_s=self.idle_timeout_s, env=env)


def _measure_named(names: list[str], timing: _Timing, output: Format, studies_dir: Path | None) -> None:
    from hilo_nas.aims import build_objective
    from hilo_nas.cli.display import build_display
    from hilo_nas.measurement import TORCH_ONLY
    from hilo_nas.survey import find_network, time_networks

    networks = [find_network(name, studies_dir) for name in dict.fromkeys(names)]
    studied = next((network.defaults for network in networks if network.defaults), {})
    defaults = {name: value for name, value in studied.items() if name not in ("device", "num_classes", "threads")}
    fields = {"batch_size": _DEFAULT_BATCH_SIZE, "img_size": _DEFAULT_IMG_SIZE, **defaults, **timing.fields}
    if any("onnx" in network.subject for network in networks) and "runtime" not in timing.fields:
        fields["runtime"] = "onnxruntime"
    if fields.get("runtime", "torch") != "torch":
        fields = {name: value for name, value in fields.items() if name in timing.fields or name not in TORCH_ONLY}
    console = build_console() if output is Format.table else build_console(stderr=True)
    with (
        tempfile.TemporaryDirectory() as logs,
        build_display(console) as display,
        timing.ruler(Path(logs), str(fields.get("env", "tuned"))) as ruler,
    ):
        device, _, threads = ruler.read_device(timing.device or studied.get("device"), display)
        condition = build_objective(fields, device, threads)
        cohort = time_networks(
            networks, condition, ruler, display, num_classes=timing.num_classes, seconds_each=timing.seconds
        )
    _print(cohort, condition, output, console)
    if cohort.failures:
        raise typer.Exit(max(error.exit_code for error in cohort.failures.values()))


def _print(cohort: Cohort, condition: Condition, output: Format, console: Console) -> None:
    from hilo_nas.report import build_cohort_frame

    frame = build_cohort_frame(cohort.measurements)
    if output is Format.csv:
        echo(frame.to_csv(index=False), nl=False)
    elif output is Format.json:
        rows = json.loads(frame.to_json(orient="records"))
        measurements = {name: dataclasses.asdict(own) for name, own in cohort.measurements.items()}
        content = {
            "condition": condition.to_dict(),
            "networks": [{**row, "measurement": measurements[row["name"]]} for row in rows],
            "failures": {name: str(error) for name, error in cohort.failures.items()},
        }
        echo(json.dumps(content, indent=1))
    elif cohort.measurements:
        _print_cohort_table(frame, console)
        first = next(iter(cohort.measurements.values()))
        console.print(
            f"{condition.label()} on {first.device.model}, torch {first.device.torch}; ± half of the 95 % interval; "
            "ratio to the first, from paired rounds\n"
            "p50 ms, p95 ms, MiB: time of one call as a caller waits for it, peak memory of one call",
            style="dim",
            soft_wrap=True,
        )
        _print_verdict(cohort, console)
    if output is not Format.json:
        errors = build_console(stderr=True)
        for name, error in cohort.failures.items():
            errors.print(f"{name} could not be timed: {error}", soft_wrap=True)


def _print_cohort_table(frame: Any, console: Console) -> None:
    """Prints a row per network: speed with its interval, ratio to the first, latency, memory."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("network")
    for name in ("images/s", "ratio", "p50 ms", "p95 ms", "MiB", "verdict"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in frame.itertuples():
        memory = None if row.memory_mib != row.memory_mib else row.memory_mib
        table.add_row(
            row.name,
            with_spread(row.images_per_s, (row.images_per_s_high - row.images_per_s_low) / 2),
            with_spread(row.ratio, (row.ratio_high - row.ratio_low) / 2, decimals=2),
            figure(row.latency_ms_p50, 3),
            figure(row.latency_ms_p95, 3),
            figure(memory, 3),
            row.verdict,
        )
    console.print(table)


def _print_verdict(cohort: Cohort, console: Console) -> None:
    from hilo_nas.rounds import judge_cohort

    judgement = judge_cohort(cohort.measurements.values())
    if judgement.verdict != "steady":
        text = f"[yellow]{escape(judgement.verdict)}:[/] {escape(judgement.text)}"
        console.print(text, soft_wrap=True, markup=True)


def _measure_sample(name: str, timing: _Timing, sample: int, save: Path, also: tuple[str, ...], seed: int) -> None:
    from hilo_nas.aims import build_aims, build_objective, foresee_objective
    from hilo_nas.cli.display import build_display
    from hilo_nas.space import load_space
    from hilo_nas.speeds import SpeedFolder
    from hilo_nas.survey import sample_speeds

    space = load_space(name)
    defaults = {key: space.defaults[key] for key in ("batch_size", "img_size") if key in space.defaults}
    fields = {"batch_size": _DEFAULT_BATCH_SIZE, "img_size": _DEFAULT_IMG_SIZE, **defaults, **timing.fields}
    _check_also(also, foresee_objective(fields, timing.device), name, save)
    folder = SpeedFolder(save)
    console = build_console()
    with (
        tempfile.TemporaryDirectory() as logs,
        build_display(console) as display,
        timing.ruler(Path(logs), timing.env) as ruler,
    ):
        device, _, threads = ruler.read_device(timing.device, display)
        objective = build_objective(fields, device, threads)
        records = sample_speeds(
            space,
            build_aims(objective, also).conditions,
            folder,
            ruler,
            display,
            networks=sample,
            num_classes=timing.num_classes,
            seed=seed,
            seconds_each=timing.seconds,
        )
    folder.write_csv_file()
    timed = [record for record in records if record.measurement]
    found = [record.measurement for record in timed if record.measurement]
    span = f": {_span_of(found)} at {objective.label()}" if found else ""
    console.print(
        f"{len(timed)} networks of {space.name} are timed{span}. Table: {save}\n"
        f"Next, where the images are:\n  {command('search', name, '--speeds', save, '--device', 'cuda')} --data DATA",
        markup=False,
        soft_wrap=True,
    )


def _span_of(found: list[Measurement]) -> str:
    """From the least to the most of each figure."""
    texts = []
    for name, unit in (("images_per_s", "images/s"), ("latency_ms_p50", "ms p50"), ("latency_ms_p95", "ms p95")):
        values = [getattr(measurement, name) for measurement in found]
        texts.append(f"{figure(min(values), 3)} to {figure(max(values), 3)} {unit}")
    return ", ".join(texts)


def _measure_into(names: list[str], timing: _Timing, save: Path, studies_dir: Path | None) -> None:
    from hilo_nas.cli.display import build_display
    from hilo_nas.speeds import SpeedFolder
    from hilo_nas.survey import add_speeds, find_network

    folder = SpeedFolder(save)
    objective = folder.load_setting().conditions[0]
    networks = [find_network(name, studies_dir) for name in dict.fromkeys(names)]
    console = build_console()
    with (
        tempfile.TemporaryDirectory() as logs,
        build_display(console) as display,
        timing.ruler(Path(logs), objective.env) as ruler,
    ):
        ruler.read_device(objective.device, display)
        records = add_speeds(networks, folder, ruler, display, seconds_each=timing.seconds)
    folder.write_csv_file()
    for record in records:
        speed = figure(record.measurement.images_per_s) if record.measurement else "no"
        console.print(f"{record.key}: {speed} images/s at {objective.label()}", soft_wrap=True)
    if len(records) < len(networks):
        raise typer.Exit(1)


def _check_also(also: tuple[str, ...], objective: Condition, space: str, save: Path) -> None:
    """Raises UsageError for a sample's wrong further conditions, or limits on them, before a worker starts."""
    from hilo_nas.aims import build_aims

    build_aims(objective, also)
    if limited := [text for text in also if build_aims(objective, [text]).limits]:
        options = " ".join(f"--also {shlex.quote(text)}" for text in limited)
        raise UsageError(
            f"a sample holds fast and slow networks alike: its --also must be without limits, but got {options}. Leave "
            f"them out here, and give them to the search: {command('search', space, '--speeds', save)} {options}"
        )
