"""Networks given by name."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from hilo_nas.arch.config import PRESETS, load_arch
from hilo_nas.errors import NotFoundError, UsageError
from hilo_nas.measurement import RUNTIMES
from hilo_nas.study.stored_study import StoredStudy, open_view
from hilo_nas.text.trial_names import parse_trial

__all__ = ["FILES", "NamedNetwork", "find_network"]

FILES = {"onnx": ("onnxruntime", "openvino"), "openvino": ("openvino",)}
"""Runtimes of each kind of network file. The first is the default."""
_SIZED = re.compile(r"(?P<name>.+)@(?P<img_size>[1-9][0-9]{0,5})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedNetwork:
    """A network given by name."""

    name: str
    """The name from the user."""
    subject: dict[str, Any]
    """The network in the format of `Entrant.subject`."""
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of the study's objective condition, and `num_classes`. Empty for a network that is not from a study."""

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Runtimes that can run the network, if they are installed."""
        return next((runtimes for kind, runtimes in FILES.items() if kind in self.subject), RUNTIMES)


def find_network(name: str) -> NamedNetwork:
    """Returns the network with a name.

    A name is `STUDY:TRIAL`, `timm:NAME`, a preset, or the YAML file of an architecture. Each of these can end with
    `@SIZE`, which sets the image size of the network. A name can also be `onnx:FILE` or `openvino:FILE`. The file
    defines the size.

    Raises:
        NotFoundError: There is no such study, trial or file.
        UsageError: The name has none of these formats.
        ArchError: The file does not contain a valid architecture.
    """
    kind, separator, file = name.partition(":")
    if separator and kind in FILES:
        path = Path(file)
        if not path.is_file():
            raise NotFoundError(f"{name} must name a file, but there is no file {path}")
        return NamedNetwork(name=name, subject={kind: str(path.absolute())})
    if (size := name.rpartition("@")[2]) != name and size.isalnum() and not _SIZED.fullmatch(name):
        raise UsageError(f"the SIZE of NAME@SIZE must be a whole number of pixels, but got {name!r}")
    if sized := _SIZED.fullmatch(name):
        found = _find_network(sized["name"])
        subject = {**found.subject, "img_size": int(sized["img_size"])}
        return dataclasses.replace(found, name=name, subject=subject)
    return _find_network(name)


def _find_network(name: str) -> NamedNetwork:
    if name in PRESETS:
        return NamedNetwork(name=name, subject={"arch": PRESETS[name].to_dict()})
    if name.startswith("timm:"):
        return NamedNetwork(name=name, subject={"timm": name.removeprefix("timm:")})
    if (trial := parse_trial(name)) is not None:
        return _find_trial(name, open_view(trial[0]), trial[1])
    if name.endswith((".yaml", ".yml")):
        return NamedNetwork(name=name, subject={"arch": load_arch(Path(name)).to_dict()})
    raise UsageError(
        "a network must be named as STUDY:TRIAL, timm:NAME, onnx:FILE, openvino:FILE, an architecture's .yaml file or "
        f"one of {', '.join(PRESETS)}, but got {name!r}. All except the files of networks can end with @SIZE."
    )


def _find_trial(name: str, study: StoredStudy, number: int) -> NamedNetwork:
    manifest = study.manifest
    records = {record.number: record for record in study.records}
    if number not in records:
        raise NotFoundError(f"study {study.name} has no trial {number}: its trials are {', '.join(map(str, records))}")
    objective = dataclasses.replace(manifest.objective, model=None).to_dict()  # a name within the study
    return NamedNetwork(
        name=name,
        subject=records[number].subject.to_dict(),
        defaults={**objective, "num_classes": manifest.data.num_classes},
    )
