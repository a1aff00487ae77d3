"""`hilo-nas search`: run a search, or go on with one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from hilo_nas.cli.config import build_config
from hilo_nas.cli.console import build_console
from hilo_nas.cli.hints import hints_after_search, resume_hint
from hilo_nas.cli.options import (
    Background,
    BatchSize,
    CacheDir,
    ChannelsLast,
    ClassFrom,
    Compile,
    CudaGraph,
    Device,
    Env,
    Fused,
    ImgSize,
    PrecisionIfGiven,
    ProxyBatchSize,
    ProxyImgSize,
    Runtime,
    Seconds,
    SkipBroken,
    StudiesDir,
    Threads,
    ValueRange,
    parse_duration,
    reading_fields,
)
from hilo_nas.cli.text import duration
from hilo_nas.proxy.kinds import proxy_names

if TYPE_CHECKING:
    from hilo_nas.events import SearchFinished
    from hilo_nas.search import SearchConfig
    from hilo_nas.study import Study

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Search for networks that are fast on this machine and accurate, and keep the front.

Without arguments: the shipped space litv2_digits on scikit-learn's digits, on the device at hand; a second call goes
on. With --study alone: goes on with that study."""
EXAMPLES = """Examples: hilo-nas search
hilo-nas search litv2_cifar --device cuda --data cifar10/train.tar --study my-gpu --trials 60
hilo-nas search --study my-gpu --trials 40
hilo-nas search --proxy mine.py:score --proxy-images 2000 --study mine
hilo-nas search litv2_cifar --proxy none --trials 1000 --study edge-box
hilo-nas search litv2_cifar --speeds edge-box --device cuda --data cifar10/train.tar"""

_ENDINGS = {
    "total": "all done",
    "timeout": "the time is up",
    "exhausted": "the space holds no further network within the limits",
}
_TARGET, _PROXY, _STUDY = "What is measured", "What is trained", "The study"


def run(
    space: Annotated[
        str | None, typer.Argument(metavar="SPACE", help="A shipped space's name, or a YAML file.")
    ] = None,
    study: Annotated[
        str | None,
        typer.Option("--study", metavar="NAME", help="The study to make or go on with.", rich_help_panel=_STUDY),
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Networks to measure, on top of those it has.")] = None,
    until_trials: Annotated[int | None, typer.Option(help="Networks to measure in all; safe to repeat.")] = None,
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="Start no further trial after this: 90s, 30m, 1h30m.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost, from a few networks tried for a moment.")
    ] = False,
    device: Device = None,
    batch_size: BatchSize = None,
    img_size: ImgSize = None,
    precision: PrecisionIfGiven = None,
    channels_last: ChannelsLast = None,
    compile_: Compile = None,
    threads: Threads = None,
    runtime: Runtime = None,
    env: Env = None,
    cuda_graph: CudaGraph = None,
    fused: Fused = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--also",
            metavar="FIELD=VALUE,...",
            help="A further condition, as it differs from the first: batch_size=1,max_latency_ms=20.",
        ),
    ] = None,
    min_images_per_s: Annotated[float | None, typer.Option(help="Train only networks of at least this speed.")] = None,
    max_latency_ms: Annotated[float | None, typer.Option(help="Greatest raw p95 of a call, in milliseconds.")] = None,
    max_memory_mib: Annotated[float | None, typer.Option(help="Greatest peak memory of a call, in MiB.")] = None,
    seconds: Seconds = None,
    networks: Annotated[
        str | None,
        typer.Option(metavar="NETWORK,...", help="Networks to time with --proxy none: presets, STUDY:TRIAL, a.yaml."),
    ] = None,
    speeds: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="Copy the timings of a study of another machine, and time nothing here."),
    ] = None,
    reuse: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="Copy this study's scores and comparable timings; try its networks first."),
    ] = None,
    peers: Annotated[
        str | None,
        typer.Option(
            metavar="timm:NAME,...",
            help="Networks of others to time and train beside the space's; a stored study takes on further ones.",
        ),
    ] = None,
    remeasure: Annotated[
        bool | None,
        typer.Option("--remeasure/--no-remeasure", help="Time contended networks and the front again; the default."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help="Training images: digits, a folder or archive of class folders, torch/NAME, hfds/NAME, wds/..., "
            "module:function.",
        ),
    ] = None,
    val_data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Images to score on; a part of --data is held out if left out.")
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX", help="Hold images out together whose paths it matches alike (its first group, if any)."
        ),
    ] = None,
    class_from: ClassFrom = None,
    background: Background = None,
    value_range: ValueRange = None,
    skip_broken: SkipBroken = None,
    cache_dir: CacheDir = None,
    proxy: Annotated[
        str | None,
        typer.Option(
            "--proxy",
            metavar="PROXY",
            help=f"What scores a network: {', '.join(proxy_names())} or module:function.",
        ),
    ] = None,
    proxy_img_size: ProxyImgSize = None,
    proxy_batch_size: ProxyBatchSize = None,
    proxy_images: Annotated[int | None, typer.Option(help="Training images seen per network.")] = None,
    proxy_precision: Annotated[str | None, typer.Option(help="fp32, amp-bf16 or amp-fp16.")] = None,
    rungs: Annotated[
        int | None,
        typer.Option(help="How often a training is scored; at each, only the best go on. 1 for no stopping."),
    ] = None,
    eta: Annotated[
        float | None,
        typer.Option(help="One of how many networks continues at a rung; 2 by default, 0 for all of them."),
    ] = None,
    raise_budget: Annotated[
        int | None,
        typer.Option(
            metavar="IMAGES", help="A larger budget for a stored study; its trainings go on from their rungs."
        ),
    ] = None,
    confirm: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Train the front, anchors, peers and those near it with N further seeds at the end."
        ),
    ] = None,
    checkpoint_mib: Annotated[
        float | None,
        typer.Option(help="Disk space for checkpoints in MiB; 0 keeps none.", show_default="2048"),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="top1; balanced: the mean of the classes' recalls; or likelihood: the probability given to the true "
            "class."
        ),
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="gp, tpe, nsga2 or random.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the search and of the trainings.")] = None,
    idle_timeout: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="A worker silent for so long is ended and its trial failed.", show_default="10m"
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings in YAML, as `hilo-nas config` prints them, or a manifest.yaml."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="One setting, over those of --config; repeat it."),
    ] = None,
    studies_dir: StudiesDir = None,
) -> None:
    """Runs the search."""
    flags = {
        "space": space,
        "study": study,
        "studies_dir": studies_dir,
        "trials": trials,
        "until_trials": until_trials,
        "timeout_s": parse_duration(timeout),
        "sampler": sampler,
        "seed": seed,
        "device": device,
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
        "also": tuple(also or ()),
        "min_images_per_s": min_images_per_s,
        "max_latency_ms": max_latency_ms,
        "max_memory_mib": max_memory_mib,
        "timing_s": seconds,
        "speeds": speeds,
        "reuse": reuse,
        "networks": () if networks is None else tuple(name.strip() for name in networks.split(",")),
        "peers": () if peers is None else tuple(peer.strip() for peer in peers.split(",")),
        "remeasure": remeasure,
        "data": data,
        "val_data": val_data,
        "group_by": group_by,
        **reading_fields(class_from, background, value_range, skip_broken),
        "cache_dir": cache_dir,
        "proxy": proxy,
        "proxy_img_size": proxy_img_size,
        "proxy_batch_size": proxy_batch_size,
        "proxy_images": proxy_images,
        "proxy_precision": proxy_precision,
        "rungs": rungs,
        "eta": eta,
        "raise_budget": raise_budget,
        "confirm": confirm,
        "checkpoint_mib": checkpoint_mib,
        "metric": metric,
        "idle_timeout_s": parse_duration(idle_timeout),
    }
    asked = build_config(flags, config, settings or ())
    console = build_console()
    if dry_run:
        _print_cost(asked, console)
    else:
        _search(asked, console)


def _search(config: SearchConfig, console: Console) -> None:
    from hilo_nas.cli.display import build_display
    from hilo_nas.cli.front import print_front
    from hilo_nas.search import run_search
    from hilo_nas.search.setting import find_study

    folder = find_study(config)[1]
    try:
        with build_display(console) as display:
            study, finished = run_search(config, display)
    except KeyboardInterrupt:
        way = f"Resume with: {resume_hint(config.study.name or folder.name, config.study.studies_path).command}"
        if not folder.exists:
            way = "Nothing was measured yet: start it again with the same command."
        build_console(stderr=True).print(way, soft_wrap=True)
        raise
    if not study.manifest.plan.declaration.gives_scores:
        _print_timings(study, finished, config, console)
        return
    console.print()
    print_front(study, console, name=config.study.name, studies_dir=config.study.studies_path)
    notes, hints = hints_after_search(
        config.study.name or study.name,
        config.study.studies_path,
        study.manifest,
        study.front(),
        is_exhausted=finished.stopped_by == "exhausted",
    )
    lines = [
        f"\n{finished.measured} of {finished.total} networks measured, {_ENDINGS[finished.stopped_by]}; this run took "
        f"{duration(finished.seconds)}. Records: {study.path}",
        *notes,
        "Next:",
        *(f"  {hint.line()}" for hint in hints),
    ]
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _print_timings(study: Study, finished: SearchFinished, config: SearchConfig, console: Console) -> None:
    """Prints how a study without a proxy ended, and how to search with its timings."""
    from hilo_nas.cli.front import print_front

    name = config.study.name or study.name
    console.print()
    print_front(study, console, name=name, studies_dir=config.study.studies_path)
    ending = _ENDINGS[finished.stopped_by]
    console.print(
        f"{finished.measured} of {finished.total} networks timed, {ending}; this run took "
        f"{duration(finished.seconds)}. Records: {study.path}",
        markup=False,
        soft_wrap=True,
    )


def _print_cost(config: SearchConfig, console: Console) -> None:
    from hilo_nas.cli.display import build_display
    from hilo_nas.search import estimate_cost
    from hilo_nas.search.dry_run import CONFIRMED

    with build_display(console) as display:
        cost = estimate_cost(config, display)
    console.print(
        f"{duration(cost.timing_s)} timing + {duration(cost.training_s)} training per trial "
        f"(median of {cost.networks} networks; {duration(cost.trial_s[0])} to {duration(cost.trial_s[1])} in all)\n"
        f"{cost.trials} trials: about {duration(cost.total_s)}, set-up of {duration(cost.set_up_s)} included",
        markup=False,
        soft_wrap=True,
    )
    if cost.peers:
        console.print(f"peers ({cost.peers}): about {duration(cost.peers_s)} of that")
    if cost.trials_by_timeout is not None:
        console.print(f"about {cost.trials_by_timeout} of them within the timeout")
    if cost.confirmation_s is not None:
        console.print(
            f"confirming the front comes on top: about {duration(cost.confirmation_s)} per {CONFIRMED} networks"
        )
    console.print(f"disk: {cost.disk_mib:,.0f} MiB (decoded images and records)")
