"""Times of the parts of a study's networks, in the file `stages.json`.

A search times the parts of its front at its end. The file may be deleted at any time. `hilo-nas remeasure` writes it
again.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from hilo_nas.arch.cost import PARTS
from hilo_nas.errors import HiloNasError
from hilo_nas.files.plain_files import read_bytes
from hilo_nas.measurement import Condition, DeviceIdentity
from hilo_nas.measurement.fields import Positive, read_value, to_plain
from hilo_nas.study.records import write_atomically
from hilo_nas.text.one_line import decode_json

__all__ = ["PartTimes", "StageTimes", "fault_of_parts", "load_stage_times"]

_MAX_BYTES = 2**24


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartTimes:
    """Times of the parts of one network, each of which ran alone on random inputs."""

    condition: str
    """Label of the condition."""
    device: DeviceIdentity
    measured_at: str
    seconds: dict[str, Positive]
    """Seconds per call for each part in `hilo_nas.arch.cost.PARTS`."""
    verdict: str
    """State of the machine during the timing, one of `hilo_nas.measurement.VERDICTS`."""

    @property
    def shares(self) -> dict[str, float]:
        """Share of each part in the sum of all parts, in the order of `PARTS`."""
        total = sum(self.seconds.values())
        return {part: self.seconds[part] / total for part in PARTS}

    def fits(self, condition: Condition, device: DeviceIdentity) -> bool:
        """Returns True if all parts were timed under this condition on an equal device."""
        return (
            self.condition == condition.label()
            and not self.device.differences(device)
            and self.seconds.keys() == set(PARTS)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageTimes:
    """Times of the parts by key of the network."""

    networks: dict[str, PartTimes] = dataclasses.field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Writes the file atomically.

        Raises:
            StorageError: The folder cannot be written.
        """
        write_atomically(path, json.dumps(to_plain(self), indent=1, allow_nan=False) + "\n")


def load_stage_times(path: Path) -> StageTimes:
    """Returns the stored times. There are none if the file is missing or damaged, because it can be renewed."""
    try:
        return read_value(StageTimes, decode_json(read_bytes(path, _MAX_BYTES)))
    except (OSError, HiloNasError, ValueError, RecursionError):
        return StageTimes()


def fault_of_parts(condition: Condition) -> str | None:
    """Returns why parts cannot be timed under a condition, or None if they can.

    Parts exist in torch's inference form only. Autocast and the compiler would treat them differently from the whole
    network.
    """
    if condition.runtime != "torch":
        return f"{condition.runtime} runs a network as a whole"
    if not condition.fused:
        return "parts are timed in the inference form only"
    if condition.compile:
        return "torch.compile compiles a network as a whole"
    if condition.channels_last:
        return "parts are not timed in the channels_last memory format"
    return "parts are not timed with autocast" if condition.precision.startswith("amp-") else None
