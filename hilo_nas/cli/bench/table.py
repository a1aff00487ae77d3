"""`hilo-nas bench table`: every network of a small space, timed and trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hilo_nas.cli.options import Device, IdleTimeout, Seconds, StudiesDir, Threads, parse_duration

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Time and train every network of a small space, at each rung: the table that `bench samplers` replays on.

It is a study like any other, and a second call goes on where the first one stopped."""
EXAMPLES = "Example: hilo-nas bench table litv2_tabular --device cpu --data cifar10/train.tar --study cifar10-table"


def run(
    space: Annotated[str, typer.Argument(metavar="SPACE", help="A shipped space's name, or a YAML file.")],
    data: Annotated[str, typer.Option(metavar="DATA", help="Training images, as `hilo-nas search` takes them.")],
    study: Annotated[str, typer.Option("--study", metavar="NAME", help="The study to make or go on with.")],
    device: Device = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per timed call.")] = None,
    img_size: Annotated[int | None, typer.Option(help="Side of the timed images in pixels.")] = None,
    threads: Threads = None,
    seconds: Seconds = None,
    proxy_img_size: Annotated[int | None, typer.Option(help="Side of the training images in pixels.")] = None,
    proxy_batch_size: Annotated[int | None, typer.Option(help="Images per training step.")] = None,
    proxy_images: Annotated[int | None, typer.Option(help="Training images seen per network.")] = None,
    rungs: Annotated[int | None, typer.Option(help="How often a training is scored.")] = None,
    eta: Annotated[float | None, typer.Option(help="The ratio from one rung's images to the next.")] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Trainings at once; as many as there are cores on a CPU, one elsewhere.")
    ] = None,
    cache_dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Cache of decoded images.")] = None,
    studies_dir: StudiesDir = None,
    idle_timeout: IdleTimeout = "10m",
) -> None:
    """Makes the table."""
    from hilo_nas.bench.table import TABLE_NAME, make_table
    from hilo_nas.cli.display import build_display
    from hilo_nas.cli.tables import build_console
    from hilo_nas.report import write_tables
    from hilo_nas.search.request import SearchRequest
    from hilo_nas.search.setting import find_folder
    from hilo_nas.space import load_space

    idle_timeout_s = parse_duration(idle_timeout)
    assert idle_timeout_s is not None
    request = SearchRequest(
        space=space,
        study=study,
        studies_dir=studies_dir,
        device=device,
        batch_size=batch_size,
        img_size=img_size,
        threads=threads,
        timing_s=seconds,
        data=data,
        proxy_img_size=proxy_img_size,
        proxy_batch_size=proxy_batch_size,
        proxy_images=proxy_images,
        rungs=rungs,
        eta=eta,
        cache_dir=cache_dir,
        idle_timeout_s=idle_timeout_s,
    )
    folder = find_folder(request)[1]
    console = build_console()
    with build_display(console) as display:
        records = make_table(request, load_space(space), folder, display, jobs=jobs)
    write_tables(folder)
    complete = sum(record.state == "complete" for record in records)
    console.print(f"{complete} of {len(records)} networks timed and trained: {folder.path / TABLE_NAME}", markup=False)
