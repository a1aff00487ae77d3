"""Hints for trainers whose own reader would read the images of a study differently."""

from __future__ import annotations

from hilo_nas.plugins import is_plugin
from hilo_nas.study.local_settings import load_local
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.text.commands import command, setting_words

__all__ = ["hints_of_writing"]


def hints_of_writing(folder: StoredStudy, manifest: Manifest) -> list[str]:
    """Returns the reason why timm reads the images differently, and the command that writes them as files.

    The list is empty if timm reads the same images.
    """
    if not manifest.data.unlike_timm:
        return []
    local = load_local(folder.local_path).values
    named = local.get("data.source")
    source = named or manifest.data.name
    given = {"data.val_source": local.get("data.val_source"), "data.group_by": manifest.plan.group_by}
    given |= {f"data.{name}": value for name, value in manifest.data.reading.items()}
    settings = {name: value for name, value in given.items() if value is not None}
    why = "; ".join(manifest.data.unlike_timm)
    warning = ""
    if is_plugin(source) and named is None:
        warning = " This command runs a function that the author of the study chose. Read its code first."
    return [
        f"timm would read these images differently: {why}. Write them as hilo-nas does and train on DIR:{warning}",
        f"  {command('data', 'write', source, 'DIR', *setting_words(settings))}",
    ]
