"""`hilo-nas cache`: list or clear the cache of decoded images."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hilo_nas import data
from hilo_nas.cli.apps import App
from hilo_nas.cli.console import build_console, echo
from hilo_nas.cli.formats import echo_content
from hilo_nas.cli.options import Format, Output
from hilo_nas.cli.settings import takes_settings
from hilo_nas.events import Event, Notice
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.text.plurals import count_of

__all__ = ["app"]

app = App(
    help="List or clear the cache of decoded images. It is in $HILO_NAS_CACHE_DIR, or in the folder of the setting "
    "data.cache_dir."
)

_COLUMNS = ("name", "n_images", "img_size", "num_classes", "size_mib", "content_hash", "path")


@app.command("list", epilog="Example: hilo-nas cache list --set data.cache_dir=/scratch/hilo-nas")
@takes_settings()
def list_(config: SearchConfig, output: Output = Format.table) -> None:
    """List the cached data sets."""
    entries = data.list_caches(config.data.cache_path)
    rows = [_to_dict(entry) for entry in entries]
    if output is not Format.table:
        echo_content(rows, output, names=_COLUMNS)
        return
    if entries:
        _print_table(entries)
    echo(f"{count_of(len(entries), 'set')} in {config.data.cache_path or data.default_cache_dir()}")


def _to_dict(entry: data.CacheEntry) -> dict[str, Any]:
    values = {"num_classes": len(entry.class_names), "path": str(entry.path)}
    return {name: values[name] if name in values else getattr(entry, name) for name in _COLUMNS}


def _print_table(entries: list[data.CacheEntry]) -> None:
    from hilo_nas.cli.tables import Column, print_fitting

    columns = [
        Column("name", [entry.name for entry in entries], justify="left"),
        Column("images", [f"{entry.n_images:,}" for entry in entries], rank=1),
        Column("px", [str(entry.img_size) for entry in entries]),
        Column("classes", [f"{len(entry.class_names):,}" for entry in entries], rank=2),
        Column("MiB", [f"{entry.size_mib:.1f}" for entry in entries]),
        Column("hash", [_short_hash(entry) for entry in entries]),
    ]
    print_fitting(columns, build_console())


@app.command(epilog="Example: hilo-nas cache clear train.tar")
@takes_settings()
def clear(
    config: SearchConfig,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Names or hashes from `list`. Default: all."),
    ] = None,
) -> None:
    """Delete cached data sets. The next search decodes the images again."""

    def warn(event: Event) -> None:
        if isinstance(event, Notice):
            echo(f"warning: {event.text}")

    removed = data.clear_caches(config.data.cache_path, names or (), emit=warn)
    for entry in removed:
        echo(f"removed {entry.name} at {entry.img_size} px ({entry.size_mib:.1f} MiB, {_short_hash(entry)})")
    echo(f"{sum(entry.size_mib for entry in removed):.1f} MiB freed")


def _short_hash(entry: data.CacheEntry) -> str:
    return entry.content_hash[:12]
