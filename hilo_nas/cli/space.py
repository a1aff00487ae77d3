"""`hilo-nas space`: what a search space holds, and what in it does nothing."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from hilo_nas.cli.apps import App
from hilo_nas.cli.console import build_console
from hilo_nas.cli.options import SpaceArgument
from hilo_nas.errors import UsageError
from hilo_nas.figures import share_text
from hilo_nas.space import LIMITS, SearchSpace, count_space, list_shipped, load_space, report_dead_knobs

__all__ = ["app"]

app = App(help="Look at search spaces.")

ImgSize = Annotated[int | None, typer.Option(help="Timing size in pixels; the space's default if left out.")]
ProxyImgSize = Annotated[int | None, typer.Option(help="Proxy size in pixels; the space's default if left out.")]
NumClasses = Annotated[int | None, typer.Option(help="Outputs of the classifier; the space's default if left out.")]

_Z95 = 1.96


@app.command("list")
def list_() -> None:
    """List the spaces that come with the package."""
    console = build_console()
    for name in list_shipped():
        console.print(f"[bold]{name}[/]: {escape(load_space(name).description)}", markup=True)


@app.command()
def show(
    space: SpaceArgument,
    img_size: ImgSize = None,
    proxy_img_size: ProxyImgSize = None,
    num_classes: NumClasses = None,
) -> None:
    """Show a space: its knobs, limits and anchors, how many networks it holds and how large they are."""
    found = load_space(space)
    console = build_console(soft_wrap=True)
    console.print(f"[bold]{escape(found.name)}[/]  {escape(found.description)}", markup=True)
    shown: dict[str, list[str]] = {}
    for knob in found.knobs:
        values = ", ".join(f"{choice:g}" if isinstance(choice, float) else str(choice) for choice in knob.choices)
        shown.setdefault(knob.name, []).append(values)
    for name, stages in shown.items():
        console.print(f"  {name + ':':13} {'  |  '.join(stages)}")
    for name, limit in found.limits.items():
        console.print(f"  limit:        {LIMITS[name].text(name, limit)}")
    for anchor in found.anchors:
        console.print(f"  anchor:       {anchor.name}{' (outside the space)' if anchor.outside else ''}")
    _report(found, console, img_size, proxy_img_size, num_classes)


@app.command()
def check(
    space: SpaceArgument,
    img_size: ImgSize = None,
    proxy_img_size: ProxyImgSize = None,
    num_classes: NumClasses = None,
) -> None:
    """Check a space file: every fault at once, then dead knobs and windows that do not fit the maps."""
    found = load_space(space)
    console = build_console(soft_wrap=True)
    console.print(f"{space} has no faults")
    _report(found, console, img_size, proxy_img_size, num_classes)


def _report(
    space: SearchSpace, console: Console, img_size: int | None, proxy_img_size: int | None, num_classes: int | None
) -> None:
    for name, value in (("img-size", img_size), ("proxy-img-size", proxy_img_size), ("num-classes", num_classes)):
        if value is not None and value < 1:
            raise UsageError(f"--{name} must be at least 1, but got {value}")
    size = img_size or space.defaults.get("img_size", 224)
    proxy_size = proxy_img_size or space.defaults.get("proxy_img_size", size)
    classes = num_classes or space.defaults.get("num_classes", 1000)
    census = count_space(space, img_size=size, num_classes=classes)
    if census.is_exact:
        networks = f"{census.n_networks:,} distinct networks (counted)"
    else:
        half_width = _rounded(_Z95 * census.n_networks_se)
        networks = f"about {_rounded(census.n_networks)} distinct networks (estimate, ± {half_width})"
    console.print(f"{census.n_configs:,} configurations, {networks}")
    console.print(
        f"params {census.params_m[0]:.3g} to {census.params_m[1]:.3g} M ({classes} classes), "
        f"{census.gmacs[0]:.3g} to {census.gmacs[1]:.3g} GMACs at {size} px",
        markup=False,
    )
    if space.limits:
        console.print(f"{share_text(census.within_limits)} of the configurations keep the limits on params and MACs")
    for text in report_dead_knobs(space, img_size=size, proxy_img_size=proxy_size):
        console.print(f"note: {text}")


def _rounded(value: float) -> str:
    return f"{float(f'{value:.2g}'):,.0f}"
