"""`hilo-nas bench`: benchmarks on this machine."""

from __future__ import annotations

from hilo_nas.cli.apps import App
from hilo_nas.cli.bench import attention, backbones, ruler, stages
from hilo_nas.cli.text import verbatim

__all__ = ["app"]

app = App(
    help="Run benchmarks on this machine: timing resolution, attention layers, backbones, parts of a network.",
)
for name, command, summary in (
    ("ruler", ruler, "Measure the timing resolution of this machine."),
    ("attention", attention, "Compare HiLo with other attention layers."),
    ("backbones", backbones, "Compare LITv2 with networks from timm."),
    ("stages", stages, "Time each part of a LITv2 network."),
):
    app.command(name, help=command.HELP, short_help=summary, epilog=verbatim(command.EXAMPLES))(command.run)
