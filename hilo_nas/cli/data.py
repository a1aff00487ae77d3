"""`hilo-nas data`: show, check and write images as a search reads them."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hilo_nas.cli.apps import App
from hilo_nas.cli.console import build_console, echo
from hilo_nas.cli.formats import echo_content
from hilo_nas.cli.options import Format, Output
from hilo_nas.cli.settings import takes_settings
from hilo_nas.cli.text import verbatim
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.text.plurals import count_of

if TYPE_CHECKING:
    from hilo_nas.data.check import Checked

__all__ = ["app"]

app = App(
    help="Show, check and write images as a search reads them.\n\n"
    "Settings of a search that start with `data.` apply. `hilo-nas config` lists them."
)

Source = Annotated[str, typer.Argument(metavar="SOURCE", help="Images, as for `hilo-nas search --data`.")]
ImgSize = Annotated[
    int | None,
    typer.Option(min=8, max=1024, help="Side in pixels to which images are resized. Default: proxy.img_size, or 64."),
]
_IMG_SIZE = 64

_SHOW = """Examples:
hilo-nas data show cifar10/train.tar -o sheet.png --img-size 32
hilo-nas data show icons/ -o sheet.png --set data.background=gray"""
_CHECK = """Examples:
hilo-nas data check scans/ --set data.val_source=scans-2024/
hilo-nas data check scans/ --set data.class_from=last --format json"""
_WRITE = """Examples:
hilo-nas data write scans/ scans-png/
hilo-nas data write scans/ scans-png/ --config search.yaml"""


@app.command("show", short_help="Write a contact sheet, six images of each class.", epilog=verbatim(_SHOW))
@takes_settings()
def show(
    config: SearchConfig,
    source: Source,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="PNG file to write.")],
    img_size: ImgSize = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace FILE even if it is not an earlier contact sheet.")
    ] = False,
) -> None:
    """Write a contact sheet: six images of each class, as networks see them in training."""
    from hilo_nas.cli.display import build_display
    from hilo_nas.data.prepared_images import prepare_data
    from hilo_nas.data.sheet import check_target, write_sheet
    from hilo_nas.searching.configuration.resolve import reading_of

    check_target(output, force=force)
    with build_display(build_console(stderr=True)) as display:
        data = prepare_data(
            source,
            img_size or config.proxy.img_size or _IMG_SIZE,
            cache_dir=config.data.cache_path,
            val_data=config.data.val_source,
            group_by=config.data.group_by,
            options=reading_of(config),
            emit=display,
        )
        shown = write_sheet(data, output, config.data.group_by)
    of_all = "" if shown == data.num_classes else f" of {data.num_classes:,}, evenly spaced"
    echo(f"wrote {output}: {shown:,} classes{of_all}")


@app.command("check", short_help="Read all images and list all faults.", epilog=verbatim(_CHECK))
@takes_settings()
def check(config: SearchConfig, source: Source, img_size: ImgSize = None, output: Output = Format.table) -> None:
    """Read all images and list all faults: broken files, copies, wrong labels, overlaps, nearly empty classes.

    The exit code is 0 without faults and 1 with faults.
    """
    from hilo_nas.cli.display import build_display
    from hilo_nas.data.check import check_data
    from hilo_nas.searching.configuration.resolve import reading_of

    with build_display(build_console(stderr=True)) as display:
        checked = check_data(
            source,
            img_size or config.proxy.img_size or _IMG_SIZE,
            cache_dir=config.data.cache_path,
            val_data=config.data.val_source,
            options=reading_of(config),
            emit=display,
        )
    _print(checked, output)
    if checked.faults:
        raise typer.Exit(1)


def _print(checked: Checked, output: Format) -> None:
    if output is Format.json:
        echo_content(dataclasses.asdict(checked), output)
    elif output is Format.csv:
        echo_content([dataclasses.asdict(fault) for fault in checked.faults], output, names=("kind", "text"))
    else:
        for part in checked.sets:
            first, *rest = part.to_lines()
            echo("\n".join([first, *(f"  {line}" for line in rest)]))
        for fault in checked.faults:
            echo(f"fault: {fault.text}")
        echo(count_of(len(checked.faults), "fault"))


@app.command("write", short_help="Write images as a search reads them, as PNG files.", epilog=verbatim(_WRITE))
@takes_settings()
def write(
    config: SearchConfig,
    source: Source,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write to.")],
    force: Annotated[
        bool, typer.Option("--force", help="Write into a folder that has files, and replace files of the same names.")
    ] = False,
) -> None:
    """Write images as a search reads them: upright 8-bit RGB PNG files in train/CLASS and validation/CLASS.

    Other tools, such as timm's train.py, can then use the same images.
    """
    from hilo_nas.cli.display import build_display
    from hilo_nas.data.write import CLASS_MAP, write_data
    from hilo_nas.searching.configuration.resolve import reading_of

    with build_display(build_console(stderr=True)) as display:
        written = write_data(
            source,
            folder,
            cache_dir=config.data.cache_path,
            val_data=config.data.val_source,
            group_by=config.data.group_by,
            options=reading_of(config),
            force=force,
            emit=display,
        )
    for name, to in written.renamed.items():
        echo(f"class {name!r} is in folder {to!r}")
    echo(f"wrote {folder}: {written.counts['train']:,} training and {written.counts['validation']:,} validation images")
    paths = shlex.join(["--data-dir", str(folder), "--class-map", str(folder / CLASS_MAP)])
    echo(f"Train on them with timm's train.py: python train.py -c train.yaml {paths}")
