"""`hilo-nas config`: the settings of a search, resolved, as YAML; and their way from the command line to a search."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from hilo_nas.cli.console import echo
from hilo_nas.errors import UsageError

if TYPE_CHECKING:
    from hilo_nas.search.config import SearchConfig

__all__ = ["EXAMPLES", "HELP", "build_config", "run"]

HELP = """Show the settings of a search, with the defaults of its space, as YAML that `search --config` takes.

A setting that has no default, or none before the device is known, stands in a comment."""
EXAMPLES = """Examples: hilo-nas config litv2_cifar > search.yaml
hilo-nas config --config studies/my-gpu/manifest.yaml --set search.seed=1
hilo-nas search --config search.yaml --set timing.compile=true --study mine"""


def run(
    space: Annotated[
        str | None, typer.Argument(metavar="SPACE", help="A shipped space's name, or a YAML file.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings in YAML, or a study's manifest.yaml.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.FIELD=VALUE", help="One setting, over those of --config; repeat it."),
    ] = None,
) -> None:
    """Prints the settings."""
    from hilo_nas.search.resolve import DEFAULT_SPACE, resolve
    from hilo_nas.space import load_space

    asked = build_config({"space": space}, config, settings or ())
    asked = dataclasses.replace(asked, space=asked.space or DEFAULT_SPACE)
    assert asked.space is not None
    echo(render_config(resolve(asked, load_space(asked.space))), nl=False)


def build_config(flags: Mapping[str, Any], path: Path | None, settings: Sequence[str]) -> SearchConfig:
    """Returns the configuration of a file, then single settings over it, then flags over both.

    Raises:
        NotFoundError: There is no such file.
        UsageError: A setting is not known or cannot be what it is; names the file where it is one of the file.
        RecordError: The file is a manifest that cannot be understood.
    """
    from hilo_nas.search.config import SearchConfig, merge_fields, nest_options, parse_setting

    layers = [] if path is None else [_read_file(path)]
    layers += [parse_setting(text) for text in settings]
    return SearchConfig.from_dict(merge_fields(*layers, nest_options(**flags)))


def _read_file(path: Path) -> dict[str, Any]:
    """Returns the settings in a file; of a manifest those that its study was made with."""
    from hilo_nas.search.config import SearchConfig, read_fields

    fields = read_fields(path)
    if "schema_version" in fields:
        from hilo_nas.search.resolve import config_of
        from hilo_nas.study import Study

        return config_of(Study(path.parent).manifest).to_dict()
    try:
        return SearchConfig.from_dict(fields).to_dict()
    except UsageError as error:
        raise UsageError("\n".join(f"{path}: {line}" for line in str(error).split("\n"))) from error


def render_config(config: SearchConfig) -> str:
    """Returns a configuration as YAML, each field with a comment; a field without a value is a comment itself."""
    lines = [f"space: {_scalar(config.space)}"]
    for section in dataclasses.fields(config):
        own = getattr(config, section.name)
        if not dataclasses.is_dataclass(own):
            continue
        lines += ["", f"{section.name}:"]
        for field in dataclasses.fields(own):
            value = getattr(own, field.name)
            text = "" if value in (None, ()) else f" {_scalar(value)}"
            lines.append(f"  {'' if text else '# '}{field.name}:{text}  # {field.metadata['comment']}")
    return "\n".join(lines) + "\n"


def _scalar(value: Any) -> str:
    """Returns a value as YAML on one line."""
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=10_000).strip().removesuffix("...").strip()
