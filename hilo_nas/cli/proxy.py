"""`hilo-nas proxy`: whether what a search ranks by can be trusted."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from hilo_nas.cli.apps import App
from hilo_nas.cli.bench.running import SAVE, NoSave, Output, Save, deliver
from hilo_nas.cli.console import build_console
from hilo_nas.cli.options import (
    Background,
    BatchSize,
    CacheDir,
    CheckpointMib,
    ClassFrom,
    Data,
    Device,
    Format,
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
from hilo_nas.proxy.kinds import quick_names

__all__ = ["app"]

app = App(help="What a search ranks by, held against long trainings.")

_CHECK = """Hold the short training, and proxies that train nothing, against long trainings of the same networks.

Says how well each ranks (Kendall's tau, over all networks and among those of like speed), beside counting parameters
and beside the long training's own noise, and which budget that speaks for. It makes a study like any other: a second
call goes on where the first one stopped, and one that finds all done only writes the report again."""
_EXAMPLE = (
    "Example: hilo-nas proxy check litv2_tabular --data cifar10/train.tar --study cifar10-check --proxy-images 4500"
)


@app.command("check", help=_CHECK, epilog=_EXAMPLE)
def check(
    space: SpaceArgument,
    data: Data,
    study: Annotated[str, typer.Option("--study", metavar="NAME", help="The study to make or go on with.")],
    networks: Annotated[int, typer.Option(help="Networks of the space that are compared.")] = 40,
    long_images: Annotated[
        int | None, typer.Option(help="Training images of a long training; ten times the proxy's if left out.")
    ] = None,
    second_seed: Annotated[int, typer.Option(help="Networks that are trained long twice, for the noise ceiling.")] = 15,
    training_free: Annotated[
        str, typer.Option(metavar="NAMES", help="Proxies that train nothing, with commas; '' for none.")
    ] = ",".join(quick_names()),
    target: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="A check of the same networks at the image size that is to be shipped."),
    ] = None,
    max_gmacs: MaxGmacs = None,
    max_params_m: MaxParamsM = None,
    device: Device = None,
    batch_size: BatchSize = None,
    img_size: ImgSize = None,
    threads: Threads = None,
    seconds: Seconds = None,
    proxy_img_size: ProxyImgSize = None,
    proxy_batch_size: ProxyBatchSize = None,
    proxy_images: Annotated[int | None, typer.Option(help="Training images of the proxy's largest budget.")] = None,
    rungs: Annotated[int | None, typer.Option(help="How many of the proxy's budgets are compared.")] = None,
    eta: Annotated[float | None, typer.Option(help="The ratio from one budget to the next.")] = None,
    jobs: Jobs = None,
    checkpoint_mib: CheckpointMib = 2048.0,
    no_plot: Annotated[bool, typer.Option("--no-plot", help="Draw no picture, which needs matplotlib.")] = False,
    output: Output = Format.table,
    save: Save = SAVE,
    no_save: NoSave = False,
    class_from: ClassFrom = None,
    background: Background = None,
    value_range: ValueRange = None,
    skip_broken: SkipBroken = None,
    cache_dir: CacheDir = None,
    studies_dir: StudiesDir = None,
    idle_timeout: IdleTimeout = "10m",
) -> None:
    """Compares them."""
    from hilo_nas.bench.agreement_report import report_agreement
    from hilo_nas.bench.making import limit_space
    from hilo_nas.bench.proxy_check import ProxyCheck, check_proxy
    from hilo_nas.cli.display import build_display
    from hilo_nas.data.sources import parse_source
    from hilo_nas.report import can_draw, check_folder
    from hilo_nas.searching.config import SearchConfig
    from hilo_nas.searching.setting import find_study
    from hilo_nas.space import load_space
    from hilo_nas.study import open_study

    with_picture = not (no_plot or no_save)
    if with_picture and not can_draw():
        text = "no picture is drawn, because matplotlib is not installed. Use pip install 'hilo-nas[plot]'."
        build_console(stderr=True).print(text)
        with_picture = False
    if not no_save:
        check_folder(save)
    idle_timeout_s = parse_duration(idle_timeout)
    assert idle_timeout_s is not None
    sizes = {
        "device": device,
        "batch_size": batch_size,
        "img_size": img_size,
        "threads": threads,
        "proxy_img_size": proxy_img_size,
        "proxy_batch_size": proxy_batch_size,
        "proxy_images": proxy_images,
        "rungs": rungs,
        "rung_ratio": eta,
    }
    reading = reading_fields(class_from, background, value_range, skip_broken)
    config = SearchConfig.of(
        space=space,
        study=study,
        studies_dir=studies_dir,
        timing_s=seconds,
        data=data,
        **reading,
        cache_dir=cache_dir,
        checkpoint_mib=checkpoint_mib,
        idle_timeout_s=idle_timeout_s,
        **sizes,
    )
    asked = ProxyCheck(
        networks=networks,
        long_images=long_images,
        second_seed=second_seed,
        training_free=tuple(name.strip() for name in training_free.split(",") if name.strip()),
        target=open_study(target, studies_dir) if target else None,
    )
    folder = find_study(config)[1]
    limited = limit_space(load_space(space), folder, {"gmacs": max_gmacs, "params_m": max_params_m})
    progress = build_console(stderr=True)
    with build_display(progress) as display:
        checked = check_proxy(config, limited, folder, asked, display, jobs=jobs)
    options: dict[str, Any] = {
        "data": parse_source(data).name,  # reports are kept, and name no folder of this machine
        "study": study,
        "networks": networks,
        "long_images": long_images,
        "second_seed": second_seed,
        "training_free": training_free,
        "target": target,
        "max_gmacs": max_gmacs,
        "max_params_m": max_params_m,
        **sizes,
        "seconds": seconds,
        "class_from": class_from,
        "background": background,
        "value_range": value_range,
        "skip_broken": skip_broken,
        "no_plot": no_plot,
    }
    report = report_agreement(
        checked.agreement,
        study=folder.name,
        command=_spell(space, options),
        settings=checked.settings,
        measurements=checked.measurements,
        failures=checked.failures,
        with_picture=with_picture,
    )
    deliver([report], output, None if no_save else save, progress)


def _spell(space: str, options: dict[str, Any]) -> str:
    """Returns the command line that does the same again; what was left out, the space or the study say."""
    words = ["hilo-nas", "proxy", "check", space]
    for name, value in options.items():
        if value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}", *[str(value)] * (value is not True)]
    return shlex.join(words)
