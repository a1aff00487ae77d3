"""The command that writes a study's images as they were read, for trainers whose own reader reads them otherwise."""

from __future__ import annotations

from typing import Any

from hilo_nas.commands import command, setting_words
from hilo_nas.data.reading import render_range
from hilo_nas.local import load_local
from hilo_nas.manifest import Manifest
from hilo_nas.plugins import is_plugin
from hilo_nas.study import StoredStudy

__all__ = ["hints_of_writing"]


def hints_of_writing(folder: StoredStudy, manifest: Manifest) -> list[str]:
    """Returns lines that say why timm would read the images otherwise, and the command that writes them; or none."""
    if not manifest.data.unlike_timm:
        return []
    local = load_local(folder.local_path).values
    source = str(local.get("data") or manifest.data.name)
    given = {"val_source": local.get("val_data"), "group_by": manifest.plan.group_by, **manifest.data.reading}
    settings = {f"data.{name}": _text_of(value) for name, value in given.items() if value is not None}
    why = "; ".join(manifest.data.unlike_timm)
    warning = ""
    if is_plugin(source) and not local.get("data"):
        warning = " This runs a function that the study's author names: look at its code before you do so."
    return [
        f"timm would read these images otherwise: {why}. Write them as they were read, and train on DIR:{warning}",
        f"  {command('data', 'write', source, 'DIR', *setting_words(settings))}",
    ]


def _text_of(value: Any) -> str:
    """Returns the value of a setting as it is typed."""
    if isinstance(value, bool):
        return str(value).lower()
    return render_range(*value) if isinstance(value, list) else str(value)
