"""`hilo-nas bench`: benchmarks on this machine."""

from __future__ import annotations

from hilo_nas.cli.apps import App
from hilo_nas.cli.bench import attention, backbones, ruler, stages
from hilo_nas.cli.text import verbatim

__all__ = ["app"]

app = App(
    help="Run benchmarks on this machine: timing resolution, attention layers, backbones, parts of a network.",
)
app.command("ruler", help=ruler.HELP, epilog=verbatim(ruler.EXAMPLES))(ruler.run)
app.command("attention", help=attention.HELP, epilog=verbatim(attention.EXAMPLES))(attention.run)
app.command("backbones", help=backbones.HELP, epilog=verbatim(backbones.EXAMPLES))(backbones.run)
app.command("stages", help=stages.HELP, epilog=verbatim(stages.EXAMPLES))(stages.run)
