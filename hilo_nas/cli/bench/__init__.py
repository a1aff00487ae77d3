"""`hilo-nas bench`: benchmarks of this machine."""

from __future__ import annotations

from hilo_nas.cli.apps import App
from hilo_nas.cli.bench import attention, backbones, official, releases, ruler, samplers, stages, table, training
from hilo_nas.cli.text import verbatim

__all__ = ["app"]

app = App(
    help="Benches of this machine: what it resolves, layers, backbones, other code, samplers.",
)
app.command("ruler", help=ruler.HELP, epilog=verbatim(ruler.EXAMPLES))(ruler.run)
app.command("attention", help=attention.HELP, epilog=verbatim(attention.EXAMPLES))(attention.run)
app.command("backbones", help=backbones.HELP, epilog=verbatim(backbones.EXAMPLES))(backbones.run)
app.command("stages", help=stages.HELP, epilog=verbatim(stages.EXAMPLES))(stages.run)
app.command("official", help=official.HELP, epilog=verbatim(official.EXAMPLES))(official.run)
app.command("table", help=table.HELP, epilog=verbatim(table.EXAMPLES))(table.run)
app.command("samplers", help=samplers.HELP, epilog=verbatim(samplers.EXAMPLES))(samplers.run)
app.command("training", help=training.HELP, epilog=verbatim(training.EXAMPLES))(training.run)
app.command("releases", help=releases.HELP, epilog=verbatim(releases.EXAMPLES))(releases.run)
