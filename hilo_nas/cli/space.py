"""`hilo-nas space`: list, show and check search spaces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hilo_nas.cli.apps import App
from hilo_nas.cli.completion import complete_space
from hilo_nas.cli.console import echo
from hilo_nas.cli.options import Format, Output, SpaceArgument
from hilo_nas.cli.settings import help_of
from hilo_nas.errors import StorageError, UsageError
from hilo_nas.text.commands import command

__all__ = ["app"]

app = App(help="List, show, check and write search spaces.")

ImgSize = Annotated[int | None, typer.Option(help=help_of("timing.img_size"))]
ProxyImgSize = Annotated[int | None, typer.Option(help=help_of("proxy.img_size"))]
NumClasses = Annotated[int | None, typer.Option(help="Number of classes.")]


@app.command("list")
def list_(output: Output = Format.table) -> None:
    """List the spaces that are shipped with the package."""
    from hilo_nas.cli.space_output import print_spaces

    print_spaces(output)


@app.command(
    short_help="Show the knobs, limits, anchors and size of a space.",
    epilog="Example: hilo-nas space show litv2_cifar --img-size 64",
)
def show(
    space: SpaceArgument,
    img_size: ImgSize = None,
    proxy_img_size: ProxyImgSize = None,
    num_classes: NumClasses = None,
    output: Output = Format.table,
) -> None:
    """Show a space: its knobs, limits and anchors, and the number and size of its networks."""
    from hilo_nas.cli.space_output import print_space

    print_space(space, img_size, proxy_img_size, num_classes, output)


@app.command(
    short_help="Write a space file to edit.", epilog="Example: hilo-nas space init my_space.yaml --from litv2_imagenet"
)
def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file to write.")],
    source: Annotated[
        str, typer.Option("--from", metavar="SPACE", help="Space to copy.", autocompletion=complete_space)
    ] = "litv2_cifar",
) -> None:
    """Write a space file to edit: a copy of a shipped space or of another file.

    An existing file is never replaced.
    """
    from hilo_nas.space import find_space

    text = find_space(source).read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as created:
            created.write(text)
    except FileExistsError as error:
        raise UsageError(f"{path} exists already. Choose another file.") from error
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}. Choose another folder.") from error
    echo(f"wrote {path}, a copy of {source}")
    echo(f"Edit it, then check it: {command('space', 'check', path)}")


@app.command(short_help="Check a space file and list all faults.", epilog="Example: hilo-nas space check my_space.yaml")
def check(
    space: SpaceArgument,
    img_size: ImgSize = None,
    proxy_img_size: ProxyImgSize = None,
    num_classes: NumClasses = None,
    output: Output = Format.table,
) -> None:
    """Check a space file: list all faults, then knobs without effect and windows that do not fit the maps."""
    from hilo_nas.cli.space_output import print_check

    print_check(space, img_size, proxy_img_size, num_classes, output)
