"""Output of `hilo-nas space`: shipped spaces, and the knobs, number and size of a space's networks."""

from __future__ import annotations

import dataclasses
from typing import Any

from rich.console import Console
from rich.markup import escape

from hilo_nas.cli.console import build_console
from hilo_nas.cli.formats import echo_content
from hilo_nas.cli.options import Format
from hilo_nas.errors import UsageError
from hilo_nas.measurement.intervals import Z95
from hilo_nas.space import LIMITS, SearchSpace, count_space, list_shipped, load_space, report_dead_knobs
from hilo_nas.text.figures import share_text

__all__ = ["print_check", "print_space", "print_spaces"]


def print_spaces(output: Format) -> None:
    """Prints the shipped spaces with their descriptions."""
    spaces = {name: load_space(name).description for name in list_shipped()}
    if output is not Format.table:
        echo_content([{"space": name, "description": text} for name, text in spaces.items()], output)
        return
    console = build_console(soft_wrap=True)
    for name, text in spaces.items():
        console.print(f"[bold]{name}[/]: {escape(text)}", markup=True)


def print_space(
    space: str, img_size: int | None, proxy_img_size: int | None, num_classes: int | None, output: Format
) -> None:
    """Prints the knobs, limits and anchors of a space, and the number and size of its networks.

    Sizes that are None have the space's defaults.
    """
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


def print_check(
    space: str, img_size: int | None, proxy_img_size: int | None, num_classes: int | None, output: Format
) -> None:
    """Prints that a space has no faults, and choices without effect.

    Sizes that are None have the space's defaults.

    Raises:
        UsageError: The space has faults. The message lists all.
    """
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
