"""`hilo-nas space`: list, show and check search spaces."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from hilo_nas.cli.apps import App
from hilo_nas.cli.completion import complete_space
from hilo_nas.cli.console import build_console, echo
from hilo_nas.cli.formats import echo_content
from hilo_nas.cli.options import Format, Output, SpaceArgument
from hilo_nas.cli.settings import help_of
from hilo_nas.errors import StorageError, UsageError
from hilo_nas.measurement.intervals import Z95
from hilo_nas.space import LIMITS, SearchSpace, count_space, find_space, list_shipped, load_space, report_dead_knobs
from hilo_nas.text.commands import command
from hilo_nas.text.figures import share_text

__all__ = ["app"]

app = App(help="List, show, check and write search spaces.")

ImgSize = Annotated[int | None, typer.Option(help=help_of("timing.img_size"))]
ProxyImgSize = Annotated[int | None, typer.Option(help=help_of("proxy.img_size"))]
NumClasses = Annotated[int | None, typer.Option(help="Number of classes.")]


@app.command("list")
def list_(output: Output = Format.table) -> None:
    """List the spaces that are shipped with the package."""
    spaces = {name: load_space(name).description for name in list_shipped()}
    if output is not Format.table:
        echo_content([{"space": name, "description": text} for name, text in spaces.items()], output)
        return
    console = build_console(soft_wrap=True)
    for name, text in spaces.items():
        console.print(f"[bold]{name}[/]: {escape(text)}", markup=True)


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
    found = load_space(space)
    report = _Report.of(found, img_size, proxy_img_size, num_classes)
    knobs: dict[str, list[list[Any]]] = {}
    for knob in found.knobs:
        knobs.setdefault(knob.name, []).append(list(knob.choices))
    if output is not Format.table:
        content = {
            "space": found.name,
            "description": found.description,
            "knobs": knobs,
            "limits": dict(found.limits),
            "anchors": [anchor.name for anchor in found.anchors],
            "anchors_outside": [anchor.name for anchor in found.anchors if anchor.outside],
        }
        echo_content({**content, **dataclasses.asdict(report)}, output)
        return
    console = build_console(soft_wrap=True)
    console.print(f"[bold]{escape(found.name)}[/]  {escape(found.description)}", markup=True)
    for name, stages in knobs.items():
        values = [", ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in own) for own in stages]
        console.print(f"  {name + ':':13} {'  |  '.join(values)}")
    for name, limit in found.limits.items():
        console.print(f"  limit:        {LIMITS[name].text(name, limit)}")
    for anchor in found.anchors:
        console.print(f"  anchor:       {anchor.name}{' (outside the space)' if anchor.outside else ''}")
    _print_report(report, console, has_limits=bool(found.limits))


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
    found = load_space(space)
    report = _Report.of(found, img_size, proxy_img_size, num_classes)
    if output is not Format.table:
        echo_content({"space": found.name, **dataclasses.asdict(report)}, output)
        return
    console = build_console(soft_wrap=True)
    console.print(f"{space} has no faults")
    _print_report(report, console, has_limits=bool(found.limits))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Report:
    """Number and size of a space's networks, and notes on choices without effect."""

    configurations: int
    networks: int
    """Number of distinct networks."""
    networks_se: float
    """Standard error of `networks`; 0.0 if the networks were counted."""
    params_m: tuple[float, float]
    """Minimum and maximum number of parameters in millions."""
    gmacs: tuple[float, float]
    """Minimum and maximum number of multiply-adds in billions."""
    within_limits: float
    """Share of configurations that meet the limits on parameters and MACs."""
    img_size: int
    num_classes: int
    notes: list[str]

    @classmethod
    def of(
        cls, space: SearchSpace, img_size: int | None, proxy_img_size: int | None, num_classes: int | None
    ) -> _Report:
        """Returns the report of a space. Sizes that are None have the space's defaults.

        Raises:
            UsageError: A size is below 1.
        """
        for name, value in (("img-size", img_size), ("proxy-img-size", proxy_img_size), ("num-classes", num_classes)):
            if value is not None and value < 1:
                raise UsageError(f"--{name} must be at least 1, but got {value}")
        size = img_size or space.defaults.get("img_size", 224)
        proxy_size = proxy_img_size or space.defaults.get("proxy_img_size", size)
        classes = num_classes or space.defaults.get("num_classes", 1000)
        census = count_space(space, img_size=size, num_classes=classes)
        return cls(
            configurations=census.n_configs,
            networks=census.n_networks,
            networks_se=0.0 if census.is_exact else census.n_networks_se,
            params_m=census.params_m,
            gmacs=census.gmacs,
            within_limits=census.within_limits,
            img_size=size,
            num_classes=classes,
            notes=list(report_dead_knobs(space, img_size=size, proxy_img_size=proxy_size)),
        )


def _print_report(report: _Report, console: Console, *, has_limits: bool) -> None:
    networks = f"{report.networks:,} distinct networks (counted)"
    if report.networks_se:
        half_width = _rounded(Z95 * report.networks_se)
        networks = f"about {_rounded(report.networks)} distinct networks (estimate, ± {half_width})"
    console.print(f"{report.configurations:,} configurations, {networks}")
    console.print(
        f"params {report.params_m[0]:.3g} to {report.params_m[1]:.3g} M ({report.num_classes} classes), "
        f"{report.gmacs[0]:.3g} to {report.gmacs[1]:.3g} GMACs at {report.img_size} px",
        markup=False,
    )
    if has_limits:
        console.print(f"{share_text(report.within_limits)} of the configurations meet the limits on params and MACs")
    for text in report.notes:
        console.print(f"note: {text}")


def _rounded(value: float) -> str:
    return f"{float(f'{value:.2g}'):,.0f}"
