"""`hilo-nas plan`: a search configuration for a given time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hilo_nas.cli.console import build_console, echo
from hilo_nas.cli.options import HOURS_HELP, OptionalSpace
from hilo_nas.cli.settings import takes_settings
from hilo_nas.errors import StorageError, UsageError
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.text.commands import command
from hilo_nas.text.durations import duration

if TYPE_CHECKING:
    from hilo_nas.searching import SearchPlan

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Propose a search that fits into a given time.

It reads the images, times and briefly trains a few networks on this machine, and proposes space, training images, rungs
and number of trials, as YAML for `search --config`. Settings that are given are kept. `search --hours` plans and
searches in one call."""
EXAMPLES = """Examples:
hilo-nas plan --data cifar10/train.tar --img-size 32 --hours 8 -o search.yaml
hilo-nas plan litv2_cifar --data cifar10/train.tar --hours 2 --device cuda
hilo-nas search --config search.yaml --study edge-cifar"""


@takes_settings(
    "data.source",
    "timing.device",
    "timing.img_size",
    "limits.min_images_per_s",
    "limits.max_latency_ms",
    "limits.max_memory_mib",
)
def run(
    config: SearchConfig,
    hours: Annotated[float, typer.Option(metavar="HOURS", help=HOURS_HELP)],
    space: OptionalSpace = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="YAML file to write instead of printing it.")
    ] = None,
) -> None:
    """Prints or writes the proposed configuration."""
    from hilo_nas import api
    from hilo_nas.cli.display import build_display
    from hilo_nas.searching.configuration.config_files import render_config

    if output is not None and (output.exists() or not output.parent.is_dir()):
        fault = "exists already" if output.exists() else "is in a folder that does not exist"
        raise UsageError(f"{output} {fault}. Choose another file.")
    with build_display(build_console(stderr=True)) as display:
        plan = api.plan_search(space, hours=hours, config=config, on_event=display)
    lines = _describe(plan, hours)
    text = "".join(f"# {line}\n" for line in lines) + render_config(plan.config)
    if output is None:
        echo(text, nl=False)
        return
    try:
        with output.open("x", encoding="utf-8") as created:
            created.write(text)
    except OSError as error:
        echo(text, nl=False)  # the plan took minutes
        raise StorageError(f"cannot write {output}: {error.strerror or error}. Choose another folder.") from error
    for line in (*lines, f"wrote {output}", f"Next: {command('search', '--config', output)}"):
        echo(line)


def _describe(plan: SearchPlan, hours: float) -> list[str]:
    """Returns the proposal as sentences: the estimated time, the machine, and a sentence per choice."""
    cost, device = plan.cost, plan.setup.training_device
    confirmation = "" if cost.confirmation_s is None else f" and a confirmation of {duration(cost.confirmation_s)}"
    return [
        f"proposed for {hours:g} h on {device.model}: {cost.trials} trials in about {duration(cost.total_s)}"
        f"{confirmation}, from {cost.networks} networks tried briefly",
        *plan.reasons,
    ]
