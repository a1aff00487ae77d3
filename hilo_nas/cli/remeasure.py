"""`hilo-nas remeasure`: time a study's networks again, in the same rounds."""

from __future__ import annotations

from typing import Annotated

import typer

from hilo_nas.cli.console import build_console
from hilo_nas.cli.options import StudyArgument
from hilo_nas.cli.settings import takes_settings
from hilo_nas.searching.configuration.search_config import SearchConfig

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Time a study's front and the networks near it again, in the same rounds.

If torch, the driver or hilo-nas's timing protocol has changed since, all networks are timed again, and the study uses
the new versions from then on. With --device, the whole study is timed on another device and stored as the new study
--study (default: STUDY-DEVICE) with the same scores."""
EXAMPLES = """Examples:
hilo-nas remeasure my-gpu
hilo-nas remeasure my-gpu --device cpu --study my-cpu"""


@takes_settings("timing.device", "timing.seconds", "study.name")
def run(
    study: StudyArgument,
    config: SearchConfig,
    everything: Annotated[
        bool, typer.Option("--all", help="Time all networks, not only those near the front.")
    ] = False,
) -> None:
    """Times the networks again and prints the front."""
    from hilo_nas import api
    from hilo_nas.cli.display import build_display
    from hilo_nas.cli.front_output import print_front

    console = build_console()
    with build_display(console) as display:
        measured = api.remeasure(study, everything=everything, config=config, on_event=display)
    print_front(measured, console)
    console.print(f"Records: {measured.path}", soft_wrap=True)
