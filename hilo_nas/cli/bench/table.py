"""`hilo-nas bench table`: every network of a small space, timed and trained."""

from __future__ import annotations

from typing import Annotated

import typer

from hilo_nas.cli.console import build_console
from hilo_nas.cli.options import (
    Background,
    BatchSize,
    CacheDir,
    CheckpointMib,
    ClassFrom,
    Data,
    Device,
    IdleTimeout,
    ImgSize,
    Jobs,
    MaxGmacs,
    MaxParamsM,
    ProxyBatchSize,
    ProxyImgSize,
    Seconds,
    SkipBroken,
    SpaceArgument,
    StudiesDir,
    Threads,
    ValueRange,
    parse_duration,
    reading_fields,
)
from hilo_nas.states import TrialState

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Time and train every network of a small space, at each rung: the table that `bench samplers` replays on.

With --networks, as many at random of a space of any size: whether its networks train at all, and how far they get. It
is a study like any other, and a second call goes on where the first one stopped. With --reuse, trainings done
elsewhere, as far as they are the same, are taken over, and the networks are timed on the device at hand."""
EXAMPLES = "Example: hilo-nas bench table litv2_tabular --device cpu --data cifar10/train.tar --study cifar10-table"


def run(
    space: SpaceArgument,
    data: Data,
    study: Annotated[str, typer.Option("--study", metavar="NAME", help="The study to make or go on with.")],
    networks: Annotated[int | None, typer.Option(help="Only so many of the space's networks, at random.")] = None,
    max_gmacs: MaxGmacs = None,
    max_params_m: MaxParamsM = None,
    device: Device = None,
    batch_size: BatchSize = None,
    img_size: ImgSize = None,
    threads: Threads = None,
    seconds: Seconds = None,
    proxy_img_size: ProxyImgSize = None,
    proxy_batch_size: ProxyBatchSize = None,
    proxy_images: Annotated[int | None, typer.Option(help="Training images seen per network.")] = None,
    rungs: Annotated[int | None, typer.Option(help="How often a training is scored.")] = None,
    eta: Annotated[float | None, typer.Option(help="The ratio from one rung's images to the next.")] = None,
    reuse: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="Take over the trainings of this study or table's file, and only time."),
    ] = None,
    jobs: Jobs = None,
    checkpoint_mib: CheckpointMib = 2048.0,
    class_from: ClassFrom = None,
    background: Background = None,
    value_range: ValueRange = None,
    skip_broken: SkipBroken = None,
    cache_dir: CacheDir = None,
    studies_dir: StudiesDir = None,
    idle_timeout: IdleTimeout = "10m",
) -> None:
    """Makes the table."""
    from hilo_nas.bench.making import limit_space, make_table
    from hilo_nas.bench.table import TABLE_NAME, collect_table, find_table
    from hilo_nas.cli.display import build_display
    from hilo_nas.searching.config import SearchConfig
    from hilo_nas.searching.setting import find_study
    from hilo_nas.space import load_space
    from hilo_nas.study import StoredStudy

    idle_timeout_s = parse_duration(idle_timeout)
    assert idle_timeout_s is not None
    config = SearchConfig.of(
        space=space,
        study=study,
        studies_dir=studies_dir,
        device=device,
        batch_size=batch_size,
        img_size=img_size,
        threads=threads,
        timing_s=seconds,
        data=data,
        **reading_fields(class_from, background, value_range, skip_broken),
        proxy_img_size=proxy_img_size,
        proxy_batch_size=proxy_batch_size,
        proxy_images=proxy_images,
        rungs=rungs,
        rung_ratio=eta,
        cache_dir=cache_dir,
        checkpoint_mib=checkpoint_mib,
        idle_timeout_s=idle_timeout_s,
    )
    folder = find_study(config)[1]
    limited = limit_space(load_space(space), folder, {"gmacs": max_gmacs, "params_m": max_params_m})
    console = build_console()
    with build_display(console) as display:
        records = make_table(
            config,
            limited,
            folder,
            display,
            count=networks,
            jobs=jobs,
            reuse=None if reuse is None else find_table(reuse, studies_dir),
        )
    table, asked = collect_table(StoredStudy(folder.path)), {record.key for record in records}
    for images in table.budgets:
        top1 = [row.scores[images].top1 for row in table.rows if row.key in asked and images in row.scores]
        if top1:
            reached = f"{len(top1)} networks, {table.manifest.plan.metric} from {min(top1):.3g} to {max(top1):.3g}"
            console.print(f"after {images:,} images: {reached}")
    complete = sum(record.state == TrialState.COMPLETE for record in records)
    console.print(f"{complete} of {len(records)} networks timed and trained: {folder.path / TABLE_NAME}")
