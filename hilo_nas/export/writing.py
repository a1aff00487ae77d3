"""The command that writes a study's images as they were read, for trainers whose own reader reads them otherwise."""

from __future__ import annotations

import shlex

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
    words = ["hilo-nas", "data", "write", str(local.get("data") or manifest.data.name), "DIR"]
    given = {
        "val_data": local.get("val_data"),
        "group_by": manifest.plan.group_by,
        **{name: value for name, value in manifest.data.reading.items() if name != "skip_broken"},
    }
    for name, value in given.items():
        if value is not None:
            text = render_range(*value) if name == "value_range" else str(value)
            words += [f"--{name.replace('_', '-')}", text]
    words += ["--skip-broken"] * bool(manifest.data.reading.get("skip_broken"))
    why = "; ".join(manifest.data.unlike_timm)
    warning = ""
    if is_plugin(words[3]) and not local.get("data"):
        warning = " This runs a function that the study's author names: look at its code before you do so."
    return [
        f"timm would read these images otherwise: {why}. Write them as they were read, and train on DIR:{warning}",
        f"  {shlex.join(words)}",
    ]
