"""`hilo-nas config`: the resolved settings of a search as YAML."""

from __future__ import annotations

import dataclasses

from hilo_nas.cli.console import echo
from hilo_nas.cli.options import OptionalSpace
from hilo_nas.cli.settings import takes_settings
from hilo_nas.searching.configuration.search_config import SearchConfig

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Show the settings of a search, with the defaults of its space, as YAML for `search --config`.

Settings without a default appear as comments. So do settings whose default depends on the device."""
EXAMPLES = """Examples:
hilo-nas config litv2_cifar > search.yaml
hilo-nas config --config studies/my-gpu/manifest.yaml --set search.seed=1
hilo-nas search --config search.yaml --set timing.compile=true"""


@takes_settings()
def run(
    config: SearchConfig,
    space: OptionalSpace = None,
) -> None:
    """Prints the settings as YAML."""
    from hilo_nas.searching.configuration.config_files import render_config
    from hilo_nas.searching.configuration.resolve import DEFAULT_SPACE, resolve
    from hilo_nas.space import load_space

    name = space or config.space or DEFAULT_SPACE
    echo(render_config(resolve(dataclasses.replace(config, space=name), load_space(name))), nl=False)
