"""`hilo-nas cache`: the images that were decoded once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hilo_nas import data
from hilo_nas.cli.apps import App
from hilo_nas.cli.console import echo
from hilo_nas.events import Event, Notice

__all__ = ["app"]

app = App(help="List or clear the cache of decoded images.")

CacheDir = Annotated[
    Path | None, typer.Option("--cache-dir", metavar="DIR", help="The cache; $HILO_NAS_CACHE_DIR, else the user's own.")
]


@app.command("list")
def list_(cache_dir: CacheDir = None) -> None:
    """List the cached data sets."""
    entries = data.list_caches(cache_dir)
    echo(f"{len(entries)} in {cache_dir or data.default_cache_dir()}")
    for entry in entries:
        echo(f"  {_line(entry)}")


@app.command()
def clear(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME...", help="Names or hashes as `list` shows them; all if left out."),
    ] = None,
    cache_dir: CacheDir = None,
) -> None:
    """Delete cached data sets; the next search decodes the images again."""

    def warn(event: Event) -> None:
        if isinstance(event, Notice):
            echo(f"warning: {event.text}")

    removed = data.clear_caches(cache_dir, names or (), emit=warn)
    for entry in removed:
        echo(f"removed {_line(entry)}")
    echo(f"{sum(entry.size_mib for entry in removed):.1f} MiB freed")


def _line(entry: data.CacheEntry) -> str:
    return (
        f"{entry.name}  {entry.n_images:,} images at {entry.img_size} px, {len(entry.class_names)} classes, "
        f"{entry.size_mib:.1f} MiB, {entry.content_hash[:12]}"
    )
