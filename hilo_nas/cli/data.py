"""`hilo-nas data`: look at images, check them, and write them as they are read, without a search."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hilo_nas.cli.apps import App
from hilo_nas.cli.console import build_console, echo
from hilo_nas.cli.options import Background, CacheDir, ClassFrom, SkipBroken, ValueRange, reading_fields

if TYPE_CHECKING:
    from hilo_nas.data.reading import ReadOptions

__all__ = ["app"]

app = App(help="Look at images, check them, and write them as they are read.")

Source = Annotated[str, typer.Argument(metavar="SOURCE", help="Images, as `hilo-nas search --data` takes them.")]
ValData = Annotated[
    str | None, typer.Option(metavar="DATA", help="Images to score on; a part of SOURCE is held out if left out.")
]
ImgSize = Annotated[int, typer.Option(min=8, max=1024, help="Side in pixels to which images are resized.")]
GroupBy = Annotated[str | None, typer.Option(metavar="REGEX", help="Split as `hilo-nas search --group-by` does.")]


@app.command("show", epilog="Example: hilo-nas data show cifar10/train.tar -o sheet.png --img-size 32")
def show(
    source: Source,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="PNG file to write.")],
    img_size: ImgSize = 64,
    class_from: ClassFrom = None,
    background: Background = None,
    value_range: ValueRange = None,
    skip_broken: SkipBroken = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE even if it is no earlier sheet.")] = False,
    cache_dir: CacheDir = None,
) -> None:
    """Write a contact sheet: six images of each class, as networks are trained on them."""
    from hilo_nas.cli.display import build_display
    from hilo_nas.data.prepare import prepare_data
    from hilo_nas.data.sheet import check_target, write_sheet

    options = _options(class_from, background, value_range, skip_broken)
    check_target(output, force=force)
    with build_display(build_console(stderr=True)) as display:
        data = prepare_data(source, img_size, cache_dir=cache_dir, options=options, emit=display)
        shown = write_sheet(data, output)
    of_all = "" if shown == data.num_classes else f" of {data.num_classes:,}, evenly chosen"
    echo(f"wrote {output}: {shown:,} classes{of_all}")


@app.command("check", epilog="Example: hilo-nas data check scans/ --val-data scans-2024/")
def check(
    source: Source,
    val_data: ValData = None,
    img_size: ImgSize = 64,
    class_from: ClassFrom = None,
    background: Background = None,
    value_range: ValueRange = None,
    cache_dir: CacheDir = None,
) -> None:
    """Read all images and list all faults: broken files, copies, wrong labels, overlaps, nearly empty classes.

    Exit code 0 without faults, 1 with.
    """
    from hilo_nas.cli.display import build_display
    from hilo_nas.data.check import check_data

    options = _options(class_from, background, value_range, None)
    with build_display(build_console(stderr=True)) as display:
        checked = check_data(source, img_size, cache_dir=cache_dir, val_data=val_data, options=options, emit=display)
    for part in checked.sets:
        first, *rest = part.to_lines()
        echo("\n".join([first, *(f"  {line}" for line in rest)]))
    for fault in checked.faults:
        echo(f"fault: {fault.text}")
    echo(f"{len(checked.faults)} faults" if len(checked.faults) != 1 else "1 fault")
    if checked.faults:
        raise typer.Exit(1)


@app.command("write", epilog="Example: hilo-nas data write scans/ scans-png/")
def write(
    source: Source,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write to.")],
    val_data: ValData = None,
    group_by: GroupBy = None,
    class_from: ClassFrom = None,
    background: Background = None,
    value_range: ValueRange = None,
    skip_broken: SkipBroken = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write into a folder that holds files: the same names are replaced.")
    ] = False,
    cache_dir: CacheDir = None,
) -> None:
    """Write images as they are read: upright 8-bit RGB PNG files in train/CLASS and validation/CLASS.

    Other tools, such as timm's train.py, then read what a search reads.
    """
    from hilo_nas.cli.display import build_display
    from hilo_nas.data.write import CLASS_MAP, write_data

    options = _options(class_from, background, value_range, skip_broken)
    with build_display(build_console(stderr=True)) as display:
        written = write_data(
            source,
            folder,
            cache_dir=cache_dir,
            val_data=val_data,
            group_by=group_by,
            options=options,
            force=force,
            emit=display,
        )
    for name, to in written.renamed.items():
        echo(f"class {name!r} is in the folder {to!r}")
    echo(f"wrote {folder}: {written.counts['train']:,} training and {written.counts['validation']:,} validation images")
    paths = shlex.join(["--data-dir", str(folder), "--class-map", str(folder / CLASS_MAP)])
    echo(f"Train on them with timm's train.py: python train.py -c train.yaml {paths}")


def _options(
    class_from: str | None, background: str | None, value_range: str | None, skip_broken: bool | None
) -> ReadOptions:
    from hilo_nas.data.reading import ReadOptions

    fields = reading_fields(class_from, background, value_range, skip_broken)
    return ReadOptions(**{name: value for name, value in fields.items() if value is not None})
